"""The live picture of downloads in words: one line for a plain console, a few for below a terminal's table."""

from __future__ import annotations

from pipeline.causes import by_cause
from pipeline.picture import Host, Now

_CLASSES = 6
_CLASSES_IN_LINE = 3
_HOSTS = 5
_HOST_CHARACTERS = 40


def in_line(now: Now) -> str:
    """Return the picture as part of one line; empty while nothing is known."""
    if not now.running:
        return ""
    parts = [_speed(now), _share(now)]
    if failures := _failures(now, _CLASSES_IN_LINE):
        parts.append(f"fail: {failures}")
    if now.hosts:
        parts.append(f"slowest {_name(now.hosts[0])} {now.hosts[0].mean_s:.1f} s")
    return ", ".join(parts)


def in_lines(now: Now) -> list[str]:
    """Return the picture as a few lines; none while nothing is known."""
    if not now.running:
        return []
    requests = f", {now.counts.attempts / now.counts.answered:.1f} requests a url" if now.counts.answered else ""
    lines = [f"{_speed(now)}; {_share(now)}{requests}"]
    if failures := _failures(now, _CLASSES):
        lines.append(f"fail: {failures}")
    if now.hosts:
        lines.append("slowest hosts: " + "; ".join(_host(host) for host in now.hosts[:_HOSTS]))
    return lines


def _speed(now: Now) -> str:
    return f"{now.images_s:,.0f} images/s, {now.bytes_s / 1e6:,.1f} MB/s"


def _share(now: Now) -> str:
    return f"{now.counts.share:.0%} of {now.counts.answered:,} urls gave an image"


def _failures(now: Now, most: int) -> str:
    found = by_cause(now.counts)
    told = [f"{name} {rows / now.counts.answered:.1%}" for name, rows in found[:most]] if now.counts.answered else []
    return ", ".join([*told, *(["..."] if len(found) > most else [])])


def _host(host: Host) -> str:
    failed = f", {host.failed:,} failed" if host.failed else ""
    return f"{_name(host)} {host.mean_s:.1f} s a request ({host.requests:,}{failed})"


def _name(host: Host) -> str:
    """Return a host's name as it may be shown: strangers chose it. Its end says whose it is."""
    clean = "".join(ch if ch.isprintable() else "?" for ch in host.name)
    return clean if len(clean) <= _HOST_CHARACTERS else "..." + clean[3 - _HOST_CHARACTERS :]

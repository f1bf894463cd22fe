"""Why urls give no image: classes of reasons, from which share on one is worth a warning, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pipeline.picture import Counts

LEAST_ROWS = 200
"""Rows that must be settled before a share means anything."""

_ROUNDING = 1e-9
_GREW = 1.5  # a class that was warned of is warned of again when its share is so many times what it was


@dataclass(frozen=True, slots=True)
class Cause:
    """One class of failures.

    Attributes:
        name: In a word or two.
        reasons: Reasons of the ledger, without ``download.``.
        how: What rows do, as in "61% of rows ...".
        bound: Share of the settled rows from which on it is warned of.
        remedy: What is the matter and what to do.
        remedies: The same where one of the reasons is the most frequent.
    """

    name: str
    reasons: tuple[str, ...]
    how: str = ""
    bound: float = 1.0
    remedy: str = ""
    remedies: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


_HOSTS_DOWN = (
    "hosts are gone, or this machine's way to the web is not open or is full (firewall, proxy, connection limit of a "
    "router); try one by hand, then fewer download.network.connections"
)
CAUSES = (
    Cause(
        "DNS",
        ("dns_temporary", "dns"),
        "fail in DNS",
        0.2,
        "the name servers do not keep up or cannot be reached; name others with download.network.nameservers",
        {
            "dns": "the names do not exist, as in old lists, or the name servers hide them; compare with another one "
            "by download.network.nameservers"
        },
    ),
    Cause(
        "timeout",
        ("timeout",),
        "run into a deadline",
        0.2,
        "the line is full or the hosts are slow; fewer download.network.connections, or more connect_s, read_s and "
        "total_s",
    ),
    Cause(
        "refused/reset",
        ("refused", "reset", "short_body"),
        "meet a refused or broken connection",
        0.2,
        _HOSTS_DOWN,
    ),
    Cause(
        "429",
        ("http_429",),
        "are answered 429 (too many requests)",
        0.05,
        "this is too fast for these hosts; a lower download.network.per_host, or download.network.spacing_s",
    ),
    Cause(
        "403/opt-out",
        ("http_403", "opt_out"),
        "are refused by the hosts",
        0.3,
        "hosts refuse us (403); say who you are with download.contact, and ask less at a time "
        "(download.network.per_host)",
        {"opt_out": "owners do not want this use, and that is heeded; the ledger says what was read of each"},
    ),
    Cause(
        "5xx",
        ("http_5xx",),
        "meet a server's error (5xx)",
        0.2,
        "the hosts are down or overloaded; a lower download.network.per_host, or run again later: rows are retried",
    ),
    Cause(
        "TLS",
        ("tls",),
        "fail in TLS",
        0.1,
        "certificates are not trusted: this machine's clock or its list of authorities is old (package "
        "ca-certificates), or something stands between it and the web",
    ),
    Cause(
        "no image",
        ("not_image",),
        "are answered with something that is no image",
        0.3,
        "pages stand where images were (a login, a consent page, a block by address), or the url column names pages",
    ),
    Cause(
        "private address",
        ("private_address",),
        "lead to addresses that are not public",
        0.05,
        "the name servers answer with addresses of a private network, as filters and captive portals do; name others "
        "with download.network.nameservers",
    ),
    Cause("link gone", ("http_404", "http_410")),
)
"""Every class that has a name of its own; any other reason is a class by itself."""


def by_cause(counts: Counts) -> list[tuple[str, int]]:
    """Return how many rows each class took, the most first."""
    names = {f"download.{reason}": cause.name for cause in CAUSES for reason in cause.reasons}
    rows: dict[str, int] = {}
    for reason, left in counts.left.items():
        name = names.get(reason, reason.removeprefix("download."))
        rows[name] = rows.get(name, 0) + left
    return sorted(rows.items(), key=lambda item: (-item[1], item[0]))


class Warnings:
    """Says once a run which class of failures passed its bound, and again when its share grew by half."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def due(self, counts: Counts) -> list[str]:
        """Return what is to be said now, one line each."""
        if counts.answered < LEAST_ROWS:
            return []
        lines = []
        for cause in CAUSES:
            found = _found(cause, counts)
            share = sum(found.values()) / counts.answered
            bound = max(cause.bound, _GREW * self._said.get(cause.name, 0.0)) - _ROUNDING
            if cause.remedy and share >= bound:
                self._said[cause.name] = share
                lines.append(_line(cause, found, counts.answered))
        return lines


def _found(cause: Cause, counts: Counts) -> dict[str, int]:
    """Return the rows of each reason of a class, the most first."""
    found = {reason: counts.left.get(f"download.{reason}", 0) for reason in cause.reasons}
    return {reason: rows for reason, rows in sorted(found.items(), key=lambda item: -item[1]) if rows}


def _line(cause: Cause, found: Mapping[str, int], answered: int) -> str:
    share = sum(found.values()) / answered
    detail = ", ".join(f"download.{reason} {rows:,}" for reason, rows in found.items())
    remedy = cause.remedies.get(next(iter(found)), cause.remedy)
    return f"{share:.0%} of rows {cause.how} ({detail} of {answered:,}): {remedy}"

"""A run at one moment for people: a table of steps, the funnel so far, what fails, what stands still, what was last."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from manifests.canonical import JsonValue
from pipeline.watching.looks import Look
from pipeline.watching.snapshot import DownloadsNow, RunNow, StepNow
from pipeline.watching.words import amount, clean, duration, in_words, stalled

_COLUMNS = ("step", "done", "running", "open", "failed", "to do", "rows", "rows/s", "kept", "left", "deferred", "to go")
_REASONS = 6
_STALLED = 8
_EVENTS = 8
_NAME = 60


def picture(look: Look) -> RenderableType:
    """Return what one look found, to be printed."""
    now = look.now
    lines = [_head(look)]
    if now.dashboard:
        lines.append(f"Ray's dashboard: {now.dashboard}")
    below = [_text(line) for line in (*_below(now), *_verdict(look))]
    return Group(*map(_text, lines), _table(now), Text(), _funnel(now.steps), Text(), *below)


def _text(line: str) -> Text:
    return Text(clean(line), no_wrap=False)


def _head(look: Look) -> str:
    now = look.now
    speed = f"{now.events:,} events, the last of {now.last_event[11:19]} UTC"
    return (
        f"{now.run.removeprefix('runs/')}: {now.recipe}, {now.scope}, on {now.driver.host}, {duration(now.seconds)}; "
        f"{speed}; driver {amount(now.driver.rss_bytes)}"
    )


def _table(now: RunNow) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == "step" else "right", no_wrap=True)
    for step in now.steps:
        p = step.partitions
        states = [str(n) if n else "" for n in (p.running, p.open, p.failed, p.todo)]
        rate = step.rows_s if step.ended else step.rows_s_now
        left = step.total("dropped") + step.total("failed")
        rows = (step.total("seen"), rate, step.total("kept"), left, step.total("deferred"))
        to_go = "" if step.eta_s is None else duration(step.eta_s)
        name = clean(step.step, _NAME)
        table.add_row(Text(name), f"{p.done + p.open}/{p.total}", *states, *(f"{n:,.0f}" for n in rows), to_go)
    return table


def _below(now: RunNow) -> Iterator[str]:
    if now.downloads and now.downloads.running:
        yield from _downloads(now.downloads)
    for step in now.steps:
        reasons = [(reason, rows) for class_ in step.left.values() for reason, rows in class_.items()]
        if reasons and not step.ended:
            most = sorted(reasons, key=lambda item: (-item[1], item[0]))[:_REASONS]
            yield f"left {step.step}: " + ", ".join(f"{reason.split('.')[-1]} {rows:,}" for reason, rows in most)
    if now.failures:
        yield "attempts that failed: " + ", ".join(f"{kind} {n:,}" for kind, n in sorted(now.failures.items()))
    if now.nodes_lost:
        yield f"nodes lost: {now.nodes_lost}"
    for what in now.stalled[:_STALLED]:
        yield stalled(what, what.seconds)
    if len(now.stalled) > _STALLED:
        yield f"... and {len(now.stalled) - _STALLED} more that stand still"
    for name, waiting in now.waiting.items():
        yield f"{name} not run: waits for {', '.join(waiting[:3])}"
    for event in now.last[-_EVENTS:]:
        if line := _event(event):
            yield line


def _funnel(steps: list[StepNow]) -> Table:
    """Return the funnel so far: of each source the rows that came in, and those that each step of this run kept."""
    table = Table(box=None, pad_edge=False)
    shown = [step for step in steps if step.rows]
    for column in ("kept of", "in", *(clean(step.step.split(".")[-1], _NAME) for step in shown)):
        table.add_column(Text(column), justify="left" if column == "kept of" else "right", no_wrap=True)
    for source in sorted({source for step in shown for source in step.rows}):
        of = [step.rows.get(source) for step in shown]
        first = next(rows.seen for rows in of if rows)
        table.add_row(Text(clean(source, _NAME)), f"{first:,}", *(f"{rows.kept:,}" if rows else "" for rows in of))
    return table


def _downloads(told: DownloadsNow) -> Iterator[str]:
    share = f"; {told.images / told.answered:.0%} of {told.answered:,} urls gave an image" if told.answered else ""
    yield f"downloads: {told.images_s:,.0f} images/s, {amount(told.bytes_s)}/s{share}"
    if told.fails and told.answered:
        yield "  fail: " + ", ".join(f"{cause} {rows / told.answered:.1%}" for cause, rows in told.fails[:_REASONS])
    if told.hosts:
        hosts = (f"{clean(h.host, _NAME)} {h.mean_s:.1f} s a request ({h.requests:,})" for h in told.hosts)
        yield "  slowest hosts: " + "; ".join(hosts)


def _event(event: dict[str, JsonValue]) -> str:
    try:
        text = in_words(event)
    except (KeyError, TypeError, ValueError, ValidationError):  # an event of another release
        text = ""
    what = text or " ".join(str(event[name]) for name in ("event", "step") if name in event)
    return f"{str(event.get('t', ''))[11:19]} {what}"


def _verdict(look: Look) -> Iterator[str]:
    now, silent = look.now, duration(look.silent_s)
    for other in look.others:
        at = ", ".join(f"{s.step} {s.partitions.done}/{s.partitions.total}" for s in other.steps if not s.ended)
        yield f"beside it: {other.run.removeprefix('runs/')} ({other.scope}, {other.driver.host}): {at or 'starting'}"
    if look.trouble:
        yield f"its newest numbers cannot be read: {look.trouble}; these are {silent} old"
    match look.life:
        case "ended" if now.state == "stopped":
            yield f"ended by an error: {now.error}; run again to resume"
        case "ended":
            yield f"ended with exit code {now.exit_code}"
        case "dead":
            yield f"dead: no sign of life for {silent}, and its lock does not beat; run again to resume"
        case "seems dead":
            yield f"seems dead: its last sign of life is {silent} old by this machine's clock; watching its pulse"
        case "late":
            yield "its lock beats, but its numbers are late: the store may be slow"
        case "alive":
            pass

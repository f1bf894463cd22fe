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
    return Group(*map(_text, lines), _table(now), *map(_text, [*_below(now), *_verdict(look)]))


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
    yield from _funnel(now.steps)
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


def _funnel(steps: list[StepNow]) -> Iterator[str]:
    """Yield a line a source: how many rows each step kept of it in this run."""
    sources = sorted({source for step in steps for source in step.rows})
    for source in sources:
        kept = [f"{step.step} {step.rows[source].kept:,}" for step in steps if source in step.rows]
        first = next(step.rows[source].seen for step in steps if source in step.rows)
        yield f"{clean(source, _NAME)}: {first:,} > {' > '.join(kept)}"


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
        done = ", ".join(f"{s.step} {s.partitions.done}/{s.partitions.total}" for s in other.steps if not s.ended)
        yield f"beside it: {other.run.removeprefix('runs/')} ({other.scope} on {other.driver.host}): {done or 'starting'}"
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

"""Words for people about what a run tells. Strangers chose some of them: none may steer a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pipeline.events import Event
from pipeline.watching.snapshot import StalledNow

_CHARACTERS = 400
_EVENT_CHARACTERS = 2000


def clean(text: str, most: int = _CHARACTERS) -> str:
    """Return text without control characters, marks of writing direction and the like, and shortened."""
    whole = "".join(ch if ch.isprintable() else "?" for ch in text[: most + 1])
    return whole if len(whole) <= most else whole[: most - 3] + "..."


def duration(seconds: float) -> str:
    """Return a time span in the two units that matter, e.g. ``3 h 20 min``."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{whole // 60} min"
    hours = whole // 3600
    return f"{hours} h {whole % 3600 // 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def amount(size: float) -> str:
    """Return bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def stalled(what: StalledNow, seconds: float) -> str:
    """Return what stands still, and for how long, in one line."""
    node = f" on {what.node}" if what.node else ""
    told = f"; last told: {pairs(what.told)}" if what.told else "; it told nothing yet"
    text = f"{what.step}/{what.partition} stands still for {duration(seconds)} (attempt {what.attempt}{node}){told}"
    return clean(text)


def pairs(values: Mapping[str, object]) -> str:
    """Return values by name in one line."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def in_words(event: Event) -> str:
    """Return an event as a line for people; empty for those that are told in numbers."""
    place = f"{event.get('step')}/{event.get('partition')}"
    match event["event"]:
        case "partition_failed" | "partition_retried":
            text = f"{place}: {event['error']}"
        case "partition_stalled":
            what = StalledNow.model_validate(event)
            text = stalled(what, what.seconds)
        case "partition_resumed":
            ended = "ended" if event.get("ended") else "goes on"
            text = f"{place} {ended} after standing still for {duration(cast('float', event['seconds']))}"
        case "file_corrupt":
            text = f"corrupted file {event['path']}: {event['what']}; set aside, it is made again"
        case "step_skipped":
            waiting = cast("list[str]", event["waiting"])
            text = f"{event['step']} not run: waits for {', '.join(waiting[:3])}{' ...' if waiting[3:] else ''}"
        case "node_lost":
            again = f"; {event['tasks']} tasks were on it and are done again" if event.get("tasks") else ""
            text = f"node {event.get('node')} was lost{again}"
        case "node_joined":
            text = f"node {event.get('node')} joined with {event.get('has')}"
        case "dashboard":
            text = f"Ray's dashboard: {event['url']}"
        case "note":
            text = str(event["text"])
        case _:
            text = ""
    return clean(text, _EVENT_CHARACTERS)

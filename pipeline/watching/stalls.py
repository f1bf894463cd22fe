"""Names partitions that stand still, with the last thing they told, and says when they go on or end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from manifests.canonical import JsonValue
from pipeline.events import Events
from pipeline.watching.step_tally import Running, StepTally
from pipeline.watching.tally import Tally

LEAST_S = 300.0
"""No partition is said to stand still before, unless `run.stalled_after_s` says so."""

TIMES_MEDIAN = 5.0
"""A partition that tells nothing may take so many times the median of its step."""

_READ_AT_MOST = 64  # files a look: each may be a request
_VALUES = 12
_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Told:
    """What a task told last, and from where; ``node`` is empty where it is not known."""

    values: Mapping[str, JsonValue]
    node: str = ""


@dataclass(slots=True)
class _Sign:
    """A partition's last sign of life."""

    running: Running
    changed_s: float
    told: Mapping[str, JsonValue] = field(default_factory=dict)
    node: str = ""
    stalled: bool = False


class Stalls:
    """Looks for partitions that stand still.

    A partition whose task tells how it goes stands still when what it told did not change for the bound; one that
    tells nothing, when it runs longer than the bound. The bound is `run.stalled_after_s`; 0: `LEAST_S`, and for those
    that tell nothing at least `TIMES_MEDIAN` times the median of the step, or, before one has worked, half of the
    partition's deadline.

    Args:
        tally: Which partitions are under way.
        events: Told of those that stand still, and of those that no longer do.
        read: Returns what a running task told last, by step and partition; None where it told nothing.
        after_s: `run.stalled_after_s`.
        deadline_s: `run.partition_deadline_s`.
    """

    def __init__(
        self,
        tally: Tally,
        events: Events,
        read: Callable[[str, str], Told | None],
        after_s: float,
        deadline_s: float,
    ) -> None:
        self._tally = tally
        self._events = events
        self._read = read
        self._after_s = after_s
        self._deadline_s = deadline_s
        self._signs: dict[tuple[str, str], _Sign] = {}

    def look(self) -> None:
        """Look once; called by one thread."""
        with self._tally.lock:
            now_s = self._tally.clock()
            running = {
                (name, partition): (entry, step)
                for name, step in self._tally.steps.items()
                for partition, entry in step.running.items()
            }
            bounds = {name: self._bound_s(step) for name, step in self._tally.steps.items()}
        for key in [key for key, sign in self._signs.items() if key not in running or running[key][0] != sign.running]:
            self._ended(key, self._signs.pop(key), now_s)
        reads = 0
        for key, (entry, _) in running.items():
            sign = self._signs.get(key) or self._signs.setdefault(key, _Sign(entry, entry.begun_s))
            bound_s = (self._after_s or LEAST_S) if sign.told else bounds[key[0]]
            if now_s - sign.changed_s > bound_s and reads < _READ_AT_MOST:
                reads += 1
                self._doubt(key, sign, now_s)

    def _bound_s(self, step: StepTally) -> float:
        if self._after_s:
            return self._after_s
        usual_s = step.median_s
        return max(LEAST_S, self._deadline_s / 2 if usual_s is None else TIMES_MEDIAN * usual_s)

    def _doubt(self, key: tuple[str, str], sign: _Sign, now_s: float) -> None:
        """Ask a task's file whether it goes on after all, and name the partition if it does not."""
        found = self._read(*key)
        if found:
            sign.node = found.node
        if found and found.values != sign.told:
            since_s, sign.told, sign.changed_s = sign.changed_s, found.values, now_s
            if sign.stalled:
                sign.stalled = False
                self._events("partition_resumed", **_named(key), seconds=round(now_s - since_s, 1), ended=False)
        elif not sign.stalled:
            sign.stalled = True
            told: dict[str, JsonValue] = {"told": brief(sign.told)} if sign.told else {}
            told |= {"node": sign.node} if sign.node else {}
            self._events(
                "partition_stalled",
                **_named(key),
                attempt=sign.running.attempt,
                since=_ago(now_s - sign.changed_s),
                seconds=round(now_s - sign.changed_s, 1),
                **told,
            )

    def _ended(self, key: tuple[str, str], sign: _Sign, now_s: float) -> None:
        if sign.stalled:
            self._events("partition_resumed", **_named(key), seconds=round(now_s - sign.changed_s, 1), ended=True)


def brief(values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the single values of what a task told, without its lists, shortened: an event stays small."""
    plain = {name: value for name, value in values.items() if isinstance(value, str | int | float)}
    return {
        name[:_CHARACTERS]: value[:_CHARACTERS] if isinstance(value, str) else value
        for name, value in list(plain.items())[:_VALUES]
        if not isinstance(value, float) or math.isfinite(value)
    }


def _named(key: tuple[str, str]) -> dict[str, JsonValue]:
    return {"step": key[0], "partition": key[1]}


def _ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds")

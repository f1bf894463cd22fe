"""What a run's events come to, by step: the one count that progress, metrics and `status --watch` all show.

Memory grows with partitions under way and open ones (rows deferred), not with those that are done.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast

from pipeline.events import Event
from pipeline.watching.step_tally import Running, StepTally

_LAST = 20
_LAST_CHARACTERS = 500
_LAST_ITEMS = 5
_PLENTIFUL = frozenset({"partition_started", "partition_done"})  # told in numbers, never one by one

State: TypeAlias = Literal["running", "finished", "stopped"]


@dataclass(slots=True)
class RunTally:
    """What is told of a run as a whole; empty texts: not known."""

    recipe: str = ""
    folder: str = ""
    started: str = ""
    state: State = "running"
    exit_code: int | None = None
    error: str = ""
    dashboard: str = ""
    last_event: str = ""
    events: int = 0
    nodes_lost: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    waiting: dict[str, list[str]] = field(default_factory=dict)
    stalled: dict[tuple[str, str], Event] = field(default_factory=dict)
    last: deque[Event] = field(default_factory=lambda: deque(maxlen=_LAST))


class Tally:
    """Counts events. Any thread may send them and look; looking is done while ``lock`` is held.

    Args:
        clock: Seconds, from any start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.lock = threading.RLock()
        self.clock = clock
        self.steps: dict[str, StepTally] = {}
        self.run = RunTally()

    def take(self, event: Event) -> None:
        """Count an event."""
        with self.lock:
            self.run.events += 1
            self.run.last_event = str(event.get("t", ""))
            kind = str(event["event"])
            if kind not in _PLENTIFUL:
                self.run.last.append(_shortened(event))
            if "partition" in event:
                self._of_partition(kind, str(event["step"]), str(event["partition"]), event)
            elif "step" in event:
                self._of_step(kind, str(event["step"]), event)
            else:
                self._of_run(kind, event)

    def step(self, name: str) -> StepTally:
        """Return a step's counts; they begin when it is first heard of."""
        found = self.steps.get(name)
        if found is None:
            found = self.steps[name] = StepTally(self.clock)
        return found

    def _of_partition(self, kind: str, step_name: str, partition: str, event: Event) -> None:
        step = self.step(step_name)
        match kind:
            case "partition_started":
                step.attempts += 1
                step.running[partition] = Running(cast("int", event.get("attempt", 1)), self.clock())
            case "partition_stalled":
                if partition in step.running:  # it may have ended while it was looked at
                    self.run.stalled[step_name, partition] = event
            case "partition_resumed":
                self.run.stalled.pop((step_name, partition), None)
            case "partition_done" | "partition_failed" | "partition_retried":
                step.running.pop(partition, None)
                self.run.stalled.pop((step_name, partition), None)
                if kind == "partition_done":
                    step.commit(partition, event)
                else:
                    self.run.failures[str(event.get("kind", "error"))] += 1
                    step.failed += kind == "partition_failed"
                    step.retries += kind == "partition_retried"

    def _of_step(self, kind: str, name: str, event: Event) -> None:
        match kind:
            case "step_started":
                self.step(name).begin(event)
            case "step_finished":
                step = self.steps.get(name)
                if step and not step.ended_s:
                    step.ended_s = self.clock()
            case "step_skipped":
                self.run.waiting[name] = [str(part) for part in cast("list[str]", event["waiting"])]

    def _of_run(self, kind: str, event: Event) -> None:
        run = self.run
        match kind:
            case "run_started":
                run.recipe, run.folder, run.started = str(event["recipe"]), str(event["folder"]), run.last_event
            case "run_finished":
                run.state, run.exit_code = "finished", cast("int", event["exit_code"])
            case "run_stopped":
                run.state, run.error = "stopped", str(event["error"])
            case "node_lost":
                run.nodes_lost += 1
            case "dashboard":
                run.dashboard = str(event["url"])


def _shortened(event: Event) -> Event:
    """Return an event of bounded size: of a list its first items, and no tables but what a task told."""
    short: Event = {}
    for name, value in event.items():
        if isinstance(value, str):
            short[name] = value[:_LAST_CHARACTERS]
        elif isinstance(value, list):
            short[name] = [str(item)[:_LAST_CHARACTERS] for item in value[:_LAST_ITEMS]]
        elif not isinstance(value, dict) or name == "told":
            short[name] = value
    return short

"""Live progress on stderr: a table on a terminal, one plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import cast

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.events import Event

_LINE_S = 5.0


@dataclass(frozen=True, slots=True)
class _Books:
    """The rows of one partition's newest commit, over all sources."""

    seen: int
    kept: int
    left: int
    deferred: int


@dataclass(slots=True)
class _StepProgress:
    partitions: int = 0
    done: int = 0
    before: int = 0
    failed: int = 0
    started_s: float = 0.0
    ended_s: float = 0.0
    books: dict[str, _Books] = field(default_factory=dict)

    def total(self, name: str) -> int:
        return sum(int(getattr(books, name)) for books in list(self.books.values()))

    @property
    def seconds(self) -> float:
        return (self.ended_s or time.monotonic()) - self.started_s

    @property
    def rate(self) -> float:
        return self.total("seen") / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        worked = self.done - self.before
        remaining = self.partitions - self.done - self.failed
        return self.seconds / worked * remaining if worked and remaining and not self.ended_s else None


class Progress:
    """Listens to events and shows them. Use it as a context manager around a run."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._steps: dict[str, _StepProgress] = {}
        self._told: dict[str, tuple[str, Sequence[str]]] = {}
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=4, transient=False)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._plain_lines, name="progress", daemon=True)
        self._is_terminal = self._console.is_terminal

    def __enter__(self) -> Progress:
        if self._is_terminal:
            self._live.start()
        else:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_terminal:
            self._live.stop()
        else:
            self._stop.set()
            self._thread.join()

    def listen(self, event: Event) -> None:
        """Take in an event."""
        match event["event"]:
            case "step_started":
                step = self._steps.setdefault(str(event["step"]), _StepProgress(started_s=time.monotonic()))
                step.partitions = cast("int", event["partitions"])
                step.done = step.before = cast("int", event["done"])
                step.ended_s = 0.0
            case "partition_done":
                step = self._steps[str(event["step"])]
                step.done += 1
                step.books[str(event["partition"])] = _books(cast("dict[str, dict[str, object]]", event["rows"]))
            case "step_finished":
                self._finish(str(event["step"]))
            case "partition_failed" | "partition_retried":
                step = self._steps[str(event["step"])]
                step.failed += event["event"] == "partition_failed"
                self._say(f"{event['step']}/{event['partition']}: {event['error']}")
            case "file_corrupt":
                self._say(f"corrupted file {event['path']}: {event['what']}; set aside, it is made again")
            case "step_skipped":
                waiting = cast("list[str]", event["waiting"])
                self._say(f"{event['step']} not run: waits for {', '.join(waiting[:3])}{' ...' if waiting[3:] else ''}")
            case "note":
                self._say(str(event["text"]))

    def tell(self, step: str, line: str, lines: Sequence[str]) -> None:
        """Take in how a step's work goes just now, in place of what was told before.

        Args:
            step: ``<stage>.<step>``.
            line: For a plain console: part of one line. Empty: nothing is known.
            lines: For a terminal, below the table.
        """
        self._told[step] = (line, lines)

    def _finish(self, name: str) -> None:
        self._told.pop(name, None)
        step = self._steps.get(name)
        if step and not step.ended_s:
            step.ended_s = time.monotonic()
            if not self._is_terminal:
                self._console.print(self._line(name, step), highlight=False, soft_wrap=True)

    def _say(self, text: str) -> None:
        if self._is_terminal:
            self._live.console.print(Text(text))
        else:
            self._console.print(Text(text), soft_wrap=True)

    def _plain_lines(self) -> None:
        while not self._stop.wait(_LINE_S):
            running = [(name, step) for name, step in self._steps.items() if not step.ended_s]
            for name, step in running[-1:]:
                told = self._told.get(name, ("", ()))[0]
                self._say(self._line(name, step) + (f"; now {told}" if told else ""))

    def _line(self, name: str, step: _StepProgress) -> str:
        eta = f", {step.eta_s:.0f} s left" if step.eta_s is not None else ""
        deferred = f", {step.total('deferred'):,} deferred" if step.total("deferred") else ""
        return (
            f"{name}: {step.done}/{step.partitions} partitions, {step.total('seen'):,} rows in {step.seconds:.1f} s "
            f"({step.rate:,.0f}/s), {step.total('kept'):,} kept, {step.total('left'):,} left{deferred}{eta}"
        )

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for column in ("step", "partitions", "rows", "rows/s", "kept", "left", "deferred", "time", "to go"):
            table.add_column(column, justify="left" if column == "step" else "right")
        for name, step in list(self._steps.items()):
            eta = "" if step.eta_s is None else f"{step.eta_s:.0f} s"
            cells = (step.total("seen"), step.rate, *(step.total(n) for n in ("kept", "left", "deferred")))
            numbers = [f"{value:,.0f}" for value in cells]
            failed = f" ({step.failed} failed)" if step.failed else ""
            table.add_row(name, f"{step.done}/{step.partitions}{failed}", *numbers, f"{step.seconds:.1f} s", eta)
        told = [Text(f"{name}: {line}") for name, (_, lines) in list(self._told.items()) for line in lines]
        return Group(table, *told)


def _books(rows: dict[str, dict[str, object]]) -> _Books:
    classes = [
        {c: sum(cast("dict[str, int]", r[c]).values()) for c in ("dropped", "failed", "deferred")}
        for r in rows.values()
    ]
    return _Books(
        seen=sum(cast("int", r["in"]) for r in rows.values()),
        kept=sum(cast("int", r["kept"]) for r in rows.values()),
        left=sum(c["dropped"] + c["failed"] for c in classes),
        deferred=sum(c["deferred"] for c in classes),
    )


def stderr_say(text: str) -> None:
    """Write one line to stderr, at once."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()

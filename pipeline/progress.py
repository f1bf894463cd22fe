"""Live progress on stderr: a table on a terminal, one plain line every few seconds elsewhere.

What is told is other people's words too: nothing of it steers the terminal.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.events import Event
from pipeline.watching.snapshot import stalled_now
from pipeline.watching.step_tally import StepTally
from pipeline.watching.tally import Tally
from pipeline.watching.words import in_words, stalled

_LINE_S = 5.0
_STALLED_SHOWN = 5


class Progress:
    """Listens to events and shows them. Use it as a context manager around a run.

    Attributes:
        tally: What the events came to; others may look at it too.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self.tally = Tally()
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
        name = str(event.get("step", ""))
        was_over = name in self.tally.steps and bool(self.tally.steps[name].ended_s)
        self.tally.take(event)
        if event["event"] == "step_finished":
            self._finish(name, was_over=was_over)
        elif text := in_words(event):
            self._say(text)

    def tell(self, step: str, line: str, lines: Sequence[str]) -> None:
        """Take in how a step's work goes just now, in place of what was told before.

        Args:
            step: ``<stage>.<step>``.
            line: For a plain console: part of one line. Empty: nothing is known.
            lines: For a terminal, below the table.
        """
        self._told[step] = (line, lines)

    def _finish(self, name: str, *, was_over: bool) -> None:
        self._told.pop(name, None)
        step = self.tally.steps.get(name)
        if step and not was_over and not self._is_terminal:
            self._console.print(self._line(name, step), highlight=False, soft_wrap=True)

    def _say(self, text: str) -> None:
        if self._is_terminal:
            self._live.console.print(Text(text))
        else:
            self._console.print(Text(text), soft_wrap=True)

    def _plain_lines(self) -> None:
        while not self._stop.wait(_LINE_S):
            with self.tally.lock:
                running = [(name, step) for name, step in self.tally.steps.items() if not step.ended_s]
                lines = [(name, self._line(name, step)) for name, step in running[-1:]]
            for name, line in lines:
                told = self._told.get(name, ("", ()))[0]
                self._say(line + (f"; now {told}" if told else ""))

    def _line(self, name: str, step: StepTally) -> str:
        eta = f", {step.eta_s:.0f} s left" if step.eta_s is not None else ""
        deferred = f", {step.total('deferred'):,} deferred" if step.total("deferred") else ""
        still = sum(1 for of, _ in self.tally.run.stalled if of == name)
        return (
            f"{name}: {step.done}/{step.partitions} partitions, {step.total('seen'):,} rows in {step.seconds:.1f} s "
            f"({step.rate:,.0f}/s), {step.total('kept'):,} kept, {_left(step):,} left{deferred}{eta}"
            f"{f', {still} stand still' if still else ''}"
        )

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for column in ("step", "partitions", "rows", "rows/s", "kept", "left", "deferred", "time", "to go"):
            table.add_column(column, justify="left" if column == "step" else "right")
        with self.tally.lock:
            for name, step in self.tally.steps.items():
                eta = "" if step.eta_s is None else f"{step.eta_s:.0f} s"
                cells = (step.total("seen"), step.rate, step.total("kept"), _left(step), step.total("deferred"))
                numbers = [f"{value:,.0f}" for value in cells]
                failed = f" ({step.failed} failed)" if step.failed else ""
                table.add_row(name, f"{step.done}/{step.partitions}{failed}", *numbers, f"{step.seconds:.1f} s", eta)
            still = [stalled_now(event) for event in self.tally.run.stalled.values()]
        told = [Text(f"{name}: {line}") for name, (_, lines) in list(self._told.items()) for line in lines]
        return Group(table, *told, *(Text(stalled(what, what.seconds)) for what in still[:_STALLED_SHOWN]))


def _left(step: StepTally) -> int:
    return step.total("dropped") + step.total("failed")


def stderr_say(text: str) -> None:
    """Write one line to stderr, at once."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()

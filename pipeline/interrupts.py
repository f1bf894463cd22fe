"""Signals: Ctrl-C stops now, SIGTERM and SIGUSR1 finish what is running and start nothing new. Both can be resumed."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """Installs the signal handlers for the time of a run.

    Attributes:
        exit_code: 0 until a signal came; then 130 (SIGINT) or 143.
    """

    def __init__(self) -> None:
        self.exit_code = 0
        self._before: dict[int, Any] = {}

    @property
    def draining(self) -> bool:
        """Whether nothing new is to be started."""
        return self.exit_code != 0

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            self._before[number] = signal.signal(number, self._drain)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _drain(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.exit_code = 143

"""Keeps a run's numbers: every few seconds one document, handed to every sink, in a thread beside the work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from pipeline.events import Events
from pipeline.picture import Now
from pipeline.watching.prometheus import Metrics
from pipeline.watching.sinks import Sink
from pipeline.watching.snapshot import Snapshots
from pipeline.watching.stalls import Stalls

_PATIENCE_S = 20.0


class Keeper:
    """Used as a context manager around a run. What a sink raises is said once and hurts nothing.

    Args:
        events: The run's events; told that the run stopped by an error, and which sink does not work.
        snapshots: Makes the documents.
        metrics: Kept up to date with them.
        open_sinks: Each makes one sink, in the keeper's thread: a port that is taken, or a service that does not
            answer, holds up nobody.
        stalls: Asked to look each time.
        downloads: Returns how downloads go.
        every_s: Seconds between two documents.
    """

    def __init__(
        self,
        events: Events,
        snapshots: Snapshots,
        metrics: Metrics,
        open_sinks: Sequence[Callable[[], Sink]],
        stalls: Stalls,
        downloads: Callable[[], Now],
        every_s: float,
    ) -> None:
        self._events = events
        self._snapshots = snapshots
        self._metrics = metrics
        self._open_sinks = open_sinks
        self._stalls = stalls
        self._downloads = downloads
        self._every_s = every_s
        self._sinks: list[Sink] = []
        self._said: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._events("run_stopped", error=f"{kind.__name__}: {error}".rstrip(": "))
        self._stop.set()
        self._thread.join(_PATIENCE_S)

    def tick(self) -> None:
        """Look for what stands still, and hand a document to every sink."""
        self._stalls.look()
        now = self._snapshots.take(self._downloads())
        self._metrics.update(now)
        for sink in self._sinks:
            self._try(sink.name, lambda sink=sink: sink.put(now))  # type: ignore[misc]

    def _keep(self) -> None:
        for number, make in enumerate(self._open_sinks):
            self._try(f"a place for metrics ({number})", lambda make=make: self._sinks.append(make()))  # type: ignore[misc]
        self.tick()
        while not self._stop.wait(self._every_s):
            self.tick()
        self.tick()
        for sink in self._sinks:
            self._try(sink.name, sink.close)

    def _try(self, name: str, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001  (stores, sockets and services raise errors of their own kinds)
            if name not in self._said:
                self._said.add(name)
                why = f"{type(error).__name__}: {error}".splitlines()[0]
                self._events("note", text=f"metrics do not go to {name} ({why}); the run goes on without")

"""What a run says while it works: events, which go to the run's own folder and to whoever watches."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

from manifests.canonical import JsonValue

Event: TypeAlias = dict[str, JsonValue]
Listener: TypeAlias = Callable[[Event], None]


class Events:
    """Stamps events with the time and hands them to listeners, in order, one at a time whichever thread sends them.

    Event names: run_started, step_started, partition_done, partition_failed, partition_retried, step_finished,
    step_skipped, file_corrupt, note, run_finished.
    """

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._lock = threading.RLock()

    def listen(self, listener: Listener) -> None:
        """Add a listener."""
        self._listeners.append(listener)

    def __call__(self, event: str, **fields: JsonValue) -> None:
        """Send an event."""
        with self._lock:
            stamped: Event = {"t": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields}
            for listener in self._listeners:
                listener(stamped)


def event_line(event: Event) -> bytes:
    """Return an event as one line of JSON."""
    return json.dumps(event, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"

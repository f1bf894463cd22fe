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

    Event names and their fields, beside ``t`` and ``event``:

    - run_started: recipe, steps, folder. run_finished: committed, failed, exit_code. run_stopped: error (the run ended
      by an error, which is told).
    - step_started: step, partitions, done (settled before), round, device, gpus (of a task, where device is cuda).
      step_finished: step, rows. step_skipped: step, waiting.
    - partition_started: step, partition, attempt (of this round, from 1). partition_done: step, partition, rows, bytes
      (written), seconds (of the task), commit_s, telemetry where the task told how it went. partition_retried and
      partition_failed: step, partition, kind, error. partition_halved: step, partition, batch.
    - partition_stalled: step, partition, attempt, since, seconds, and, where known, node and told (the last it told);
      partition_resumed: step, partition, seconds, ended (it ended, and did not just go on).
    - dashboard: url. node_lost: node, tasks (that were on it). node_joined: node, has.
    - file_corrupt: path, what, removed. note: text.
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

"""A worker's side of the live picture: puts what a task tells into its file, beside the work and never in its way."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from manifests.canonical import JsonValue
from manifests.store import Store

_LOCAL_S = 2.0
_REMOTE_S = 10.0  # every write and read is a request there: a cluster of 1,000 workers makes 100 a second of each
_PATIENCE_S = 10.0


def period_s(store: Store) -> float:
    """Return how often a task's file is written, and read: seconds."""
    return _LOCAL_S if store.local_path("") else _REMOTE_S


class Poster:
    """Writes the newest values that a task posted into one file, from a thread of its own.

    A slow or failing store holds up nobody: the work only leaves values behind, and what cannot be written is left
    out. On the way out the last values are written.

    Args:
        store: The workdir.
        path: The file; empty: values are only kept.
        attempt: Which attempt at the task this is; told with the values, so that older ones are not taken for them.
        period_s: Least time between two writes.

    Attributes:
        last: The last values posted.
    """

    def __init__(self, store: Store, path: str, attempt: int, period_s: float) -> None:
        self.last: dict[str, JsonValue] = {}
        self._store = store
        self._path = path
        self._attempt = attempt
        self._period_s = period_s
        self._lock = threading.Lock()
        self._waiting: bytes | None = None
        self._due, self._closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._due.set()
        if self._thread:
            self._thread.join(_PATIENCE_S)

    def post(self, values: Mapping[str, JsonValue]) -> None:
        """Take values in place of the last.

        Raises:
            TypeError: If they are no JSON.
        """
        told = {"attempt": self._attempt, "node": socket.gethostname(), "values": dict(values)}
        document = json.dumps(told, sort_keys=True).encode() + b"\n"
        with self._lock:
            self.last, self._waiting = dict(values), document
        if self._path and self._thread is None:
            self._thread = threading.Thread(target=self._write_on, name="poster", daemon=True)
            self._thread.start()
        self._due.set()

    def _write_on(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            closed = self._closed.is_set()  # asked before writing: what was posted until then is written below
            self._write()
            if closed:
                return
            self._closed.wait(self._period_s)

    def _write(self) -> None:
        with self._lock:
            document, self._waiting = self._waiting, None
        if document is None:
            return
        # Stores raise errors of their own kinds. Nothing of the work passes here: a full disk shows where it matters.
        with contextlib.suppress(Exception):
            self._store.replace(self._path, document)

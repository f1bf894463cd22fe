"""A file that grows by lines in a run's folder, on a file system or on an object store, which has no append."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator

from manifests.store import Store

_PIECE_BYTES = 1 << 20


class GrowingFile:
    """Appends lines.

    On a file system a line is written at once. On an object store what came is put every ``every_s`` seconds as a
    piece: the first has the file's own name, ``events.jsonl``, and when it is more than 1 MiB a new one begins,
    ``events-0001.jsonl``. So what is put in all stays in proportion to what there is, and so does memory.

    Args:
        store: The workdir.
        path: The file, with a suffix.
        every_s: Least seconds between two puts.
    """

    def __init__(self, store: Store, path: str, every_s: float) -> None:
        self._store = store
        self._path = path
        self._every_s = every_s
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._bytes = 0
        self._pieces = 0
        self._is_put = True
        self._put_s = 0.0
        self._local = store.local_path(path)
        self._descriptor: int | None = None

    def append(self, line: bytes) -> None:
        """Add a line, which ends in a newline.

        Raises:
            OSError: If it cannot be written.
        """
        with self._lock:
            self._lines.append(line)
            self._bytes += len(line)
            self._is_put = False
            if self._local or time.monotonic() - self._put_s > self._every_s:
                self._write()

    def flush(self) -> None:
        """Write what is not written yet.

        Raises:
            OSError: If it cannot be written.
        """
        with self._lock:
            self._write()

    def close(self) -> None:
        """Write what is not written yet, and let go of the file; a line that comes later opens it again."""
        self.flush()
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _write(self) -> None:
        if self._is_put:
            return
        self._put_s = time.monotonic()
        data = b"".join(self._lines)
        if self._local:
            self._append_local(data)
        else:
            self._store.replace(_piece(self._path, self._pieces), data)
        self._is_put = True
        if self._local or self._bytes > _PIECE_BYTES:
            self._pieces += 1
            self._lines.clear()
            self._bytes = 0

    def _append_local(self, data: bytes) -> None:
        if self._descriptor is None and self._local:
            self._local.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._local, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        while data and self._descriptor is not None:
            data = data[os.write(self._descriptor, data) :]


def pieces(path: str) -> Iterator[str]:
    """Yield the names that a file's pieces have, in order, without end: it ends before the first that is not there."""
    return (_piece(path, number) for number in itertools.count())


def _piece(path: str, number: int) -> str:
    stem, dot, suffix = path.rpartition(".")
    return f"{stem}-{number:04d}{dot}{suffix}" if number else path

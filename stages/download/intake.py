"""Takes answers off the event loop: a thread hashes bodies and writes each distinct one once, as they come."""

from __future__ import annotations

import contextlib
import hashlib
import queue
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from stages.download.answers import Answer
from stages.download.record import EXCLUDED, Record
from stages.images import EXTENSIONS
from stages.tars import TarWriter

_ANSWERED = ("url", "media_type", "http_status", "final_url", "content_type", "etag")

# The thread is woken for a batch, not for a picture: it takes the interpreter from the event loop each time.
_BATCH_BYTES = 1 << 20
_BATCH_ANSWERS = 256
_BATCHES_WAITING = 32
_LOOKS_EVERY_S = 1.0


class Intake:
    """Makes records of answers, and a tar of the bodies in the order they came.

    Whoever hands over answers is held up while `_BATCHES_WAITING` batches wait, so that a slow disk fills no memory.
    What was made is there to read when the ``with`` block has ended without an error.

    Attributes:
        records: Record by url. The row of a body has its place in the tar, and an empty name for the tar.
        offsets: Offset of every distinct body by sha256.
        sha256: Of the tar, hex.
    """

    def __init__(self, tar: Path, excluded: frozenset[str] = frozenset(), rendered: str | None = None) -> None:
        """Begin.

        Args:
            tar: Where the tar is written; nothing may stand there.
            excluded: sha256 of bodies that are not kept.
            rendered: What the bodies were rendered by, for their rows.
        """
        self.records: dict[str, Record] = {}
        self.offsets: dict[str, int] = {}
        self.sha256 = ""
        self._tar = tar
        self._excluded = excluded
        self._rendered = rendered
        self._given_up = False
        self._batch: list[Answer] = []
        self._batch_bytes = 0
        self._batches: queue.Queue[list[Answer]] = queue.Queue(_BATCHES_WAITING)
        self._thread = ThreadPoolExecutor(1, "intake")
        self._work = self._thread.submit(self._keep_all)

    def __enter__(self) -> Intake:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._given_up = kind is not None
        try:
            if self._batch:
                self._hand_over(self._batch)
            self._hand_over([])
            self._work.result()
        except OSError:
            if kind is None:
                raise
        finally:
            self._thread.shutdown()

    def take(self, answer: Answer) -> None:
        """Take an answer. The order of the calls is the order in the tar.

        Raises:
            OSError: The tar could not be written.
        """
        self._batch.append(answer)
        self._batch_bytes += len(answer.body)
        if self._batch_bytes >= _BATCH_BYTES or len(self._batch) >= _BATCH_ANSWERS:
            batch, self._batch, self._batch_bytes = self._batch, [], 0
            self._hand_over(batch)

    def _hand_over(self, batch: list[Answer]) -> None:
        while not self._work.done():
            with contextlib.suppress(queue.Full):
                self._batches.put(batch, timeout=_LOOKS_EVERY_S)
                return
        self._work.result()  # it ended before its time: raises what it ended with

    def _keep_all(self) -> None:
        with TarWriter(self._tar, hashed=True) as tar:
            while batch := self._batches.get():
                for answer in () if self._given_up else batch:
                    self.records[answer.url] = self._keep(answer, tar)
        self.sha256 = tar.sha256

    def _keep(self, answer: Answer, tar: TarWriter) -> Record:
        if answer.reason is not None:
            evidence = {"value": answer.value, "cut": answer.cut, "detail": answer.detail, "sha256": None}
            return Record(answer.reason, {"status": answer.http_status, **evidence})
        sha256 = hashlib.sha256(answer.body).hexdigest()
        if sha256 in self._excluded:
            return Record(EXCLUDED, {"status": answer.http_status, "sha256": sha256})
        offset = self.offsets.get(sha256)
        if offset is None:
            offset = self.offsets[sha256] = tar.add(f"{sha256}.{EXTENSIONS[answer.media_type]}", answer.body)
        place = {"tar": "", "offset": offset, "length": len(answer.body), "sha256": sha256, "rendered": self._rendered}
        return Record(None, {name: getattr(answer, name) for name in _ANSWERED} | place)

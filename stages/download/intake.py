"""Makes records of answers as they come, and one tar of their bodies."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType

from stages.download.answers import Answer
from stages.download.record import EXCLUDED, Record
from stages.images import EXTENSIONS
from stages.tars import TarWriter

_ANSWERED = ("url", "media_type", "http_status", "final_url", "content_type", "etag")


class Intake:
    """Keeps each distinct body once, in a tar, in the order they come.

    Attributes:
        records: Record by url. The row of a body has its place in the tar, and an empty name for the tar.
        offsets: Offset of every distinct body by sha256.
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
        self._tar = TarWriter(tar, hashed=True)
        self._excluded = excluded
        self._rendered = rendered

    def __enter__(self) -> Intake:
        self._tar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tar.__exit__(kind, error, trace)

    @property
    def sha256(self) -> str:
        """Of the tar, hex, once the ``with`` block has ended."""
        return self._tar.sha256

    def take(self, answer: Answer) -> None:
        """Take an answer.

        Raises:
            OSError: The tar could not be written.
        """
        self.records[answer.url] = self._refused(answer) if answer.reason is not None else self._kept(answer)

    def _refused(self, answer: Answer) -> Record:
        evidence = {"value": answer.value, "cut": answer.cut, "detail": answer.detail, "sha256": None}
        return Record(answer.reason, {"status": answer.http_status, **evidence})

    def _kept(self, answer: Answer) -> Record:
        body = answer.body
        sha256 = hashlib.sha256(body).hexdigest()
        if sha256 in self._excluded:
            return Record(EXCLUDED, {"status": answer.http_status, "sha256": sha256})
        offset = self.offsets.get(sha256)
        if offset is None:
            offset = self.offsets[sha256] = self._tar.add(f"{sha256}.{EXTENSIONS[answer.media_type]}", body)
        place = {"tar": "", "offset": offset, "length": len(body), "sha256": sha256, "rendered": self._rendered}
        return Record(None, {name: getattr(answer, name) for name in _ANSWERED} | place)

"""The image store: downloaded bytes in one tar per partition, read back by coalesced ranges and checked by digest."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from manifests.store import Store
from stages.step import CorruptFileError
from stages.tars import BLOCK_BYTES

EXTENSIONS = MappingProxyType(
    {"jpeg": "jpg", "png": "png", "webp": "webp", "gif": "gif", "bmp": "bmp", "tiff": "tif", "empty": "bin"}
)
"""Media type to file extension; an answer without a body is kept as an empty file."""

# A gap of this size costs less to read over than another request does.
_GAP_BYTES = 64 << 10
_RANGE_BYTES = 8 << 20
_RANGES_IN_FLIGHT = 8

# Bodies gather up to this size before the scratch file is written: a third off the cost of a write each.
_WRITE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of an image lie.

    Attributes:
        tar: Path of the tar below the workdir.
        offset: Of the body, in bytes.
        length: Of the body, in bytes.
        sha256: Of the body.
    """

    tar: str
    offset: int
    length: int
    sha256: str


class Spool:
    """Distinct bodies in a scratch file, added in one order and read in another; memory does not grow with them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "bodies.spool"
        self._file = self._path.open("wb", buffering=_WRITE_BYTES)
        self._written = self._path.open("rb", buffering=0)
        self._end = 0
        self._places: dict[str, tuple[int, int]] = {}

    def add(self, body: bytes, sha256: str) -> None:
        """Keep a body under its digest, which is believed; one that is there already is not kept again.

        Raises:
            OSError: The scratch file could not be written: the spool is of no further use.
        """
        if sha256 not in self._places:
            self._file.write(body)
            self._places[sha256] = (self._end, len(body))
            self._end += len(body)

    def read(self, sha256: str) -> bytes:
        """Return a body that was added.

        Raises:
            KeyError: It was not.
            OSError: The scratch file is shorter than what was written to it.
        """
        start, length = self._places[sha256]
        self._file.flush()
        self._written.seek(start)
        body = self._written.read(length)
        if len(body) != length:
            words = f"{len(body)} bytes at {start} of {length} that were written"
            raise OSError(f"{self._path}: {words}; is the disk full?")
        return body

    def close(self) -> None:
        """Let go of the scratch file."""
        try:
            self._written.close()
            self._file.close()
        finally:
            self._path.unlink(missing_ok=True)


def read_images(store: Store, places: Sequence[Place]) -> Iterator[tuple[int, bytes]]:
    """Yield (index into ``places``, bytes) in order of tar and offset; neighbours are read in one range.

    Raises:
        CorruptFileError: If a tar is gone or short, or a body is not what its digest says.
    """
    for run, block in _blocks(store, places):
        first = places[run[0]]
        for index in run:
            place = places[index]
            start = place.offset - first.offset
            body = block[start : start + place.length]
            if hashlib.sha256(body).hexdigest() != place.sha256:
                raise CorruptFileError(place.tar, f"{place.length} bytes at {place.offset} are not {place.sha256[:12]}")
            yield index, body


def _blocks(store: Store, places: Sequence[Place]) -> Iterator[tuple[list[int], bytes]]:
    """Read the ranges, in order; on an object store a few are under way at a time, because each is a request."""

    def read(run: list[int]) -> bytes:
        first, last = places[run[0]], places[run[-1]]
        try:
            return store.read_range(first.tar, first.offset, last.offset + last.length - first.offset)
        except FileNotFoundError as error:
            raise CorruptFileError(first.tar, "is not there") from error

    if store.local_path(""):
        yield from ((run, read(run)) for run in _runs(places))
        return
    with ThreadPoolExecutor(_RANGES_IN_FLIGHT) as pool:
        waiting: deque[tuple[list[int], Future[bytes]]] = deque()
        for run in _runs(places):
            waiting.append((run, pool.submit(read, run)))
            if len(waiting) == _RANGES_IN_FLIGHT:
                earliest, block = waiting.popleft()
                yield earliest, block.result()
        for run_left, block in waiting:
            yield run_left, block.result()


def _runs(places: Sequence[Place]) -> Iterable[list[int]]:
    """Group indices of ``places`` into ranges worth one read each."""
    order = sorted(range(len(places)), key=lambda i: (places[i].tar, places[i].offset))
    run: list[int] = []
    for index in order:
        place = places[index]
        if run:
            first, last = places[run[0]], places[run[-1]]
            near = place.offset - (last.offset + last.length) <= _GAP_BYTES + BLOCK_BYTES
            small = place.offset + place.length - first.offset <= _RANGE_BYTES
            if place.tar != first.tar or not near or not small:
                yield run
                run = []
        run.append(index)
    if run:
        yield run

"""Tars as archives: headers are scanned without holding bodies, and a damaged end is an error, not an early end."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from stages.members import Archive, ArchiveError, Piece
from stages.tars import BLOCK_BYTES

# Names and attributes stand in headers that tarfile reads whole: a packed header of gigabytes stops here.
_MAX_HEADER_BYTES = 1 << 20
# RecursionError: headers that announce headers without end.
_DAMAGED = (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, RecursionError)


class TarArchive(Archive):
    """A tar, plain or gzipped.

    Args:
        name: Its own name without a suffix.
        uri: What to call it in an error.
        file: The open file.
        packed: Whether it is gzipped.
    """

    def __init__(self, name: str, uri: str, file: BinaryIO, *, packed: bool) -> None:
        super().__init__(name)
        self._uri = uri
        self._file = file
        self._packed = self.streamed = packed

    def _scan(self) -> Iterator[tuple[str, int | None, tuple[int, int]]]:
        for info, _ in self._entries():
            if not info.isdir():
                plain = info.isreg() and not info.issparse()
                yield info.name, info.size if plain else None, (info.offset_data, info.size)

    def _read(self, paths: list[str]) -> Iterator[Piece]:
        wanted = {self._places[path][0]: path for path in paths}
        if not self._packed:
            for offset, path in sorted(wanted.items()):
                self._file.seek(offset)
                yield self._piece(path, self._file.read(self._places[path][1]))
            return
        for info, unpacked in self._entries():
            path_here = wanted.pop(info.offset_data, None)
            if path_here is not None:
                yield self._piece(path_here, unpacked.read(info.size))
            if not wanted:
                return

    def _piece(self, path: str, body: bytes) -> Piece:
        if len(body) != self._places[path][1]:
            raise ArchiveError(f"{self._uri}: ends in the middle of {path}; fetch it again")
        return Piece(path, body)

    def _entries(self) -> Iterator[tuple[tarfile.TarInfo, BinaryIO]]:
        """Yield every entry with the unpacked file, which the caller may read on from the entry's body."""
        self._file.seek(0)
        unpacked = cast("BinaryIO", gzip.GzipFile(fileobj=self._file)) if self._packed else self._file
        headers = _Headers(unpacked)
        try:
            with tarfile.TarFile(fileobj=cast("BinaryIO", headers)) as tar:
                before = -1
                while (info := tar.next()) is not None:
                    if tar.offset <= before or info.size < 0:
                        raise ArchiveError(f"{self._uri}: a member of {info.size} bytes; fetch it again")
                    before = tar.offset
                    tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
                    if info.isreg():
                        unpacked.seek(info.offset_data)
                    yield info, unpacked
            headers.check_end()
        except _DAMAGED as error:
            raise ArchiveError(f"{self._uri}: is no tar that can be read ({error}); fetch it again") from error


class _Headers:
    """The file as tarfile sees it: only headers are read, each small; remembers the latest."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._latest = b""

    def read(self, size: int) -> bytes:
        if size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self._latest = self._file.read(size)
        return self._latest

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()

    def check_end(self) -> None:
        """Raise where what tarfile took for the end is not the end mark: the file may be cut between two members."""
        if self._latest != bytes(BLOCK_BYTES):
            raise tarfile.ReadError("a header is damaged" if self._latest else "it ends without an end mark")

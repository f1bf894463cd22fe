"""Tars with fixed headers: same members, same bytes; and the place of every member, so that ranges can be read."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BLOCK_BYTES = tarfile.BLOCKSIZE

MAX_MEMBER_BYTES = 8**11 - 1
"""Largest member of a USTAR archive: its size stands in eleven octal digits (POSIX.1-1988)."""

_NAME_BYTES = tarfile.LENGTH_NAME
_END = bytes(2 * BLOCK_BYTES)
_PADDING = tuple(bytes(-size % BLOCK_BYTES) for size in range(BLOCK_BYTES))

# Writes of this size cost the least per byte: members are small and a call per member is not.
_BUFFER_BYTES = 1 << 20

# What stands in every header alike. The checksum is the sum of the header's bytes with its own field read as spaces:
# what name and size add to the sum of the rest is all there is to compute.
_TEMPLATE = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
_SIZE, _TIME, _CHECKSUM, _TYPE = 124, 136, 148, 156
_OWNER, _CLOCK, _REST = _TEMPLATE[_NAME_BYTES:_SIZE], _TEMPLATE[_TIME:_CHECKSUM], _TEMPLATE[_TYPE:]
_FIXED_SUM = sum(_OWNER) + sum(_CLOCK) + sum(_REST) + 8 * ord(" ")


class TarWriter:
    """Writes a USTAR archive member by member.

    Headers are those of `tarfile.TarInfo`, byte for byte: mode 0644, owner 0, time 0, so nothing of machine or clock
    enters. They are put together from a template, since making a `TarInfo` costs more than writing a picture.
    """

    def __init__(self, path: Path, *, hashed: bool = False) -> None:
        """Begin.

        Args:
            path: The file; nothing may stand there.
            hashed: Whether the sha256 of the archive is made as it is written, which saves reading it again.
        """
        self._raw = _HashedFile(path, "xb") if hashed else io.FileIO(path, "xb")
        self._file = io.BufferedWriter(self._raw, _BUFFER_BYTES)
        self._offset = 0
        self.members = 0

    @property
    def sha256(self) -> str:
        """Of the archive, hex, once it is closed. Raises ValueError if it was not asked for."""
        if not isinstance(self._raw, _HashedFile):
            raise ValueError("the archive was not hashed")
        return self._raw.digest.hexdigest()

    def __enter__(self) -> TarWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._file.write(_END)
        finally:
            self._file.close()

    def add(self, name: str, body: bytes | bytearray | memoryview) -> int:
        """Append a member; the body is copied or written before this returns.

        Args:
            name: At most 100 ASCII characters.
            body: Its bytes.

        Returns:
            The offset of the body in bytes.

        Raises:
            ValueError: The name does not fit or is not ASCII, the body is over `MAX_MEMBER_BYTES`, or it is a view of
                bytes that do not lie side by side. Nothing of the member is written then.
            OSError: The file could not be written: the archive is of no use.
        """
        if isinstance(body, memoryview):
            if not body.c_contiguous:
                raise ValueError(f"{name!r}: a view of bytes that do not lie side by side; hand over its tobytes()")
            size_bytes = body.nbytes
        else:
            size_bytes = len(body)
        write = self._file.write
        write(_header(name, size_bytes))
        write(body)
        padding = _PADDING[size_bytes % BLOCK_BYTES]
        write(padding)
        offset = self._offset + BLOCK_BYTES
        self._offset = offset + size_bytes + len(padding)
        self.members += 1
        return offset


class _HashedFile(io.FileIO):
    """A file that knows the sha256 of what was written to it."""

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(path, mode)
        self.digest = hashlib.sha256()

    def write(self, data: ReadableBuffer, /) -> int:
        written = super().write(data)
        self.digest.update(memoryview(data)[:written])
        return written


def _header(name: str, size_bytes: int) -> bytes:
    encoded = name.encode("ascii")
    if len(encoded) > _NAME_BYTES:
        raise ValueError(f"{name!r}: {len(encoded)} characters, and a member's name has at most {_NAME_BYTES}")
    if size_bytes > MAX_MEMBER_BYTES:
        raise ValueError(
            f"{name!r}: {size_bytes} bytes, and a member of a USTAR archive has at most {MAX_MEMBER_BYTES} (8 GiB); "
            "lower download.max_bytes"
        )
    size = b"%011o\0" % size_bytes
    checksum = b"%06o\0 " % (_FIXED_SUM + sum(encoded) + sum(size))
    return b"".join((encoded.ljust(_NAME_BYTES, b"\0"), _OWNER, size, _CLOCK, checksum, _REST))

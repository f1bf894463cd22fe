"""Tars with fixed headers: same members, same bytes; and the place of every member, so that ranges can be read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

BLOCK_BYTES = tarfile.BLOCKSIZE

MAX_MEMBER_BYTES = 8**11 - 1
"""Largest member of a USTAR archive: its size stands in eleven octal digits (POSIX.1-1988)."""

_NAME_BYTES = tarfile.LENGTH_NAME
_END = bytes(2 * BLOCK_BYTES)
_PADDING = tuple(bytes(-size % BLOCK_BYTES) for size in range(BLOCK_BYTES))

# Writes of this size cost the least per byte: members are small and a call per member is not.
_WRITE_BYTES = 1 << 20
_BYTES_BEHIND = 32 << 20
_SYNC_BYTES = 64 << 20

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
            hashed: Whether the sha256 of the archive is made, which saves reading it again. A thread hashes and
                writes then, a few blocks behind.
        """
        self._blocks = _Hashed(path) if hashed else _Plain(path)
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._offset = 0
        self.members = 0

    def __enter__(self) -> TarWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            with contextlib.suppress(OSError):  # what broke it off is what counts
                self._blocks.close()
            return
        try:
            self._flush()
            self._blocks.write(_END)
        finally:
            self._blocks.close()

    @property
    def sha256(self) -> str:
        """Of the archive, hex, once it is closed. Raises ValueError if it was not asked for."""
        if not isinstance(self._blocks, _Hashed):
            raise ValueError("the archive was not hashed")
        return self._blocks.digest.hexdigest()

    def add(self, name: str, body: bytes | bytearray | memoryview) -> int:
        """Append a member; a body that may change is copied before this returns.

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
        header, padding = _header(name, size_bytes), _PADDING[size_bytes % BLOCK_BYTES]
        self._parts += (header, bytes(body), padding)
        self._parts_bytes += BLOCK_BYTES + size_bytes + len(padding)
        offset = self._offset + BLOCK_BYTES
        self._offset = offset + size_bytes + len(padding)
        self.members += 1
        if self._parts_bytes >= _WRITE_BYTES:
            self._flush()
        return offset

    def _flush(self) -> None:
        parts, self._parts, self._parts_bytes = self._parts, [], 0
        self._blocks.write(b"".join(parts))


class _Plain:
    """A new file that is written block by block."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")

    def write(self, block: bytes) -> None:
        """Append. Raises OSError if that cannot be done."""
        self._file.write(block)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Hashed(_Plain):
    """One that is hashed and written by a thread; about `_BYTES_BEHIND` wait for it at most.

    Both let other threads run meanwhile. Handing over a picture at a time does not pay: every wake costs the event
    loop of a download more than the work that is taken off it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.digest = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, "tar")
        self._behind: deque[tuple[int, Future[None]]] = deque()
        self._bytes_behind = 0
        self._failed: OSError | None = None
        self._unsynced_bytes = 0

    def write(self, block: bytes) -> None:
        if self._failed is not None:  # whoever caught it before must not take the archive for whole
            raise self._failed
        self._behind.append((len(block), self._thread.submit(self._write, block)))
        self._bytes_behind += len(block)
        self._wait(_BYTES_BEHIND)

    def close(self) -> None:
        try:
            self._wait(0)
        finally:
            self._thread.shutdown(cancel_futures=True)
            super().close()

    def _wait(self, most_bytes: int) -> None:
        while self._bytes_behind > most_bytes:
            size_bytes, written = self._behind.popleft()
            self._bytes_behind -= size_bytes
            try:
                written.result()
            except OSError as error:
                self._failed = error
                raise

    def _write(self, block: bytes) -> None:
        self.digest.update(block)
        super().write(block)
        self._unsynced_bytes += len(block)
        if self._unsynced_bytes >= _SYNC_BYTES:
            self._file.flush()
            os.fdatasync(self._file.fileno())
            self._unsynced_bytes = 0


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

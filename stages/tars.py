"""Tars with fixed headers: same members, same bytes; and the place of every member, so that ranges can be read."""

from __future__ import annotations

import tarfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

BLOCK_BYTES = tarfile.BLOCKSIZE
_END = bytes(2 * BLOCK_BYTES)


class TarWriter:
    """Writes a USTAR archive member by member.

    Headers come from `tarfile.TarInfo`: mode 0644, owner 0, time 0, so nothing of machine or clock enters.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("xb")
        self._offset = 0
        self.members = 0

    def __enter__(self) -> TarWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._file.write(_END)
        self._file.close()

    def add(self, name: str, body: bytes) -> int:
        """Append a member.

        Args:
            name: At most 100 ASCII characters.
            body: Its bytes.

        Returns:
            The offset of the body in bytes.
        """
        header = tarfile.TarInfo(name)
        header.size = len(body)
        padding = -len(body) % BLOCK_BYTES
        self._file.write(header.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict"))
        self._file.write(body)
        self._file.write(bytes(padding))
        offset = self._offset + BLOCK_BYTES
        self._offset = offset + len(body) + padding
        self.members += 1
        return offset

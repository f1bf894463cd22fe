"""Metadata files as streams of bytes, packed or not, and their lines.

What a file is packed with is seen by its first bytes, never by its name: servers and users rename and unpack.
"""

from __future__ import annotations

import bz2
import io
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from stages.filter.rows import MetadataError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK_BYTES = 4 << 20
"""Bytes read at a time."""
MAX_LINE_BYTES = 1 << 20
"""A longer line, its end not counted, is a bad row."""

_PACKED_BYTES = 64 << 10
_HEAD_BYTES = 512
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b\x08"
_BZIP2 = tuple(b"BZh%d%s" % (level, body) for level in range(1, 10) for body in (b"1AY&SY", b"\x17rE8P\x90"))
_FOREIGN = (
    (b"PAR1\x15", "a Parquet file; read it as a source of format parquet"),
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd; unpack it first"),
    (b"\xfd7zXZ\x00", "packed with xz; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"\xff\xfe", "UTF-16; turn it into UTF-8 first"),
    (b"\xfe\xff", "UTF-16; turn it into UTF-8 first"),
)
_PAGES = (b"<!doctype html", b"<html")


def name_of(file: object) -> str:
    """Return what to call an open file in an error: its path where it knows one."""
    return str(getattr(file, "path", None) or getattr(file, "name", None) or "metadata file")


def unpacked(file: BinaryIO, name: str) -> BinaryIO:
    """Read a file that may be packed with gzip or bzip2 as what is in it, as a stream of bounded memory.

    Members that follow each other are one stream; zeros after the last (padding of tapes and block stores) are nothing.
    A byte order mark at the start is left out.

    Args:
        file: An open file of bytes; it need not be seekable, and stays open.
        name: What to call it in an error (`name_of`).

    Returns:
        A reader: ``read(n)`` gives at most n bytes, and none only at the end. Reading raises MetadataError where the
        packed bytes are cut off or damaged.

    Raises:
        MetadataError: It is no text at all (another container, UTF-16, an HTML page), or damaged from the start.
    """
    head = ahead(file, _HEAD_BYTES)
    start = _unpacker(head)
    if start:
        members = _Members(again(head, file), name, start)
        file = cast("BinaryIO", _Stream(members))
        head = ahead(file, _HEAD_BYTES)
        if _unpacker(head):
            raise MetadataError(f"{name}: packed twice; unpack it once")
    found = next((what for magic, what in _FOREIGN if head.startswith(magic)), "")
    if head.removeprefix(_BYTE_ORDER_MARK).lstrip().lower().startswith(_PAGES):
        found = "an HTML page, perhaps what a server said instead of the file; fetch it again"
    if found:
        raise MetadataError(f"{name}: is {found}")
    return again(head.removeprefix(_BYTE_ORDER_MARK), file)


def ahead(stream: BinaryIO, size: int) -> bytes:
    """Read exactly `size` bytes, fewer only where the stream ends."""
    parts, left = [], size
    while left > 0 and (data := stream.read(left)):
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


def again(head: bytes, stream: BinaryIO) -> BinaryIO:
    """Return a stream of `head`, then what `stream` has left."""
    return cast("BinaryIO", _Stream(_Resumed(head, stream)))


def blocks(stream: BinaryIO, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    r"""Cut a stream into blocks of whole lines.

    Args:
        stream: What to read (`unpacked`).
        block_bytes: Bytes read at a time; what the lines are does not depend on it.

    Yields:
        Whole lines, each with its "\n", the last one too; a line of more than `MAX_LINE_BYTES` may be cut, but stays
        over the bound.
    """
    rest = b""
    while data := ahead(stream, block_bytes):
        data = rest + data
        end = data.rfind(b"\n") + 1
        rest = data[end : end + MAX_LINE_BYTES + 1]
        if end:
            yield data[:end]
    if rest:
        yield rest + b"\n"


def text_lines(stream: BinaryIO, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes | None]:
    r"""Yield the lines of a stream without their ends ("\n" or "\r\n"); None for one of more than `MAX_LINE_BYTES`.

    Args:
        stream: What to read (`unpacked`).
        block_bytes: Bytes read at a time.
    """
    for block in blocks(stream, block_bytes):
        for line in block[:-1].split(b"\n"):
            yield line.removesuffix(b"\r") if len(line) <= MAX_LINE_BYTES else None


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Stream(io.RawIOBase):
    """What json, ijson and `io` want of a file, over anything with ``read(n)``."""

    def __init__(self, source: _Source) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return self.readall()
        return self._source.read(size) if size else b""

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


class _Resumed:
    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._at = 0
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        if self._at >= len(self._head):
            self._head = b""
            return self._stream.read(size)
        given = self._head[self._at : self._at + size]
        self._at += len(given)
        return given


class _Unpacker(Protocol):
    packer: str
    eof: bool

    def unpack(self, packed: bytes, size: int) -> bytes: ...
    def wants(self) -> bool: ...
    def unused(self) -> bytes: ...


class _Gzip:
    packer = "gzip"

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self.eof = False

    def unpack(self, packed: bytes, size: int) -> bytes:
        data = self._member.decompress(self._member.unconsumed_tail + packed, size)
        self.eof = self._member.eof
        return data

    def wants(self) -> bool:
        return not self._member.unconsumed_tail

    def unused(self) -> bytes:
        return self._member.unused_data


class _Bzip2:
    packer = "bzip2"

    def __init__(self) -> None:
        self._member = bz2.BZ2Decompressor()
        self.eof = False

    def unpack(self, packed: bytes, size: int) -> bytes:
        data = self._member.decompress(packed, size)
        self.eof = self._member.eof
        return data

    def wants(self) -> bool:
        return self._member.needs_input

    def unused(self) -> bytes:
        return self._member.unused_data


def _unpacker(head: bytes) -> Callable[[], _Unpacker] | None:
    if head.startswith(_GZIP):
        return _Gzip
    return _Bzip2 if head.startswith(_BZIP2) else None


class _Members:
    """The contents of gzip members or bzip2 streams, one after the other."""

    def __init__(self, packed: BinaryIO, name: str, start: Callable[[], _Unpacker]) -> None:
        self._packed = packed
        self._name = name
        self._start = start
        self._rest = b""
        self._member: _Unpacker | None = start()

    def read(self, size: int, /) -> bytes:
        while member := self._member:
            data = self._unpack(member, size)
            if member.eof:
                self._member = self._next(member.unused())
            if data:
                return data
        return b""

    def _unpack(self, member: _Unpacker, size: int) -> bytes:
        packed = self._more() if member.wants() else b""
        try:
            data = member.unpack(packed, size)
        except (zlib.error, OSError, EOFError, ValueError) as error:
            raise MetadataError(f"{self._name}: damaged {member.packer} ({error}); fetch it again") from error
        if not (packed or data or member.eof) and member.wants():
            raise MetadataError(f"{self._name}: {member.packer} cut off before its end; fetch it again")
        return data

    def _next(self, rest: bytes) -> _Unpacker | None:
        """Begin the member after the zeros; `rest` is what was read of it already."""
        while not (rest := rest.lstrip(b"\0")):
            rest = self._packed.read(_PACKED_BYTES)
            if not rest:
                return None
        self._rest = rest
        return self._start()

    def _more(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest or self._packed.read(_PACKED_BYTES)

"""Which columns a file of lines has: its first line says so, or the number of its fields does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import BinaryIO

import numpy as np

from manifests.sources import SourceSpec
from stages.filter.line_blocks import Block
from stages.filter.rows import MetadataError
from stages.filter.streams import MAX_LINE_BYTES, again, ahead
from stages.filter.values import detail

HEAD_BYTES = 2 << 20
"""Where a file of rows has none that fits by then, it is of another source."""
MAX_HEADER_BYTES = 16 << 10
"""A longer first line names no columns."""


def header_line(stream: BinaryIO, split: Callable[[bytes], list[bytes]], name: str) -> tuple[tuple[str, ...], BinaryIO]:
    """Read the names of the columns off the first line.

    Args:
        stream: The file (`unpacked`), at its start.
        split: Cuts a line into fields; ValueError for one that cannot be cut.
        name: What to call the file in an error.

    Returns:
        The names, and the stream at the second line.

    Raises:
        MetadataError: There is no such line.
    """
    head = ahead(stream, MAX_HEADER_BYTES)
    line, end, rest = head.partition(b"\n")
    if not head:
        raise MetadataError(f"{name}: is empty; its first line should name the columns; fetch it again")
    if not end and len(head) == MAX_HEADER_BYTES:
        raise MetadataError(f"{name}: its first line should name the columns, but is {_shown(head)}")
    try:
        names = tuple(field.decode() for field in split(line.removesuffix(b"\r")))
    except ValueError as error:
        raise MetadataError(f"{name}: its first line should name the columns, but is {_shown(line)}") from error
    return names, again(rest, stream)


def fitting(
    stream: BinaryIO, spec: SourceSpec, cut: Callable[[bytes, int], Iterable[Block]], name: str
) -> tuple[tuple[str, ...], BinaryIO]:
    """Choose the header of a file that has none, by the number of fields of the first record that any of them fits.

    Args:
        stream: The file (`unpacked`), at its start.
        spec: The source; `headers` are the choice.
        cut: Cuts whole lines into records that should have so many fields.
        name: What to call the file in an error.

    Returns:
        The names of the columns, none for an empty file; and the stream at its start.

    Raises:
        MetadataError: No record of the first `HEAD_BYTES` fits any header.
    """
    head = ahead(stream, HEAD_BYTES)
    whole = head if len(head) < HEAD_BYTES else head[: head.rfind(b"\n") + 1] or head
    if whole and not whole.endswith(b"\n"):
        whole += b"\n"
    fits = [(first, names) for names in spec.headers if (first := _first(cut(whole, len(names)), len(names))) >= 0]
    if head and not fits:
        raise MetadataError(_misfit(next(iter(cut(whole, len(spec.headers[0])))), spec, name))
    return min(fits)[1] if fits else (), again(head, stream)


def _first(blocks: Iterable[Block], size: int) -> int:
    """Return where the first record of a size begins, whose bytes are text; -1 for none."""
    start = 0
    for block in blocks:
        for index in np.flatnonzero((block.fields == size) & (block.lengths <= MAX_LINE_BYTES)):
            if _is_text(block.record(int(index))):
                return start + int(block.offsets[index])
        start += len(block.body)
    return -1


def _misfit(block: Block, spec: SourceSpec, name: str) -> str:
    expected = " or ".join(f"{len(names)} ({', '.join(names)})" for names in spec.headers)
    counts = islice(dict.fromkeys(block.fields.tolist()), 5)
    return (
        f"{name}: none of its first lines is of source {spec.key}: {', '.join(map(str, counts))} fields found, "
        f"expected {expected}; the first line is {_shown(block.record(0))}. Check that the file belongs to this source."
    )


def _shown(line: bytes) -> str:
    return repr(detail(line[:60].decode(errors="replace")))


def _is_text(record: bytes) -> bool:
    try:
        record.decode()
    except UnicodeDecodeError:
        return False
    return True


def missing(names: Sequence[str], wanted: Sequence[Sequence[str]]) -> list[str]:
    """Return the alternatives of which a header has none, whatever the case, each as words."""
    known = {name.lower() for name in names}
    return [" or ".join(options) for options in wanted if not known & {option.lower() for option in options}]

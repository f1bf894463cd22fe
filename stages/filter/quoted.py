r"""Records with quoted fields (RFC 4180), in blocks: CSV, and TSV as csv writers make it.

A field that begins with a quote ends with one; inside it marks and line breaks are text, and a quote is written twice.
In such a file the quotes before the end of a record are even in number, so ends are found without a look at the fields.
A quote that stands alone would turn all that follows inside out. Hence a record of several lines with a quote out of
place, or whose fields are not as many as expected, or that grows over `MAX_LINE_BYTES`, is taken for no record: its
first line is a row of its own (a bad one, unless that line alone is good), and reading goes on with the next line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from io import BytesIO
from itertools import islice
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from stages.filter.headers import Cutting
from stages.filter.line_blocks import Block, Places, Reading, scan_blocks
from stages.filter.rows import MetadataError, Scan
from stages.filter.streams import MAX_LINE_BYTES, ahead

MAX_TORN = 1_000
"""Records of several lines that are none: so many in a file, and one more in a thousand records. Each costs a second
look at a block."""

_QUOTE, _NEWLINE, _RETURN = 34, 10, 13


def scan_quoted(stream: BinaryIO, mark: int, reading: Reading, name: str, block_bytes: int) -> Iterator[Scan]:
    """Scan the records of a stream (`unpacked`, after its header).

    Raises:
        MetadataError: Too many quotes are out of place (`MAX_TORN`).
    """
    return scan_blocks(quoted_blocks(stream, mark, len(reading.columns), name, block_bytes), reading)


def quoted_blocks(stream: BinaryIO, mark: int, fields: int, name: str, block_bytes: int) -> Iterator[Block]:
    """Cut a stream into blocks of records.

    Args:
        stream: What to read (`unpacked`).
        mark: What stands between fields, a character code.
        fields: Fields of a record.
        name: What to call the file in an error.
        block_bytes: Bytes read at a time; what the records are does not depend on it.

    Yields:
        Blocks of one record or more.

    Raises:
        MetadataError: Too many quotes are out of place (`MAX_TORN`).
    """
    rest, torn, seen, ended = b"", 0, 0, False
    while not ended:
        data = ahead(stream, block_bytes)
        ended = not data
        rest += data
        while rest:
            block, is_torn = _cut(rest, mark, fields, ended)
            torn += is_torn
            if torn > MAX_TORN + seen // 1_000:
                raise MetadataError(
                    f"{name}: {torn} of {seen} records have a quote that is never closed, or out of place; "
                    "write the file anew with its quotes doubled, or as Parquet"
                )
            if block is None:
                break
            yield block
            seen += len(block.fields)
            rest = rest[len(block.body) :]
        if b"\n" not in rest:
            rest = rest[: MAX_LINE_BYTES + 1]


def cut_whole(body: bytes, fields: int, mark: int) -> Iterator[Block]:
    """Cut bytes into blocks of records, as `quoted_blocks` does, up to the 20th record that is none."""
    return islice(quoted_blocks(BytesIO(body), mark, fields, "", len(body)), 20)


def cutting(mark: int) -> Cutting:
    """Return how a file with such marks between its fields is cut."""
    return Cutting(partial(cut_whole, mark=mark), splitter(mark))


def splitter(mark: int) -> Callable[[bytes], list[bytes]]:
    """Return what cuts a record into its fields, unquoted; ValueError for one whose quotes are not in their places."""
    return partial(_split, mark=mark)


@cache
def _pattern(mark: int) -> re.Pattern[bytes]:
    char = re.escape(bytes([mark]))
    return re.compile(rb'(?:"([^"]*+(?:""[^"]*+)*+)"|((?!")[^%b\n]*+))(%b|\Z)' % (char, char))


def _split(record: bytes, mark: int) -> list[bytes]:
    fields, at, pattern = [], 0, _pattern(mark)
    while True:
        found = pattern.match(record, at)
        if not found:
            raise ValueError("a quote that is not closed where its field ends")
        quoted, plain, between = found.groups()
        fields.append(plain if quoted is None else quoted.replace(b'""', b'"'))
        at = found.end()
        if not between:
            return fields


def _cut(rest: bytes, mark: int, fields: int, ended: bool) -> tuple[Block | None, bool]:
    """Cut off the records that are whole, and say whether the last of them is the first line of what is none."""
    body = rest if not ended or rest.endswith(b"\n") else rest + b"\n"
    data = np.frombuffer(body, np.uint8)
    quotes, newlines = np.flatnonzero(data == _QUOTE), np.flatnonzero(data == _NEWLINE)
    marks = _outside(np.flatnonzero(data == mark), quotes)
    offsets = np.concatenate(([0], _outside(newlines, quotes) + 1))
    counts = np.diff(np.searchsorted(marks, offsets)) + 1
    several = np.diff(np.searchsorted(newlines, offsets)) > 1
    astray = np.diff(np.searchsorted(_astray(data, quotes, mark), offsets)) > 0
    torn = np.flatnonzero(several & (astray | (counts != fields) | (np.diff(offsets) - 1 > MAX_LINE_BYTES)))
    left = len(body) - int(offsets[-1])
    endless = left > MAX_LINE_BYTES or (ended and left > 0)
    cut = int(torn[0]) if len(torn) else len(counts)
    after = newlines[np.searchsorted(newlines, offsets[cut]) :]
    is_torn = bool((len(torn) or endless) and len(after))
    offsets, counts = offsets[: cut + 1], counts[:cut]
    if is_torn:
        offsets = np.append(offsets, after[0] + 1)
        counts = np.append(counts, _count(body[offsets[-2] : after[0]], mark))
    if not len(counts):
        return None, False
    return Block(body[: offsets[-1]], offsets, marks, counts), is_torn


def _outside(places: Places, quotes: Places) -> Places:
    found: Places = places[np.searchsorted(quotes, places) % 2 == 0]
    return found


def _astray(data: npt.NDArray[np.uint8], quotes: Places, mark: int) -> Places:
    """Return the quotes that open a field in its midst, or close one before its end; the twin of one is no such."""
    opening, closing = quotes[::2], quotes[1::2]
    before, after = data[np.maximum(opening - 1, 0)], data[np.minimum(closing + 1, len(data) - 1)]
    begins = (opening == 0) | (before == mark) | (before == _NEWLINE) | (before == _QUOTE)
    ends = (after == mark) | (after == _NEWLINE) | (after == _RETURN) | (after == _QUOTE)
    return np.sort(np.concatenate((opening[~begins], closing[~ends])))


def _count(line: bytes, mark: int) -> int:
    try:
        return len(_split(line.removesuffix(b"\r"), mark))
    except ValueError:
        return 0

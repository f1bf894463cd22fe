r"""Scan of TSV metadata: streaming, bounded memory, packed with gzip or bzip2 or not.

TSV is not CSV: a quote is text, nothing is escaped, a tab ends a field and "\n" alone ends a line ("\r" before it
belongs to the line end; anywhere else it is text). A byte order mark at the start of the file is not text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from manifests.sources import SourceSpec
from stages.filter.headers import Cutting, columns_of
from stages.filter.line_blocks import Block, Reading, cut_lines, scan_blocks
from stages.filter.matcher import Matcher
from stages.filter.rows import Scan, resolve
from stages.filter.streams import BLOCK_BYTES, blocks, name_of, unpacked

TAB = 9


def scan_tsv(file: BinaryIO, spec: SourceSpec, matcher: Matcher, *, block_bytes: int = BLOCK_BYTES) -> Iterator[Scan]:
    """Scan a TSV file for keywords.

    A line that is too long, is not UTF-8 or has the wrong number of fields is a bad row, whatever it says.

    Args:
        file: An open file of bytes, packed or not.
        spec: The source it belongs to. One of `headers` names the fields: the one that most of its first lines fit;
            where there are none, the first line does.
        matcher: The keywords.
        block_bytes: Bytes read at a time; what is found does not depend on it.

    Yields:
        Scans of a block or less, in file order. A row's position is its line, from 0, the header not counted.

    Raises:
        MetadataError: The file is damaged or empty, less than half of the lines of the first 2 MiB are of this source,
            the header line is missing, no column holds the url or a text, or the url column holds no urls.
    """
    name = name_of(file)
    stream = unpacked(file, name)
    columns, stream = tsv_columns(stream, spec, name)
    reading = Reading(columns, resolve(spec, columns, name), matcher, split_tsv)
    yield from scan_lines(stream, reading, block_bytes)


def scan_lines(stream: BinaryIO, reading: Reading, block_bytes: int) -> Iterator[Scan]:
    """Scan the lines of a stream (`unpacked`, after its header)."""
    return scan_blocks((cut_lines(body, TAB) for body in blocks(stream, block_bytes)), reading)


def tsv_columns(stream: BinaryIO, spec: SourceSpec, name: str) -> tuple[tuple[str, ...], BinaryIO]:
    """Return the columns of a TSV file, and the stream at its first row.

    Raises:
        MetadataError: It is empty, or not of the source (`columns_of`).
    """
    return columns_of(stream, spec, Cutting(_cut, split_tsv), name)


def split_tsv(line: bytes) -> list[bytes]:
    """Cut a line into its fields."""
    return line.split(b"\t")


def _cut(body: bytes, fields: int) -> list[Block]:
    del fields  # a line is a record, whatever it holds
    return [cut_lines(body, TAB)]

r"""Scan of CSV metadata as RFC 4180 has it: quoted fields may hold commas, quotes and line breaks.

A record ends with "\n" or "\r\n". Read in blocks, as TSV is (`stages.filter.quoted` says how).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from manifests.sources import SourceSpec
from stages.filter.headers import columns_of
from stages.filter.line_blocks import Reading
from stages.filter.matcher import Matcher
from stages.filter.quoted import cutting, scan_quoted
from stages.filter.rows import Scan, resolve
from stages.filter.streams import BLOCK_BYTES, name_of, unpacked

_COMMA = 44


def scan_csv(file: BinaryIO, spec: SourceSpec, matcher: Matcher, *, block_bytes: int = BLOCK_BYTES) -> Iterator[Scan]:
    """Scan a CSV file for keywords.

    A record that is too long, is not UTF-8 or has the wrong number of fields is a bad row, whatever it says; one whose
    quotes are not in their places too, unless it holds no keyword.

    Args:
        file: An open file of bytes, packed or not.
        spec: The source it belongs to. One of `headers` names the fields: the one that most of its first records fit;
            where there are none, the first line does.
        matcher: The keywords.
        block_bytes: Bytes read at a time; what is found does not depend on it.

    Yields:
        Scans of a block or less, in file order. A row's position is its record, from 0, the header not counted.

    Raises:
        MetadataError: The file is damaged or empty, less than half of the records of the first 2 MiB are of this
            source, the header line is missing, no column holds the url or a text, the url column holds no urls, or
            quotes are never closed again and again.
    """
    name = name_of(file)
    how = cutting(_COMMA)
    columns, stream = columns_of(unpacked(file, name), spec, how, name)
    reading = Reading(columns, resolve(spec, columns, name), matcher, how.split)
    yield from scan_quoted(stream, _COMMA, reading, name, block_bytes)

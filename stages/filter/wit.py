"""Scan of WIT, the Wikipedia-based image texts: gzipped TSV with a header line.

It is TSV as a csv writer makes it, so unlike the other TSV metadata its fields are quoted where they hold a line break,
a tab or a quote; descriptions of pages often do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from manifests.sources import SourceSpec
from stages.filter.headers import header_line, missing, with_urls
from stages.filter.line_blocks import Reading
from stages.filter.matcher import Matcher
from stages.filter.quoted import cutting, scan_quoted
from stages.filter.rows import MetadataError, Scan, resolve
from stages.filter.streams import BLOCK_BYTES, name_of, unpacked
from stages.filter.tsv import TAB


def scan_wit(file: BinaryIO, spec: SourceSpec, matcher: Matcher, *, block_bytes: int = BLOCK_BYTES) -> Iterator[Scan]:
    """Scan a file of WIT for keywords, in all languages; `HITS.language` says which.

    Args:
        file: An open file of bytes, packed or not.
        spec: The source.
        matcher: The keywords.
        block_bytes: Bytes read at a time; what is found does not depend on it.

    Yields:
        Scans of a block or less, in file order. A row's position is its record, from 0, the header not counted.

    Raises:
        MetadataError: The file is damaged or empty, its header lacks a column that the source names, or its url column
            holds no urls.
    """
    name = name_of(file)
    how = cutting(TAB)
    columns, stream = header_line(unpacked(file, name), how.split, name)
    wanted = [names for names in spec.columns.model_dump().values() if names] + [(text,) for text in spec.text]
    if lacking := missing(columns, wanted):
        raise MetadataError(
            f"{name}: not a file of WIT, its header lacks {', '.join(lacking)}; its columns are {', '.join(columns)}. "
            "Fetch the tsv.gz files of the source, or name its columns in the recipe."
        )
    stream = with_urls(stream, spec, columns, how, name)
    reading = Reading(columns, resolve(spec, columns, name), matcher, how.split)
    yield from scan_quoted(stream, TAB, reading, name, block_bytes)

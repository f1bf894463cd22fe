"""Scan of metadata that is read a record at a time: JSON, CSV, and whatever else has no columns to look at at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from manifests.sources import SourceSpec
from stages.filter.matcher import Matcher
from stages.filter.rows import HITS, Layout, Scan, find, flat_texts, make_hit, resolve
from stages.filter.values import detail

BLOCK_ROWS = 4_096
"""Records whose texts are looked at together."""
MAX_RECORD_BYTES = 1 << 20
"""Readers refuse longer records as bad rows."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file.

    Attributes:
        row: Position in the file, from 0.
        values: Its columns. Text is a str, in which bytes that are no UTF-8 are lone surrogates, as the error handler
            ``surrogateescape`` leaves them; a text column may be a list of these.
        problem: Why it cannot be read; empty for one that can. Then `values` does not count.
    """

    row: int
    values: Mapping[str, Any]
    problem: str = ""


def scan_records(
    records: Iterable[Record], columns: Sequence[str], spec: SourceSpec, matcher: Matcher, name: str
) -> Iterator[Scan]:
    """Scan records for keywords.

    A record whose text or url holds what is no UTF-8 is a bad row, whatever it says.

    Args:
        records: The rows, in file order; read as a stream, `BLOCK_ROWS` in memory at a time.
        columns: Names of the columns that records of this file may have.
        spec: The source they belong to.
        matcher: The keywords.
        name: What to call the file in an error.

    Yields:
        One scan a block, in file order.

    Raises:
        MetadataError: The columns lack the url, or every text.
    """
    layout = resolve(spec, columns, name)
    coming = iter(records)
    while block := list(islice(coming, BLOCK_ROWS)):
        yield _scan_block(block, columns, layout, matcher)


def _scan_block(block: Sequence[Record], columns: Sequence[str], layout: Layout, matcher: Matcher) -> Scan:
    bad: list[tuple[int, str]] = []
    read: list[tuple[Record, list[bytes]]] = []
    for record in block:
        try:
            if record.problem:
                raise ValueError(record.problem)
            read.append((record, _texts(record, layout)))
        except ValueError as error:
            bad.append((record.row, detail(str(error))))
    # Texts are looked at alone: a keyword never runs across the mark that joins them.
    possible = matcher.possible(pa.array([b"\n".join(texts) for _, texts in read], pa.string()))
    hits: list[dict[str, Any]] = []
    for (record, texts), may in zip(read, possible.to_pylist(), strict=True):
        if may and matcher.accepts((found := find(texts, layout, matcher))[1]):
            rest = {column: record.values.get(column) for column in columns if column not in layout.text}
            try:
                hits.append(make_hit(record.row, texts, found, rest, layout))
            except ValueError as error:
                bad.append((record.row, detail(str(error))))
    return Scan(len(block), pa.Table.from_pylist(hits, HITS), tuple(sorted(bad)))


def _texts(record: Record, layout: Layout) -> list[bytes]:
    """Return a record's texts as UTF-8. Raises ValueError for what is no text, or no UTF-8."""
    for column in (*layout.text, layout.fields["url"]):
        value = record.values.get(column)
        for item in value if isinstance(value, list) and column in layout.text else [value]:
            if item is not None and not isinstance(item, str):
                raise ValueError(f"{column} holds {type(item).__name__}, not text")
            if item and not _is_unicode(item):
                raise ValueError(f"{column} is not UTF-8")
    values = (record.values.get(column) for column in layout.text)
    return flat_texts(
        [item.encode() if item else b"" for item in value] if isinstance(value, list) else (value or "").encode()
        for value in values
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

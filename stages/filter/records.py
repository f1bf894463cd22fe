"""Scan of metadata that is read a record at a time: JSON, CSV, and whatever else has no columns to look at at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from manifests.sources import SourceSpec
from stages.filter.matcher import Matcher
from stages.filter.rows import HITS, Layout, Scan, find, flat_texts, make_hit, record_layout
from stages.filter.values import detail

BLOCK_ROWS = 4_096
"""Records whose texts are looked at together."""
BLOCK_CHARS = 16 << 20
"""Characters of text that end a block before it has that many records."""
MAX_RECORD_BYTES = 1 << 20
"""Readers refuse longer records as bad rows."""
MAX_LEVELS = 64
"""A record that matches and has a value of lists and objects nested deeper is a bad row."""

_LAYOUTS = 32  # remembered; where every record has columns of its own, none is of use again
_NESTED = (dict, list)


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file.

    Attributes:
        row: Position in the file, from 0.
        values: Its columns; those that the source does not name go into `extra`. Text is a str, in which bytes that
            are no UTF-8 are lone surrogates, as the error handler ``surrogateescape`` leaves them; a text column may be
            a list of these.
        problem: Why it cannot be read; empty for one that can. Then `values` does not count.
    """

    row: int
    values: Mapping[str, Any]
    problem: str = ""


def scan_records(records: Iterable[Record], spec: SourceSpec, matcher: Matcher) -> Iterator[Scan]:
    """Scan records for keywords.

    What a record gives depends on the record alone (`rows.record_layout`): a column that it lacks is null in it, a text
    empty, whatever the records beside it have.

    A record whose text or url holds what is no UTF-8 is a bad row, whatever it says; so is a record that matches and
    holds it in another column, or a value that is nested deeper than `MAX_LEVELS`.

    Args:
        records: The rows, in file order; read as a stream, at most `BLOCK_ROWS` or about `BLOCK_CHARS` in memory.
        spec: The source they belong to.
        matcher: The keywords.

    Yields:
        One scan a block, in file order.
    """
    layouts = _Layouts(spec)
    for block in _blocks(records):
        yield _scan_block(block, layouts, matcher)


def is_deep(value: object) -> bool:
    """Tell whether lists and objects are nested deeper than `MAX_LEVELS` in a value."""
    if not isinstance(value, _NESTED):
        return False
    level: list[Any] = [value]
    for _ in range(MAX_LEVELS):
        insides = (holder.values() if isinstance(holder, dict) else holder for holder in level)
        level = [inner for inside in insides for inner in inside if isinstance(inner, _NESTED)]
        if not level:
            return False
    return True


class _Layouts:
    """The layouts of records; most have the same columns as one shortly before them."""

    def __init__(self, spec: SourceSpec) -> None:
        self._spec = spec
        self._known: dict[tuple[str, ...], Layout] = {}

    def of(self, values: Mapping[str, Any]) -> Layout:
        names = tuple(values)
        if (layout := self._known.get(names)) is None:
            if len(self._known) == _LAYOUTS:
                self._known.clear()
            layout = self._known[names] = record_layout(self._spec, names)
        return layout


def _blocks(records: Iterable[Record]) -> Iterator[list[Record]]:
    block: list[Record] = []
    chars = 0
    for record in records:
        block.append(record)
        chars += _chars(record.values)
        if len(block) == BLOCK_ROWS or chars >= BLOCK_CHARS:
            yield block
            block, chars = [], 0
    if block:
        yield block


def _chars(values: Mapping[str, Any]) -> int:
    chars = 0
    for value in values.values():
        if isinstance(value, str):
            chars += len(value)
        elif isinstance(value, list):
            chars += sum(len(item) for item in value if isinstance(item, str))
    return chars


def _scan_block(block: Sequence[Record], layouts: _Layouts, matcher: Matcher) -> Scan:
    bad: list[tuple[int, str]] = []
    read: list[tuple[Record, Layout, list[bytes]]] = []
    for record in block:
        try:
            if record.problem:
                raise ValueError(record.problem)
            layout = layouts.of(record.values)
            read.append((record, layout, _texts(record, layout)))
        except ValueError as error:
            bad.append((record.row, detail(str(error))))
    # Texts are looked at alone: a keyword never runs across the mark that joins them.
    possible = matcher.possible(pa.array([b"\n".join(texts) for _, _, texts in read], pa.string()))
    hits: list[dict[str, Any]] = []
    for (record, layout, texts), may in zip(read, possible.tolist(), strict=True):
        if may and matcher.accepts((found := find(texts, layout, matcher))[1]):
            try:
                hits.append(_hit(record, texts, found, layout))
            except ValueError as error:
                bad.append((record.row, detail(str(error))))
    return Scan(len(block), pa.Table.from_pylist(hits, HITS), tuple(sorted(bad)))


def _hit(record: Record, texts: list[bytes], found: tuple[str, tuple[str, ...]], layout: Layout) -> dict[str, Any]:
    """Bring a record that matched into the shape of `HITS`. Raises ValueError for what cannot be stored."""
    for name, value in record.values.items():
        if is_deep(value):
            raise ValueError(f"{name} is nested deeper than {MAX_LEVELS} levels")
    hit = make_hit(record.row, texts, found, record.values, layout)
    tags = [word for tag in hit["tags"] or () for word in (tag["name"], tag["mid"])]
    for field, value in (*hit.items(), *(("tags", word) for word in tags)):
        if isinstance(value, str) and not _is_unicode(value):
            raise ValueError(f"{layout.fields.get(field, 'a column')} is not UTF-8")
    return hit


def _texts(record: Record, layout: Layout) -> list[bytes]:
    """Return a record's texts as UTF-8. Raises ValueError for what is no text, or no UTF-8."""
    url = layout.fields.get("url")
    for column in (*layout.text, *([] if url is None else [url])):
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

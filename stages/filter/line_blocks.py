r"""Scan of records that stand line after line: by the block, and none is a Python object until it may match.

How a file is cut into records and fields is for its reader to say (`stages.filter.tsv`, `stages.filter.quoted`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.filter.matcher import Matcher
from stages.filter.rows import HITS, Layout, Scan, find, flat_texts, make_hit
from stages.filter.streams import MAX_LINE_BYTES
from stages.filter.values import detail

Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]

MAX_SCAN_ROWS = 65_536
"""Records of a scan. A block of blank lines holds millions, each a bad row; whoever reads them may want to stop."""

_NEWLINE = 10


@dataclass(frozen=True, slots=True)
class Block:
    r"""Some records of a file.

    Attributes:
        body: Their bytes, each record with its "\n".
        offsets: Where each begins, and where the last ends: one more than there are records.
        marks: Where the marks between fields stand.
        fields: Fields of each record; 0 where they cannot be told apart.
    """

    body: bytes
    offsets: Places
    marks: Places
    fields: Places

    @property
    def lengths(self) -> Places:
        """Bytes of each record, its line end not counted."""
        return np.diff(self.offsets) - 1

    def record(self, index: int) -> bytes:
        """Return one record without its line end."""
        return self.body[self.offsets[index] : self.offsets[index + 1] - 1].removesuffix(b"\r")

    def lines(self) -> pa.StringArray:
        """Return the records, line ends and all; not yet checked to be UTF-8."""
        offsets = pa.py_buffer(self.offsets.astype(np.int32))
        return pa.StringArray.from_buffers(len(self.fields), offsets, pa.py_buffer(self.body))


@dataclass(frozen=True, slots=True)
class Reading:
    """How the records of one file are read.

    Attributes:
        columns: Names of the fields.
        layout: Which of them hold what.
        matcher: The keywords.
        split: Cuts a record into fields; ValueError for one that cannot be cut.
        counted: Which records are rows of the source; None for all.
        plain: Records as their texts read, where they are written otherwise; what matches in a field must match in it.
        values: The fields as they read; ValueError for what cannot be read.
        problem: Why a row that matches is none after all; empty for none.
    """

    columns: tuple[str, ...]
    layout: Layout
    matcher: Matcher
    split: Callable[[bytes], list[bytes]]
    counted: Callable[[Block], Mask] | None = None
    plain: Callable[[pa.StringArray], pa.StringArray] | None = None
    values: Callable[[dict[str, bytes]], dict[str, Any]] | None = None
    problem: Callable[[Mapping[str, Any]], str] | None = None


def cut_lines(body: bytes, mark: int) -> Block:
    """Cut whole lines into records, a line each, whose fields stand between marks."""
    data = np.frombuffer(body, np.uint8)
    offsets = np.concatenate(([0], np.flatnonzero(data == _NEWLINE) + 1))
    marks = np.flatnonzero(data == mark)
    return Block(body, offsets, marks, np.diff(np.searchsorted(marks, offsets)) + 1)


def scan_blocks(blocks: Iterable[Block], reading: Reading) -> Iterator[Scan]:
    """Scan the records of a file, one scan a block, or several of at most `MAX_SCAN_ROWS` records each."""
    row = 0
    for block in blocks:
        for piece in pieces(block):
            yield scan_block(piece, row, reading)
            row += len(piece.fields)


def pieces(block: Block) -> Iterator[Block]:
    """Cut a block into blocks of at most `MAX_SCAN_ROWS` records."""
    records = len(block.fields)
    if records <= MAX_SCAN_ROWS:
        yield block
        return
    for first in range(0, records, MAX_SCAN_ROWS):
        end = min(first + MAX_SCAN_ROWS, records)
        begins, ends = int(block.offsets[first]), int(block.offsets[end])
        left, right = np.searchsorted(block.marks, (begins, ends))
        yield Block(
            block.body[begins:ends],
            block.offsets[first : end + 1] - begins,
            block.marks[left:right] - begins,
            block.fields[first:end],
        )


def scan_block(block: Block, first_row: int, reading: Reading) -> Scan:
    """Scan records for keywords.

    A row that is too long, is not UTF-8 or has the wrong number of fields is bad, whatever it says.

    Args:
        block: The records.
        first_row: Position of the first.
        reading: How they are read.

    Returns:
        The scan. A row's position is its record's among all records, those that are no rows too.
    """
    lines = block.lines()
    long, garbled = block.lengths > MAX_LINE_BYTES, _garbled(lines)
    rows = reading.counted(block) if reading.counted else np.ones(len(lines), np.bool_)
    refused = rows & (long | garbled | (block.fields != len(reading.columns)))
    bad = [
        (first_row + line, _why(bool(long[line]), bool(garbled[line]), int(block.fields[line]), reading.columns))
        for line in np.flatnonzero(refused).tolist()
    ]
    hits: list[dict[str, Any]] = []
    for line in _possible(lines, rows & ~refused, reading):
        try:
            hit = _hit(block.record(line), first_row + line, reading)
        except ValueError as error:
            bad.append((first_row + line, detail(str(error))))
        else:
            hits.extend(hit)
    return Scan(int(rows.sum()), pa.Table.from_pylist(hits, HITS), tuple(sorted(bad)))


def _possible(lines: pa.StringArray, wanted: Mask, reading: Reading) -> list[int]:
    """Tell which lines may match. Whole lines are looked at, urls and all, because their texts stand inside."""
    if reading.plain is None:
        found = reading.matcher.possible(lines) & wanted
        return [int(line) for line in np.flatnonzero(found)]
    at = np.flatnonzero(wanted)
    if not len(at):
        return []
    found = reading.matcher.possible(reading.plain(lines.take(pa.array(at))))
    return [int(line) for line in at[found]]


def _hit(record: bytes, row: int, reading: Reading) -> list[dict[str, Any]]:
    """Return the hit a record is, or nothing. Raises ValueError for one that cannot be read."""
    layout, fields = reading.layout, reading.split(record)
    if len(fields) != len(reading.columns):
        raise ValueError(_why(False, False, len(fields), reading.columns))
    written = dict(zip(reading.columns, fields, strict=True))
    raw = reading.values(written) if reading.values else written
    texts = flat_texts(raw[name] for name in layout.text)
    found = find(texts, layout, reading.matcher)
    if not reading.matcher.accepts(found[1]):
        return []
    if reading.problem and (problem := reading.problem(raw)):
        raise ValueError(problem)
    read = {name: _decoded(name, value) for name, value in raw.items()}
    return [make_hit(row, texts, found, {name: read[name] for name in raw if name not in layout.text}, layout)]


def _decoded(name: str, value: bytes | list[bytes] | None) -> str | list[str] | None:
    try:
        if isinstance(value, list):
            return [item.decode() for item in value]
        return None if value is None else value.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8") from error


def _garbled(lines: pa.StringArray) -> Mask:
    """Tell which lines are not UTF-8; line by line only where the whole is not."""
    garbled = np.zeros(len(lines), np.bool_)
    try:
        lines.validate(full=True)
    except pa.ArrowInvalid:
        for line, value in enumerate(lines.cast(pa.binary()).to_pylist()):
            try:
                value.decode()
            except UnicodeDecodeError:
                garbled[line] = True
    return garbled


def _why(long: bool, garbled: bool, fields: int, columns: tuple[str, ...]) -> str:
    if long:
        return f"a line of more than {MAX_LINE_BYTES} bytes"
    if garbled:
        return "not UTF-8"
    if not fields:
        return "a quote that is not closed where its field ends"
    return detail(f"{fields} fields where {len(columns)} are expected: {', '.join(columns)}")

"""Scan of Parquet metadata, in bounded memory.

Plain files, as LAION and COYO publish them, go through polars: it decodes the text of all rows, asks for the mask, and
decodes the other columns for the masked rows alone. Whatever is not plain (types beyond numbers and text, a row group
too large to hold its text, text that is no UTF-8, damage) goes through pyarrow, every column of every row, a batch at a
time, in bytes that are bounded whatever the file's encoding makes of them. So do files whose text would grow beyond
bounds. Both ways give the same rows.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import types

from manifests.sources import SourceSpec
from stages.filter.masked_parquet import MAX_TEXT_BYTES, is_plain, masked_rows, row_runs
from stages.filter.matcher import Matcher
from stages.filter.page_sizes import row_bytes, shares_prefixes, text_leaves
from stages.filter.rows import HITS, Layout, MetadataError, Scan, find, flat_texts, make_hit, make_hits, resolve
from stages.filter.text_columns import is_list, possible_rows, text_strings
from stages.filter.unreadable import as_parquet, name_of
from stages.filter.values import detail

BATCH_ROWS = 32_768
"""Rows decoded at a time at most: about 5 MiB of url and text."""
BATCH_BYTES = 32 << 20
"""Text decoded at a time, or one row: a match holds it several times over."""

_FEW_ROWS = 64
# Of values that are written without what they share with the one before, a few rows can be large.
_PREFIXED_ROWS = 256
_readable = partial(as_parquet, error_type=MetadataError)


def row_groups(file: BinaryIO) -> list[int]:
    """Count the rows of each row group, from the footer alone.

    Args:
        file: An open, seekable Parquet file.

    Returns:
        Rows a row group, in file order.

    Raises:
        MetadataError: It is not Parquet, or damaged.
    """
    with _readable(file):
        metadata = pq.ParquetFile(file).metadata
        return [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]


def scan_parquet(
    file: BinaryIO, spec: SourceSpec, first_group: int, end_group: int, matcher: Matcher, scratch: Path | None = None
) -> Iterator[Scan]:
    """Scan row groups of a Parquet file for keywords.

    Args:
        file: An open, seekable Parquet file.
        spec: The source it belongs to.
        first_group: First row group.
        end_group: Row group to stop before.
        matcher: The keywords.
        scratch: Folder for the row groups of a file that is not on a local disk; None: they go through pyarrow.

    Yields:
        Scans in file order, each of at most `RUN_ROWS` rows or one row group.

    Raises:
        MetadataError: It is not Parquet, is damaged, or lacks columns the source needs.
        ValueError: There are no such row groups.
    """
    name = name_of(file)
    with _readable(file):
        parquet = pq.ParquetFile(file)
        schema = parquet.schema_arrow
    rows = [parquet.metadata.row_group(index).num_rows for index in range(parquet.metadata.num_row_groups)]
    if not 0 <= first_group <= end_group <= len(rows):
        raise ValueError(f"{name}: row groups {first_group} to {end_group} asked for, it has {len(rows)}")
    layout = resolve(spec, schema.names, name)
    _check_types(schema, layout, name)
    wanted = {*layout.text, *layout.fields.values()}
    columns = [field.name for field in schema if field.name in wanted or not _is_binary(field.type)]
    plain = not matcher.takes_all and all(is_plain(schema.field(column).type) for column in columns)
    for run in row_runs(parquet.metadata, first_group, end_group, layout.text):
        start = sum(rows[: run.start])
        scan = None
        if plain and run.text_bytes <= MAX_TEXT_BYTES:
            wanted_rows = (start, sum(rows[run.start : run.end]))
            found = masked_rows(file, parquet.metadata, run, wanted_rows, columns, layout.text, matcher, scratch)
            scan = found and _judged(found.rows, found.positions, wanted_rows[1], layout, matcher)
        if scan:
            yield scan
            continue
        row = start
        for group in range(run.start, run.end):
            for batch in _batches(file, parquet.metadata, group, columns):
                yield _scan_batch(batch, row, layout, matcher)
                row += batch.num_rows


def _batches(file: BinaryIO, metadata: Any, group: int, columns: list[str]) -> Iterator[pa.RecordBatch]:  # noqa: ANN401
    """Yield a row group in batches whose text, once decoded, is at most `BATCH_BYTES`, or one row.

    Text is read as dictionaries: a value that many rows share stands there once, until its batch is cut.
    """
    said = metadata.row_group(group)
    leaves = text_leaves(metadata, columns)
    chunks = [said.column(index) for index in range(said.num_columns)]
    texts = [chunk for chunk in chunks if chunk.path_in_schema in leaves]
    row = 1 + sum(chunk.total_uncompressed_size for chunk in texts) // max(1, said.num_rows)
    most = _PREFIXED_ROWS if any(map(shares_prefixes, texts)) else BATCH_ROWS
    rows = min(most, max(_FEW_ROWS, BATCH_BYTES // row))
    with _readable(file):
        parquet = pq.ParquetFile(file, read_dictionary=leaves)
        for batch in parquet.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False):
            ends = np.cumsum(row_bytes(batch)) // BATCH_BYTES
            cuts = [0, *(np.flatnonzero(np.diff(ends)) + 1).tolist(), batch.num_rows]
            for start, end in pairwise(cuts):
                yield _decoded(batch, start, end)


def _decoded(batch: pa.RecordBatch, start: int, end: int) -> pa.RecordBatch:
    """Return rows of a batch with their text written out."""
    part = batch.slice(start, end - start)
    arrays = []
    for column in part.columns:
        if types.is_dictionary(column.type):
            arrays.append(column.dictionary_decode())
        elif is_list(column.type) and types.is_dictionary(column.type.value_type):
            # Taken, as a slice of lists would decode the values of the whole batch.
            taken = column.take(pa.array(np.arange(len(column))))
            text = pa.large_list(column.type.value_type.value_type)
            arrays.append(taken.cast(text))
        else:
            arrays.append(column)
    return pa.RecordBatch.from_arrays(arrays, names=part.schema.names)


def _scan_batch(batch: pa.RecordBatch, first_row: int, layout: Layout, matcher: Matcher) -> Scan:
    possible = np.zeros(batch.num_rows, np.bool_)
    strings = {name: text_strings(batch.column(name)) for name in layout.text}
    for column in strings.values():
        possible |= possible_rows(column, matcher)
    at = np.flatnonzero(possible)
    for name, column in strings.items():
        batch = batch.set_column(batch.schema.get_field_index(name), name, column)
    return _judged(batch.take(pa.array(at)), at + first_row, batch.num_rows, layout, matcher)


def _judged(
    rows: pa.RecordBatch, positions: NDArray[np.int64], rows_seen: int, layout: Layout, matcher: Matcher
) -> Scan:
    """Apply the exact test to the rows that the prefilter let through."""
    values = zip(*(_raw(rows.column(name)).to_pylist() for name in layout.text), strict=True)
    matched = [
        (at, texts, found)
        for at, texts in enumerate(map(flat_texts, values))
        if matcher.accepts((found := find(texts, layout, matcher))[1])
    ]
    rest = rows.drop_columns(list(layout.text)).take(pa.array([at for at, _, _ in matched], pa.int64()))
    places = [int(positions[at]) for at, _, _ in matched]
    texts, said = [text for _, text, _ in matched], [keywords for _, _, keywords in matched]
    try:
        raw = {name: rest.column(name) for name in rest.schema.names}
        return Scan(rows_seen, make_hits(places, texts, said, raw, layout), ())
    except ValueError:
        hits, bad = _row_by_row(places, texts, said, rest, layout)
        return Scan(rows_seen, hits, bad)


def _row_by_row(
    places: Sequence[int],
    texts: Sequence[list[bytes]],
    found: Sequence[tuple[str, tuple[str, ...]]],
    rest: pa.RecordBatch,
    layout: Layout,
) -> tuple[pa.Table, tuple[tuple[int, str], ...]]:
    """Tell the rows that cannot be read from those that can."""
    hits: list[dict[str, Any]] = []
    bad: list[tuple[int, str]] = []
    for place, text, said, raw in zip(places, texts, found, _records(rest), strict=True):
        try:
            if isinstance(raw, ValueError):
                raise raw
            hits.append(make_hit(place, text, said, raw, layout))
        except ValueError as error:
            bad.append((place, detail(str(error))))
    return pa.Table.from_pylist(hits, HITS), tuple(bad)


def _records(batch: pa.RecordBatch) -> list[dict[str, Any] | ValueError]:
    """Turn rows into dicts; one that Python cannot hold (text that is no UTF-8, a date out of range) into its error."""
    try:
        return list(batch.to_pylist())
    except ValueError as error:
        if batch.num_rows == 1:
            return [error]
        return [record for row in range(batch.num_rows) for record in _records(batch.slice(row, 1))]


def _raw(column: pa.Array) -> pa.Array:
    """Bring text to bytes, so that text that is no UTF-8 can still be looked at."""
    if is_list(column.type):
        return column.cast(pa.large_list(pa.large_binary()))
    return column.cast(pa.large_binary())


def _is_binary(kind: pa.DataType) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_null, types.is_binary_view)
    return any(test(kind) for test in tests) or (_is_binary(kind) and not types.is_fixed_size_binary(kind))


def _check_types(schema: pa.Schema, layout: Layout, name: str) -> None:
    for column in (layout.fields["url"], *layout.text):
        kind = schema.field(column).type
        text = _is_text(kind.value_type) if is_list(kind) and column in layout.text else _is_text(kind)
        if not text:
            raise MetadataError(f"{name}: column {column} holds {kind}, not text")

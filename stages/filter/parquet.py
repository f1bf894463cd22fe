"""Scan of Parquet metadata: bounded memory, one batch of rows at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from manifests.sources import SourceSpec
from stages.filter.matcher import Matcher
from stages.filter.rows import HITS, Layout, MetadataError, Scan, find, flat_texts, make_hit, resolve
from stages.filter.values import detail

BATCH_ROWS = 32_768
"""Rows decoded at a time: about 5 MiB of url and text."""


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
    file: BinaryIO, spec: SourceSpec, first_group: int, end_group: int, matcher: Matcher
) -> Iterator[Scan]:
    """Scan row groups of a Parquet file for keywords.

    All columns are decoded in one pass: a batch practically always holds a hit, and then they are needed. Binary
    columns that hold no field are left out.

    Args:
        file: An open, seekable Parquet file.
        spec: The source it belongs to.
        first_group: First row group.
        end_group: Row group to stop before.
        matcher: The keywords.

    Yields:
        Scans of at most `BATCH_ROWS` rows, in file order.

    Raises:
        MetadataError: It is not Parquet, is damaged, or lacks columns the source needs.
        ValueError: There are no such row groups.
    """
    name = _name(file)
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
    row = sum(rows[:first_group])
    for group in range(first_group, end_group):
        for batch in _batches(file, parquet, group, columns):
            yield _scan_batch(batch, row, layout, matcher)
            row += batch.num_rows


def _batches(file: BinaryIO, parquet: pq.ParquetFile, group: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    with _readable(file):
        yield from parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False)


def _scan_batch(batch: pa.RecordBatch, first_row: int, layout: Layout, matcher: Matcher) -> Scan:
    columns = [_strings(batch.column(name)) for name in layout.text]
    possible = np.zeros(batch.num_rows, np.bool_)
    for column in columns:
        possible |= _possible(column, matcher)
    at = np.flatnonzero(possible)
    values = zip(*(_raw(column.take(pa.array(at))).to_pylist() for column in columns), strict=True)
    matched = [
        (row, texts, found)
        for row, texts in zip(at.tolist(), map(flat_texts, values), strict=True)
        if matcher.accepts((found := find(texts, layout, matcher))[1])
    ]
    rest = batch.drop_columns(list(layout.text)).take(pa.array([row for row, _, _ in matched], pa.int64()))
    hits: list[dict[str, Any]] = []
    bad: list[tuple[int, str]] = []
    for (row, texts, found), raw in zip(matched, _records(rest), strict=True):
        try:
            if isinstance(raw, ValueError):
                raise raw
            hits.append(make_hit(first_row + row, texts, found, raw, layout))
        except ValueError as error:
            bad.append((first_row + row, detail(str(error))))
    return Scan(batch.num_rows, pa.Table.from_pylist(hits, HITS), tuple(bad))


def _records(batch: pa.RecordBatch) -> list[dict[str, Any] | ValueError]:
    """Turn rows into dicts; one that Python cannot hold (text that is no UTF-8, a date out of range) into its error."""
    try:
        return list(batch.to_pylist())
    except ValueError as error:
        if batch.num_rows == 1:
            return [error]
        return [record for row in range(batch.num_rows) for record in _records(batch.slice(row, 1))]


def _possible(column: pa.Array, matcher: Matcher) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if not _is_list(column.type):
        mask: np.ndarray[Any, np.dtype[np.bool_]] = matcher.possible(column).to_numpy(zero_copy_only=False)
        return mask
    rows = np.zeros(len(column), np.bool_)
    inside = matcher.possible(_strings(pc.list_flatten(column))).to_numpy(zero_copy_only=False)
    rows[pc.list_parent_indices(column).to_numpy()[inside]] = True
    return rows


def _strings(column: pa.Array) -> pa.Array:
    """Bring a text column to string, large_string or a list of text; bytes are not checked yet."""
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_null(column.type):
        return column.cast(pa.string())
    if types.is_string_view(column.type) or types.is_binary_view(column.type) or types.is_large_binary(column.type):
        return pc.cast(column, options=pc.CastOptions(target_type=pa.large_string(), allow_invalid_utf8=True))
    if types.is_binary(column.type):
        return pc.cast(column, options=pc.CastOptions(target_type=pa.string(), allow_invalid_utf8=True))
    return column


def _raw(column: pa.Array) -> pa.Array:
    """Bring text to bytes, so that text that is no UTF-8 can still be looked at."""
    if _is_list(column.type):
        return column.cast(pa.large_list(pa.large_binary()))
    return column.cast(pa.large_binary())


def _is_list(kind: pa.DataType) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


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
        text = _is_text(kind.value_type) if _is_list(kind) and column in layout.text else _is_text(kind)
        if not text:
            raise MetadataError(f"{name}: column {column} holds {kind}, not text")


def _name(file: BinaryIO) -> str:
    return str(getattr(file, "path", None) or getattr(file, "name", "metadata file"))


@contextmanager
def _readable(file: BinaryIO) -> Iterator[None]:
    """Give what pyarrow says about a damaged file our words; trouble of the storage passes through."""
    try:
        yield
    except pa.ArrowInvalid as error:
        raise MetadataError(f"{_name(file)}: not readable as Parquet ({error}); fetch it again") from error
    except OSError as error:
        if type(error) is not OSError or error.errno is not None:
            raise
        raise MetadataError(f"{_name(file)}: not readable as Parquet ({error}); fetch it again") from error

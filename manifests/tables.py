"""The one writer and reader of tables: declared schema, unique sort key, fixed Parquet settings, rows digest.

Files carry no clock, host or schema metadata, so equal rows give equal bytes within one pyarrow version; the rows
digest does not depend on Parquet at all and is what fingerprints use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.schemas import TableSpec

ROW_GROUP_ROWS = 65_536
_CODEC = "zstd"
_LEVEL = 3


class TableError(ValueError):
    """Rows that do not fit their declared table: a missing column, a null, a sort key that repeats."""


@dataclass(frozen=True, slots=True)
class WrittenTable:
    """What was written: the file's sha256 and size, the rows and their digest."""

    sha256: str
    rows_digest: str
    bytes: int
    rows: int


def write_table(spec: TableSpec, frame: pl.DataFrame, path: Path) -> WrittenTable:
    """Write ``frame`` as the table ``spec`` to a local file.

    Args:
        spec: The declared table.
        frame: Rows in any order; columns may come in any order but all must be there.
        path: A local file, overwritten.

    Raises:
        TableError: If a column is missing or holds a null it must not, or the sort key repeats.
    """
    frame = _ordered(spec, frame)
    digest = _RowsDigest(spec)
    with pq.ParquetWriter(
        path, spec.schema, compression=_CODEC, compression_level=_LEVEL, store_schema=False, version="2.6"
    ) as writer:
        for batch in _batches(spec, frame):
            digest.add(batch)
            writer.write_table(batch, row_group_size=ROW_GROUP_ROWS)
    return WrittenTable(file_sha256(path), digest.hexdigest(), path.stat().st_size, frame.height)


def rows_digest(spec: TableSpec, frame: pl.DataFrame) -> str:
    """Return the digest of the rows alone: 32 hex digits over the canonical columns in sort order."""
    digest = _RowsDigest(spec)
    for batch in _batches(spec, _ordered(spec, frame)):
        digest.add(batch)
    return digest.hexdigest()


def read_table(spec: TableSpec, file: BinaryIO | Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read a table written by `write_table`, with the declared types.

    Args:
        spec: The declared table.
        file: Seekable binary file or local path.
        columns: The columns wanted, all by default.
    """
    names = list(columns) if columns is not None else spec.schema.names
    schema = pa.schema([spec.schema.field(name) for name in names])
    table = pq.read_table(file, columns=names, use_threads=False).select(names)
    return to_frame(table.cast(schema)) if table.num_rows else empty_frame(spec).select(names)


def empty_frame(spec: TableSpec) -> pl.DataFrame:
    """Return the table with no rows."""
    return to_frame(spec.schema.empty_table())


def to_frame(table: pa.Table) -> pl.DataFrame:
    """Return an Arrow table as a polars frame."""
    frame = pl.from_arrow(table)
    if not isinstance(frame, pl.DataFrame):
        raise TypeError(f"expected a table, got {type(table).__name__}")
    return frame


def file_sha256(path: Path) -> str:
    """Return the sha256 of a local file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ordered(spec: TableSpec, frame: pl.DataFrame) -> pl.DataFrame:
    missing = [name for name in spec.schema.names if name not in frame.columns]
    if missing:
        raise TableError(f"table {spec.name} lacks the columns {', '.join(missing)}")
    frame = frame.select(spec.schema.names).sort(spec.sort_key, nulls_last=False)
    nulls = [f.name for f in spec.schema if not f.nullable and frame[f.name].null_count()]
    if nulls:
        raise TableError(f"table {spec.name} holds a null in {', '.join(nulls)}")
    if frame.height > 1 and frame.select(pl.struct(spec.sort_key).is_duplicated().any()).item():
        raise TableError(f"table {spec.name}: {', '.join(spec.sort_key)} is not unique")
    return frame


def _batches(spec: TableSpec, frame: pl.DataFrame) -> Iterator[pa.Table]:
    """Yield Arrow tables of one row group each: small enough that 32-bit string offsets cannot overflow."""
    for start in range(0, frame.height, ROW_GROUP_ROWS):
        part = frame.slice(start, ROW_GROUP_ROWS).to_arrow()
        columns = [part.column(field.name).cast(field.type) for field in spec.schema]
        yield pa.Table.from_arrays(columns, schema=spec.schema).combine_chunks()


class _RowsDigest:
    """Digest over values, not buffers: null slots, padding, chunking and Parquet settings do not reach it."""

    def __init__(self, spec: TableSpec) -> None:
        self._columns = [name for name in spec.schema.names if name not in spec.located]
        self._digest = hashlib.blake2b(digest_size=16, person=b"rs5m-rows-1")
        for name in self._columns:
            self._digest.update(f"{name}:{spec.schema.field(name).type};".encode())

    def add(self, batch: pa.Table) -> None:
        self._digest.update(batch.num_rows.to_bytes(8, "little"))
        for name in self._columns:
            column = batch.column(name)
            self._array(column.chunk(0) if column.num_chunks == 1 else column.combine_chunks())

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def _array(self, array: pa.Array) -> None:
        kind = array.type
        if array.null_count:
            self._digest.update(pc.cast(array.is_null(), pa.uint8()).to_numpy().tobytes())
        else:
            self._digest.update(b"\x00")
        if pa.types.is_string(kind) or pa.types.is_binary(kind):
            filled = array.fill_null("" if pa.types.is_string(kind) else b"")
            self._digest.update(pc.binary_length(filled).to_numpy().tobytes())
            self._digest.update(b"".join(filled.cast(pa.binary()).to_pylist()))
        elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int32())
            self._digest.update(lengths.to_numpy().tobytes())
            self._array(array.drop_null().flatten())
        elif pa.types.is_struct(kind):
            for index in range(kind.num_fields):
                self._array(pc.struct_field(array, index))
        else:
            self._digest.update(array.fill_null(0).to_numpy().tobytes())

"""The rows of a Parquet file whose text may hold a keyword, without decoding the other columns of all the rest.

polars reads a row group's text columns, hands them to the prefilter and decodes what remains under its mask. That is
done for local files; of others the byte ranges of the wanted column chunks are laid into a sparse local file first,
which costs one parallel request of ranges.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileOpener
from numpy.typing import NDArray
from pyarrow import types

from stages.filter.matcher import Matcher
from stages.filter.page_sizes import shares_prefixes, start_of, text_leaves
from stages.filter.text_columns import is_list, possible_rows

RUN_ROWS = 524_288
"""Row groups are read together up to so many rows: a run's start-up is then nothing beside its work."""
MAX_TEXT_BYTES = 256 << 20
"""Decoded text of a run that is held at once; a larger row group goes another way."""
MAX_PIECE_BYTES = 64 << 20
"""Text that is laid out at once for the prefilter: polars hands over some 17,000 rows at a time."""

_MAGIC_BYTES = 4
_FOOTER_TAIL_BYTES = 8  # length of the footer, and the magic bytes
_PIECE_BYTES = 8 << 20
_PIECES_AT_ONCE = 8
_REFUSED = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    pa.ArrowInvalid,
    pa.ArrowNotImplementedError,
    MemoryError,
)


@dataclass(frozen=True, slots=True)
class Run:
    """Row groups that are read together.

    Attributes:
        start: The first.
        end: The one to stop before.
        text_bytes: Their text columns, as they are encoded.
    """

    start: int
    end: int
    text_bytes: int


@dataclass(frozen=True, slots=True)
class Found:
    """Rows that may hold a keyword.

    Attributes:
        rows: All their columns.
        positions: (rows,) int64, places in the file.
    """

    rows: pa.RecordBatch
    positions: NDArray[np.int64]


def row_runs(metadata: Any, first_group: int, end_group: int, text: Sequence[str]) -> Iterator[Run]:  # noqa: ANN401
    """Yield row groups in runs of at most `RUN_ROWS` rows and `MAX_TEXT_BYTES`, or of one row group.

    Args:
        metadata: The file's `pyarrow.parquet.FileMetaData`.
        first_group: First row group.
        end_group: Row group to stop before.
        text: The text columns.
    """
    start, rows, text_bytes = first_group, 0, 0
    for group in range(first_group, end_group):
        said = metadata.row_group(group)
        chunks = [said.column(index) for index in range(said.num_columns)]
        own = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in text)
        if group > start and (rows + said.num_rows > RUN_ROWS or text_bytes + own > MAX_TEXT_BYTES):
            yield Run(start, group, text_bytes)
            start, rows, text_bytes = group, 0, 0
        rows, text_bytes = rows + said.num_rows, text_bytes + own
    if start < end_group:
        yield Run(start, end_group, text_bytes)


def is_plain(kind: pa.DataType) -> bool:
    """Tell whether polars and pyarrow read a type as the same values: numbers, flags, text, and lists of these."""
    if is_list(kind) and not types.is_fixed_size_list(kind):
        kind = kind.value_type
    tests = (types.is_integer, types.is_boolean, types.is_float32, types.is_float64, types.is_string)
    return types.is_large_string(kind) or any(test(kind) for test in tests)


def masked_rows(
    file: BinaryIO,
    metadata: Any,  # noqa: ANN401
    run: Run,
    rows: tuple[int, int],
    columns: Sequence[str],
    text: Sequence[str],
    matcher: Matcher,
    scratch: Path | None,
) -> Found | None:
    """Read the rows of a run that may hold a keyword.

    Args:
        file: The open file.
        metadata: Its `pyarrow.parquet.FileMetaData`.
        run: Row groups.
        rows: Place of their first row in the file, and their number.
        columns: Columns to read, all of a type that `is_plain`.
        text: Those of them that are looked at.
        matcher: The keywords.
        scratch: Folder for the ranges of a file that is not on a local disk.

    Returns:
        The rows; None where polars does not read them, their text is too long to be laid out, or the file is elsewhere
        and there is no scratch.
    """
    with _local(file, metadata, run, columns, scratch) as path:
        if path is None:
            return None
        try:
            return None if _shares_prefixes(metadata, run, columns) else _read(path, rows, columns, text, matcher)
        except _REFUSED:
            return None


def _shares_prefixes(metadata: Any, run: Run, columns: Sequence[str]) -> bool:  # noqa: ANN401
    """Tell whether text is written in the one encoding that polars, too, must expand while it decodes."""
    leaves = frozenset(text_leaves(metadata, columns))
    groups = [metadata.row_group(group) for group in range(run.start, run.end)]
    chunks = [group.column(index) for group in groups for index in range(group.num_columns)]
    return any(shares_prefixes(chunk) for chunk in chunks if chunk.path_in_schema in leaves)


def _read(
    path: str, rows: tuple[int, int], columns: Sequence[str], text: Sequence[str], matcher: Matcher
) -> Found | None:
    """Read masked rows; None where their text is too long to be laid out.

    polars keeps a value of a dictionary once, however many rows name it. Only what is handed to Arrow is written out
    row by row: the text of a piece of rows for the mask, and the rows found. So these are measured first.
    """
    place, too_long = _free_name(columns), False

    def mask(series: pl.Series) -> pl.Series:
        nonlocal too_long
        too_long = too_long or _text_bytes(series) > MAX_PIECE_BYTES
        found = np.zeros(len(series), np.bool_) if too_long else possible_rows(_arrow(series), matcher)
        return pl.Series(found)

    masks = [pl.col(name).map_batches(mask, return_dtype=pl.Boolean, is_elementwise=True) for name in text]
    scan = pl.scan_parquet(path, row_index_name=place, parallel="prefiltered", glob=False, use_statistics=False)
    found = scan.select(place, *columns).slice(*rows).filter(pl.any_horizontal(masks)).collect(engine="streaming")
    if too_long or sum(_text_bytes(column) for column in found.get_columns()) > MAX_TEXT_BYTES:
        return None
    positions = found[place].to_numpy().astype(np.int64)
    table = found.drop(place).to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
    batches = table.to_batches()
    empty = pa.RecordBatch.from_pylist([], table.schema)
    return Found(batches[0] if batches else empty, positions)


def _text_bytes(column: pl.Series) -> int:
    """Return the bytes of a column's text; 0 for what is no text."""
    if isinstance(column.dtype, pl.List):
        column = column.explode()
    if column.dtype != pl.String or not len(column):
        return 0
    views = column.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    # A view is 16 bytes and begins with its length; a query of polars for that would cost more than the scan.
    words = np.frombuffer(views.buffers()[1], np.uint32)[4 * views.offset : 4 * (views.offset + len(views)) : 4]
    return int(words.sum(dtype=np.int64))


def _arrow(series: pl.Series) -> pa.Array:
    array = series.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _free_name(columns: Sequence[str]) -> str:
    name = "place"
    while name in columns:
        name += "_"
    return name


@contextlib.contextmanager
def _local(
    file: BinaryIO,
    metadata: Any,  # noqa: ANN401
    run: Run,
    columns: Sequence[str],
    scratch: Path | None,
) -> Iterator[str | None]:
    """Give the path of a local file that holds the run where it stands in the whole file."""
    if isinstance(file, LocalFileOpener | io.BufferedReader | io.FileIO):
        yield str(file.path if isinstance(file, LocalFileOpener) else file.name)
    elif scratch is None:
        yield None
    else:
        with tempfile.NamedTemporaryFile(dir=scratch, suffix=".parquet") as copy:
            for start, body in _bodies(file, _ranges(file, metadata, run, columns)):
                copy.seek(start)
                copy.write(body)
            copy.flush()
            yield copy.name


def _ranges(
    file: BinaryIO,
    metadata: Any,  # noqa: ANN401
    run: Run,
    columns: Sequence[str],
) -> list[tuple[int, int]]:
    """Return the byte ranges, from and to, that a run's columns need: magic bytes, column chunks, footer."""
    size_bytes = file.seek(0, io.SEEK_END)
    found = [(0, _MAGIC_BYTES), (size_bytes - metadata.serialized_size - _FOOTER_TAIL_BYTES, size_bytes)]
    for group in range(run.start, run.end):
        said = metadata.row_group(group)
        for chunk in (said.column(index) for index in range(said.num_columns)):
            if chunk.path_in_schema.split(".")[0] in columns:
                start = start_of(chunk)
                found.append((start, start + chunk.total_compressed_size))
    return [(at, min(at + _PIECE_BYTES, end)) for start, end in found for at in range(start, end, _PIECE_BYTES)]


def _bodies(file: BinaryIO, ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    """Yield the bytes of ranges with their place: several at once where the file system can."""
    fs, path = getattr(file, "fs", None), getattr(file, "path", None)
    if not isinstance(fs, AsyncFileSystem):
        for start, end in ranges:
            file.seek(start)
            yield start, file.read(end - start)
        return
    for at in range(0, len(ranges), _PIECES_AT_ONCE):
        some = ranges[at : at + _PIECES_AT_ONCE]
        starts, ends = [start for start, _ in some], [end for _, end in some]
        yield from zip(starts, fs.cat_ranges([path] * len(some), starts, ends, on_error="raise"), strict=True)

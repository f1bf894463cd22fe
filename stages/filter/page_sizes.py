"""How many bytes the text of a Parquet column takes once it is decoded.

The footer tells the encoded size. A value of a dictionary is written once and named by rows at next to nothing each, so
that kilobytes can stand for gigabytes. How many rows name one is told by the headers of the pages (parquet-format,
`PageHeader`, in Thrift's compact protocol).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import types

from stages.filter.text_columns import is_list

_DICTIONARY = ("PLAIN_DICTIONARY", "RLE_DICTIONARY")
_SHARED_PREFIXES = "DELTA_BYTE_ARRAY"
_DICTIONARY_PAGE = 2  # of enum PageType
_DICTIONARY_ENCODINGS = (2, 8)  # of enum Encoding
_HEADER_BYTES = (8 << 10, 1 << 20)
_HEADER_DEPTH = 4
_LOOK_ROWS = 8_192
_BUFFER_BYTES = 64 << 10
# Bounds of chunks smaller than this are taken as they are; of others the values are looked at.
_SMALL_BYTES = 16 << 20


class PageError(ValueError):
    """Page headers that cannot be read, or stand in an order that no writer uses."""


@dataclass(frozen=True, slots=True)
class Pages:
    """What the pages of a column chunk hold.

    Attributes:
        dictionary_bytes: Its dictionary, unpacked.
        named: Values that name one of the dictionary; they are the chunk's first.
    """

    dictionary_bytes: int
    named: int


def text_leaves(metadata: Any, columns: Collection[str]) -> list[str]:  # noqa: ANN401  (pyarrow is untyped)
    """Return the paths of the leaves of some columns that hold text or bytes."""
    leaves = [metadata.schema.column(index) for index in range(metadata.num_columns)]
    return [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.path.split(".")[0] in columns]


def shares_prefixes(chunk: Any) -> bool:  # noqa: ANN401
    """Tell whether values of a column chunk are written without what they share with the one before."""
    return _SHARED_PREFIXES in chunk.encodings


def start_of(chunk: Any) -> int:  # noqa: ANN401
    """Return the place of a column chunk's first byte in the file."""
    start = int(chunk.data_page_offset)
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        start = min(start, int(chunk.dictionary_page_offset))
    return start


def expands(path: str, metadata: Any, groups: range, columns: Collection[str], max_bytes: int) -> bool:  # noqa: ANN401
    """Tell whether the text of row groups grows beyond a bound when it is decoded.

    Args:
        path: A local file with these column chunks in their places.
        metadata: Its `pyarrow.parquet.FileMetaData`.
        groups: Row groups.
        columns: Columns that are read.
        max_bytes: The bound for what is named out of dictionaries; four times that for what is written out.
    """
    leaves, named_bytes, written_bytes = frozenset(text_leaves(metadata, columns)), 0, 0
    with open(path, "rb") as file:  # noqa: PTH123
        for group in groups:
            said = metadata.row_group(group)
            for chunk in (said.column(index) for index in range(said.num_columns)):
                if chunk.path_in_schema not in leaves:
                    continue
                written_bytes += chunk.total_uncompressed_size
                if shares_prefixes(chunk):
                    named_bytes += chunk.num_values * chunk.total_uncompressed_size
                elif any(encoding in _DICTIONARY for encoding in chunk.encodings):
                    try:
                        named_bytes += _named_bytes(file, path, group, chunk, max_bytes)
                    except (PageError, pa.ArrowInvalid):
                        return True
                if named_bytes > max_bytes or written_bytes > 4 * max_bytes:
                    return True
    return False


def _named_bytes(file: BinaryIO, path: str, group: int, chunk: Any, enough_bytes: int) -> int:  # noqa: ANN401
    if chunk.num_values * chunk.total_uncompressed_size <= _SMALL_BYTES:
        return int(chunk.num_values * chunk.total_uncompressed_size)
    pages = read_pages(file, start_of(chunk), start_of(chunk) + chunk.total_compressed_size)
    if pages.named * pages.dictionary_bytes <= _SMALL_BYTES:
        return pages.named * pages.dictionary_bytes
    leaf, values, found_bytes = chunk.path_in_schema, 0, 0
    # Buffered: only the pages that are looked at are read, not the whole chunk.
    parquet = pq.ParquetFile(path, read_dictionary=[leaf], pre_buffer=False, buffer_size=_BUFFER_BYTES)
    for batch in parquet.iter_batches(_LOOK_ROWS, row_groups=[group], columns=[leaf], use_threads=False):
        column = batch.column(0)
        values += len(pc.list_flatten(column)) if is_list(column.type) else len(column)
        found_bytes += int(row_bytes(batch).sum())
        if values >= pages.named or found_bytes > enough_bytes:
            break
    return found_bytes


def row_bytes(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """Return how many bytes of text each row takes once dictionaries are decoded, (rows,) int64.

    Args:
        batch: Columns that are dictionaries, or lists of such; others count nothing.
    """
    sizes = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        if types.is_dictionary(column.type):
            sizes += _lengths(column)
        elif is_list(column.type) and types.is_dictionary(column.type.value_type):
            rows = pc.list_parent_indices(column).to_numpy()
            np.add.at(sizes, rows, _lengths(pc.list_flatten(column)))
    return sizes


def _lengths(column: pa.Array) -> NDArray[np.int64]:
    lengths = pc.binary_length(column.dictionary).cast(pa.int64())
    taken = lengths.take(column.indices.cast(pa.int64())).fill_null(0)
    return np.asarray(taken.to_numpy(zero_copy_only=False), np.int64)


def read_pages(file: BinaryIO, start: int, end: int) -> Pages:
    """Read the headers of the pages between two places of a file.

    Raises:
        PageError: They cannot be read, or values name the dictionary after others that do not.
    """
    at, dictionary_bytes, named, others = start, 0, 0, False
    while at < end:
        header, header_bytes = _header(file, at)
        kind, unpacked_bytes, packed_bytes = (_number(header, field) for field in (1, 2, 3))
        at += header_bytes + packed_bytes
        if kind == _DICTIONARY_PAGE:
            dictionary_bytes += unpacked_bytes
            continue
        about = header.get(5) or header.get(8)  # DataPageHeader, DataPageHeaderV2
        if not isinstance(about, dict):
            continue
        if _number(about, 2 if 5 in header else 4) not in _DICTIONARY_ENCODINGS:
            others = True
        elif others:
            raise PageError("values of the dictionary after others")
        else:
            named += _number(about, 1)
    return Pages(dictionary_bytes, named)


def _header(file: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
    for size in _HEADER_BYTES:
        file.seek(at)
        compact = _Compact(file.read(size))
        try:
            return compact.struct(0), compact.at
        except IndexError:
            continue
    raise PageError("a page header without an end")


def _number(fields: dict[int, Any], field: int) -> int:
    value = fields.get(field)
    if not isinstance(value, int) or value < 0:
        raise PageError("a page header without its numbers")
    return value


class _Compact:
    """Reads a struct of Thrift's compact protocol; IndexError where the bytes end before it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def struct(self, depth: int) -> dict[int, Any]:
        """Return the fields by number; texts are passed over."""
        if depth > _HEADER_DEPTH:
            raise PageError("a page header that is nested")
        found: dict[int, Any] = {}
        field = 0
        while byte := self._byte():
            field = field + (byte >> 4) if byte >> 4 else self._zigzag()
            found[field] = self._value(byte & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:  # noqa: ANN401
        if kind in (1, 2):
            return kind == 1
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 12:  # a struct
            return self.struct(depth + 1)
        if kind not in (3, 7, 8):
            raise PageError("a page header with a field of another kind")
        skipped_bytes = {3: 1, 7: 8}.get(kind) or self._varint()
        self.at += skipped_bytes
        return None

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise PageError("a number without an end")

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

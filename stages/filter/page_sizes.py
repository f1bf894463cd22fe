"""How many bytes the text of a Parquet column takes once it is decoded.

The footer tells the encoded size. A value of a dictionary is written once and named by rows at next to nothing each, so
that kilobytes can stand for gigabytes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from stages.filter.text_columns import is_list

_SHARED_PREFIXES = "DELTA_BYTE_ARRAY"


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

"""Text columns of Arrow tables, whatever type a file gives them, and which of their rows may hold a keyword."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from stages.filter.matcher import Matcher


def is_list(kind: pa.DataType) -> bool:
    """Tell whether a type is a list of values."""
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def possible_rows(column: pa.Array, matcher: Matcher) -> NDArray[np.bool_]:
    """Tell which rows may hold a keyword, (rows,) bool; a list does where any of its texts does.

    Args:
        column: string, large_string, or a list of these.
        matcher: The keywords.
    """
    if not is_list(column.type):
        return matcher.possible(column)
    rows = np.zeros(len(column), np.bool_)
    inside = matcher.possible(text_strings(pc.list_flatten(column)))
    rows[pc.list_parent_indices(column).to_numpy()[inside]] = True
    return rows


def text_strings(column: pa.Array) -> pa.Array:
    """Bring a text column to string, large_string or a list of text; whether its bytes are UTF-8 is not checked."""
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_null(column.type):
        return column.cast(pa.string())
    if types.is_string_view(column.type) or types.is_binary_view(column.type) or types.is_large_binary(column.type):
        return pc.cast(column, options=pc.CastOptions(target_type=pa.large_string(), allow_invalid_utf8=True))
    if types.is_binary(column.type):
        return pc.cast(column, options=pc.CastOptions(target_type=pa.string(), allow_invalid_utf8=True))
    return column

"""The list of photos that make YFCC15M out of YFCC100M: OpenAI's, read into one sorted array."""

from __future__ import annotations

from array import array
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from stages.filter.line_blocks import Block, Mask, Places, cut_lines
from stages.filter.rows import MetadataError
from stages.filter.streams import BLOCK_BYTES, blocks, name_of, unpacked

MAX_IDS = 30_000_000
"""More are refused: 8 bytes of memory each. The published list has 14,829,396, about 120 MB."""

_TAB = 9
_FIELDS = 3
_MAX_DIGITS = 18


def read_photo_ids(file: BinaryIO, *, block_bytes: int = BLOCK_BYTES) -> npt.NDArray[np.int64]:
    """Read the list: TSV without a header, of line number, photo id, photo hash; packed or not.

    Args:
        file: An open file of bytes.
        block_bytes: Bytes read at a time.

    Returns:
        The photo ids, int64, sorted.

    Raises:
        MetadataError: It is damaged, or holds anything but such lines, none, or more than `MAX_IDS`.
    """
    name = name_of(file)
    ids, line = array("q"), 0
    for body in blocks(unpacked(file, name), block_bytes):
        block = cut_lines(body, _TAB)
        values, numeric = field_numbers(block, 1)
        wrong = np.flatnonzero(~numeric | (block.fields != _FIELDS))
        if len(wrong):
            raise MetadataError(
                f"{name}: line {line + int(wrong[0]) + 1} is not a line number, photo id and photo hash "
                "with tabs between; fetch yfcc100m_subset_data.tsv.bz2 again"
            )
        line += len(values)
        if line > MAX_IDS:
            raise MetadataError(f"{name}: more than {MAX_IDS} photo ids; the published list has 14829396")
        ids.frombytes(values.tobytes())
    if not ids:
        raise MetadataError(f"{name}: names no photo; fetch yfcc100m_subset_data.tsv.bz2 again")
    found = np.frombuffer(ids, np.int64)
    found.sort()
    return found


def field_numbers(block: Block, index: int) -> tuple[Places, Mask]:
    """Read one field of every record as a number.

    Args:
        block: The records.
        index: Which field, from 0.

    Returns:
        The numbers, int64; and which fields are numbers at all, of digits alone and at most 18 of them. Where one is
        not, or there is no such field, the number counts for nothing.
    """
    first = np.searchsorted(block.marks, block.offsets[:-1])
    there = block.fields > index
    begins = block.offsets[:-1] if index == 0 else _mark(block, first + index - 1) + 1
    ends = np.where(block.fields > index + 1, _mark(block, first + index), block.offsets[1:] - 1)
    lengths = np.where(there, ends - begins, 0)
    return _numbers(np.frombuffer(block.body, np.uint8), begins, lengths)


def _mark(block: Block, index: Places) -> Places:
    if not len(block.marks):
        return np.zeros_like(index)
    return block.marks[np.minimum(index, len(block.marks) - 1)]


def _numbers(data: npt.NDArray[np.uint8], begins: Places, lengths: Places) -> tuple[Places, Mask]:
    numeric: Any = (lengths > 0) & (lengths <= _MAX_DIGITS)
    values = np.zeros(len(begins), np.int64)
    for place in range(int(lengths[numeric].max(initial=0))):
        inside = numeric & (place < lengths)
        digits = data[np.where(inside, begins + place, 0)].astype(np.int64) - ord("0")
        numeric &= ~inside | ((digits >= 0) & (digits <= 9))
        values = np.where(inside, values * 10 + digits, values)
    return values, numeric

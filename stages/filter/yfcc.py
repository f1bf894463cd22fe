"""Scan of YFCC15M: the records of YFCC100M that OpenAI's list names.

Records are TSV without a header. What people wrote is form-encoded in it: "+" for a space, "%" and two hexadecimal
digits for a byte; urls, numbers and dates stand as they are. A title or description with HTML in it stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

import numpy as np
import pyarrow as pa

from manifests.sources import SourceSpec
from stages.filter.line_blocks import Block, Mask, Places, Reading
from stages.filter.matcher import Matcher
from stages.filter.photo_ids import field_numbers, read_photo_ids
from stages.filter.rows import MetadataError, Scan, resolve
from stages.filter.streams import BLOCK_BYTES, name_of, unpacked
from stages.filter.tsv import scan_lines, split_tsv, tsv_columns

_ENCODED = ("user_name", "device", "title", "description", "user_tags", "machine_tags")
_PLUS, _SPACE, _PERCENT, _NO_DIGIT = 43, 32, 37, 255
_HEX = np.full(256, _NO_DIGIT, np.uint8)
for _digit in range(16):
    _HEX[[ord(f"{_digit:x}"), ord(f"{_digit:X}")]] = _digit


def scan_yfcc(
    file: BinaryIO, ids_file: BinaryIO, spec: SourceSpec, matcher: Matcher, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[Scan]:
    """Scan a file of YFCC100M records for keywords in those whose photo id is listed; the others are no rows.

    A line with the wrong number of fields and no photo id where it belongs may be of a listed photo: a bad row. So is a
    video that matches.

    Args:
        file: An open file of bytes, packed or not.
        ids_file: The list (`read_photo_ids`), packed or not.
        spec: The source; `headers` are the layouts of records.
        matcher: The keywords.
        block_bytes: Bytes read at a time; what is found does not depend on it.

    Yields:
        Scans of a block or less, in file order. A row's position is its line in `file`, from 0.

    Raises:
        MetadataError: A file is damaged or empty, or less than half of its first lines are of such a layout, or their
            urls look like none.
    """
    name = name_of(file)
    listed = read_photo_ids(ids_file, block_bytes=max(block_bytes, 1 << 16))
    columns, stream = tsv_columns(unpacked(file, name), spec, name)
    layout = resolve(spec, columns, name)
    if "source_key" not in layout.fields:
        raise MetadataError(f"{name}: no column of source {spec.key} holds the photo id ({', '.join(columns)})")
    at = columns.index(layout.fields["source_key"])

    def counted(block: Block) -> Mask:
        ids, numeric = field_numbers(block, at)
        return np.where(numeric, _is_in(ids, listed), block.fields != len(columns))

    reading = Reading(
        columns, layout, matcher, split_tsv, counted=counted, plain=form_decoded, values=_values, problem=_problem
    )
    yield from scan_lines(stream, reading, block_bytes)


def form_decoded(lines: pa.StringArray) -> pa.StringArray:
    """Decode form-encoded texts: "+" is a space, "%" and two hexadecimal digits a byte; any other "%" is itself.

    Args:
        lines: The texts, without nulls; of an array that begins at its buffers' start.

    Returns:
        The texts decoded; not checked to be UTF-8.
    """
    offsets = np.frombuffer(lines.buffers()[1], np.int32)[: len(lines) + 1]
    data = np.frombuffer(lines.buffers()[2] or b"", np.uint8)[: offsets[-1]]
    text = np.where(data == _PLUS, np.uint8(_SPACE), data)
    places = np.flatnonzero(data == _PERCENT)
    places = places[places + 2 < offsets[np.searchsorted(offsets, places, side="right")]]
    high, low = _HEX[data[places + 1]], _HEX[data[places + 2]]
    real = (high != _NO_DIGIT) & (low != _NO_DIGIT)
    places = places[real]
    text[places] = high[real] * 16 + low[real]
    kept = np.ones(len(text), np.bool_)
    kept[places + 1] = kept[places + 2] = False
    # An escape ends in the text it begins in, so that two bytes are gone for each that begins before an offset.
    moved = (offsets - 2 * np.searchsorted(places, offsets)).astype(np.int32)
    return pa.StringArray.from_buffers(len(lines), pa.py_buffer(moved), pa.py_buffer(text[kept].tobytes()))


def _is_in(ids: Places, listed: Places) -> Mask:
    found: Mask = listed[np.minimum(np.searchsorted(listed, ids), len(listed) - 1)] == ids
    return found


def _values(written: dict[str, bytes]) -> dict[str, Any]:
    """Decode what is encoded. Tags are told apart before: a comma in one is encoded."""
    read: dict[str, Any] = dict(written)
    for column in _ENCODED:
        if column in written:
            read[column] = _decode(written[column])
    if "user_tags" in written:
        read["user_tags"] = [_decode(tag) for tag in written["user_tags"].split(b",")]
    if written.get("date_taken") == b"null":
        read["date_taken"] = None
    return read


def _decode(value: bytes) -> bytes:
    return unquote_to_bytes(value.replace(b"+", b" "))


def _problem(read: Mapping[str, Any]) -> str:
    return "a video, not a photo" if read.get("marker") == b"1" else ""

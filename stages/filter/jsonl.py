"""Scan of JSON lines: one JSON object a line, packed or not."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from manifests.sources import SourceSpec
from stages.filter.matcher import Matcher
from stages.filter.records import BLOCK_ROWS, Record, scan_records
from stages.filter.rows import MetadataError, Scan, resolve
from stages.filter.streams import BLOCK_BYTES, MAX_LINE_BYTES, name_of, text_lines, unpacked


def scan_jsonl(file: BinaryIO, spec: SourceSpec, matcher: Matcher, *, block_bytes: int = BLOCK_BYTES) -> Iterator[Scan]:
    """Scan a file of JSON lines for keywords.

    A line that is too long, is not UTF-8, holds anything but one JSON object, a name twice, or what JSON has no word
    for (NaN, infinity, half a surrogate pair) is a bad row, whatever it says.

    Args:
        file: An open file of bytes, packed or not.
        spec: The source it belongs to; its columns are names of the objects.
        matcher: The keywords.
        block_bytes: Bytes read at a time, and about what of the file is in memory as objects.

    Yields:
        One scan a block, in file order; none for an empty file. A row's position is its line, from 0.

    Raises:
        MetadataError: The file is damaged, no line of its first block is an object, or none of these has the url or a
            text.
    """
    name = name_of(file)
    known: dict[str, None] = {}
    for block in _blocks(unpacked(file, name), block_bytes):
        here = dict.fromkeys(column for record in block for column in record.values)
        if not known:
            if not here:
                raise MetadataError(_no_objects(block, name))
            layout = resolve(spec, tuple(here), name)
            known = dict.fromkeys([*layout.text, *layout.fields.values()])
        # Names that only some objects have are columns of their own block alone: there may be ever new ones.
        yield from scan_records(block, tuple(known | here), spec, matcher, name)


def _blocks(stream: BinaryIO, block_bytes: int) -> Iterator[list[Record]]:
    block: list[Record] = []
    size = 0
    for row, line in enumerate(text_lines(stream, block_bytes)):
        block.append(_record(row, line))
        size += len(line or b"")
        if len(block) == BLOCK_ROWS or size > block_bytes:
            yield block
            block, size = [], 0
    if block:
        yield block


def _record(row: int, line: bytes | None) -> Record:
    if line is None:
        return Record(row, {}, f"a line of more than {MAX_LINE_BYTES} bytes")
    try:
        values = _JSON.decode(line.decode())
        if b"\\ud" in line.lower():
            json.dumps(values, ensure_ascii=False).encode()
    except UnicodeError:
        return Record(row, {}, "not UTF-8")
    except RecursionError:
        return Record(row, {}, "JSON nested too deep")
    except ValueError as error:
        return Record(row, {}, f"not a JSON object: {error}")
    if not isinstance(values, dict):
        return Record(row, {}, f"not a JSON object but {type(values).__name__}")
    return Record(row, values)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError(f"{Counter(name for name, _ in pairs).most_common(1)[0][0]!r} stands twice")
    return values


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits} is too large a number")
    return value


def _no_objects(block: list[Record], name: str) -> str:
    why = block[0].problem or "an object without a name"
    return (
        f"{name}: none of its first {len(block)} lines is a JSON object that names anything; the first is {why}. "
        "Write one object a line; a JSON array or an indented file is none of that."
    )


_JSON = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite)

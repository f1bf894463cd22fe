"""Scan of JSON lines: one JSON object a line, packed or not."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, BinaryIO

from manifests.sources import SourceSpec
from stages.filter.matcher import Matcher
from stages.filter.records import BLOCK_ROWS, Record, scan_records
from stages.filter.rows import MetadataError, Scan, check_names
from stages.filter.streams import BLOCK_BYTES, MAX_LINE_BYTES, name_of, text_lines, unpacked

HEAD_ROWS = 4_096
"""A file is of another source if so many first lines name no url, or no text."""
_HEAD_NAMES = 1_000


def scan_jsonl(file: BinaryIO, spec: SourceSpec, matcher: Matcher, *, block_bytes: int = BLOCK_BYTES) -> Iterator[Scan]:
    """Scan a file of JSON lines for keywords.

    A line that is too long, is not UTF-8, holds anything but one JSON object, a name twice, or what JSON has no word
    for (NaN, infinity, half a surrogate pair) is a bad row, whatever it says.

    Args:
        file: An open file of bytes, packed or not.
        spec: The source it belongs to; its columns are names of the objects.
        matcher: The keywords.
        block_bytes: Bytes read at a time, and about what of the file is in memory as objects; what is found does not
            depend on it.

    Yields:
        One scan a block, in file order; none for an empty file. A row's position is its line, from 0.

    Raises:
        MetadataError: The file is damaged, none of its first `HEAD_ROWS` lines is an object, or none of these has the
            url, or none a text.
    """
    name = name_of(file)
    head = _Head(spec, name)
    for block in _blocks(unpacked(file, name), block_bytes):
        head.look(block)
        yield from scan_records(block, spec, matcher)
    head.judge()


class _Head:
    """The names that the first lines of a file have, until they hold what the source needs."""

    def __init__(self, spec: SourceSpec, name: str) -> None:
        self._spec = spec
        self._name = name
        self._names: dict[str, None] = {}
        self._wanted = {text.lower() for text in (*spec.columns.url, *spec.text, *chain(*spec.instead.values()))}
        self._lines = 0
        self._first = ""
        self._done = False

    def look(self, block: Sequence[Record]) -> None:
        """Look at the next lines. Raises MetadataError where enough of them were none of this source."""
        for record in block:
            if self._done:
                return
            if not self._lines:
                self._first = record.problem or "an object without a name"
            self._lines += 1
            new = [name for name in record.values if name not in self._names]
            # There may be ever new ones: beyond those that an error may show, the wanted ones alone.
            room = max(0, _HEAD_NAMES - len(self._names))
            self._names |= dict.fromkeys([*new[:room], *(name for name in new[room:] if name.lower() in self._wanted)])
            if self._lines == HEAD_ROWS or (new and self._holds_enough()):
                self.judge()
                self._done = True

    def judge(self) -> None:
        """Raise MetadataError unless there is no line, or what was seen is of this source."""
        if self._done or not self._lines:
            return
        if not self._names:
            raise MetadataError(
                f"{self._name}: none of its first {self._lines} lines is a JSON object that names anything; the first "
                f"is {self._first}. Write one object a line; a JSON array or an indented file is none of that."
            )
        check_names(self._spec, tuple(self._names), self._name)

    def _holds_enough(self) -> bool:
        try:
            check_names(self._spec, tuple(self._names), self._name)
        except MetadataError:
            return False
        return True


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


_JSON = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite)

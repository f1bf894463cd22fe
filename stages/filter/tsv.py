r"""Scan of TSV metadata: streaming, bounded memory.

TSV is not CSV: a quote is text, nothing is escaped, a tab ends a field and "\n" alone ends a line ("\r" before it
belongs to the line end; anywhere else it is text). A byte order mark at the start of the file is not text. There is no
header.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from manifests.sources import SourceSpec
from stages.filter.matcher import Matcher
from stages.filter.rows import HITS, Layout, Scan, find, flat_texts, make_hit, resolve
from stages.filter.values import detail

BLOCK_BYTES = 4 << 20
"""Bytes read at a time."""
MAX_LINE_BYTES = 1 << 20
"""A longer line, its end not counted, is a bad row."""

_TAB, _NEWLINE = 9, 10
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def scan_tsv(file: BinaryIO, spec: SourceSpec, matcher: Matcher, *, block_bytes: int = BLOCK_BYTES) -> Iterator[Scan]:
    """Scan a TSV file for keywords.

    A line that is too long, is not UTF-8 or has the wrong number of fields is a bad row, whatever it says.

    Args:
        file: An open file of bytes, uncompressed.
        spec: The source it belongs to; `headers` names the fields.
        matcher: The keywords.
        block_bytes: Bytes read at a time; what is found does not depend on it.

    Yields:
        One scan a block, in file order; none for an empty file. A row's position is its line, from 0.

    Raises:
        MetadataError: The source names no url or text column.
    """
    name = str(getattr(file, "path", None) or getattr(file, "name", "metadata file"))
    columns = spec.headers[0]
    layout = resolve(spec, columns, name)
    row = 0
    for block in _blocks(file, block_bytes):
        scan = _scan_block(block, row, columns, layout, matcher)
        row += scan.rows_seen
        yield scan


def _blocks(file: BinaryIO, block_bytes: int) -> Iterator[bytes]:
    """Yield whole lines, each with its newline; a line over the bound is cut, but stays over it."""
    rest = b""
    start = True
    while data := file.read(block_bytes):
        data = rest + data
        if start and len(data) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(data):
            rest = data
            continue
        if start:
            data, start = data.removeprefix(_BYTE_ORDER_MARK), False
        end = data.rfind(b"\n") + 1
        rest = data[end : end + MAX_LINE_BYTES + 1]
        if end:
            yield data[:end]
    rest = rest.removeprefix(_BYTE_ORDER_MARK) if start else rest
    if rest:
        yield rest + b"\n"


def _scan_block(block: bytes, first_row: int, columns: tuple[str, ...], layout: Layout, matcher: Matcher) -> Scan:
    data = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(data == _NEWLINE)
    offsets = np.concatenate(([0], ends + 1)).astype(np.int32)
    lines = pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(block))
    long = ends - offsets[:-1] > MAX_LINE_BYTES
    garbled = _garbled(lines)
    fields = np.diff(np.searchsorted(np.flatnonzero(data == _TAB), offsets)) + 1
    odd = fields != len(columns)
    refused = long | garbled | odd
    bad = [
        (first_row + line, _why(bool(long[line]), bool(garbled[line]), int(fields[line]), columns))
        for line in np.flatnonzero(refused).tolist()
    ]
    # The whole line is looked at, url and all, because its texts stand inside; find() decides on the texts alone.
    possible = matcher.possible(lines).to_numpy(zero_copy_only=False) & ~refused
    hits: list[dict[str, Any]] = []
    for line in np.flatnonzero(possible).tolist():
        values = block[offsets[line] : ends[line]].removesuffix(b"\r").split(b"\t")
        raw = dict(zip(columns, values, strict=True))
        texts = flat_texts(raw[name] for name in layout.text)
        found = find(texts, layout, matcher)
        if matcher.accepts(found[1]):
            rest = {name: value.decode() for name, value in raw.items() if name not in layout.text}
            hits.append(make_hit(first_row + line, texts, found, rest, layout))
    return Scan(len(ends), pa.Table.from_pylist(hits, HITS), tuple(bad))


def _garbled(lines: pa.StringArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Tell which lines are not UTF-8; line by line only where the whole is not."""
    garbled = np.zeros(len(lines), np.bool_)
    try:
        lines.validate(full=True)
    except pa.ArrowInvalid:
        for line, value in enumerate(lines.cast(pa.binary()).to_pylist()):
            try:
                value.decode()
            except UnicodeDecodeError:
                garbled[line] = True
    return garbled


def _why(long: bool, garbled: bool, fields: int, columns: tuple[str, ...]) -> str:
    if long:
        return f"a line of more than {MAX_LINE_BYTES} bytes"
    if garbled:
        return "not UTF-8"
    return detail(f"{fields} fields where {len(columns)} are expected: {', '.join(columns)}")

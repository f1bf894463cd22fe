"""Which columns a file of lines has: its first line says so, or the number of its fields does; both are checked.

A count of fields alone proves nothing: two sources have two columns each, in another order. Hence the url column must
hold urls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

import numpy as np

from manifests.sources import SourceSpec
from stages.filter.line_blocks import Block
from stages.filter.rows import MetadataError, resolve
from stages.filter.streams import MAX_LINE_BYTES, again, ahead
from stages.filter.values import detail

HEAD_BYTES = 2 << 20
"""What a file is told by: so many bytes of records."""
MAX_HEADER_BYTES = 16 << 10
"""A longer first line names no columns."""

# Any scheme: whether a url can be asked for is for each row. A caption seldom begins with a word and a colon.
_URL = re.compile(rb"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Cutting:
    """How the bytes of a format become records and fields.

    Attributes:
        cut: Cuts whole lines into records that should have so many fields.
        split: Cuts a record into its fields; ValueError for one that cannot be cut.
    """

    cut: Callable[[bytes, int], Iterable[Block]]
    split: Callable[[bytes], list[bytes]]


@dataclass(frozen=True, slots=True)
class _Sample:
    """The first records of a file, read under one header.

    Attributes:
        names: The header.
        url: Which of its columns holds the url.
        first: Where in the file the first record that fits begins; -1 for none.
        fits: Records that fit: as many fields as the header, readable as text.
        records: All of them.
        given: Records that fit and have a url.
        looks: Fields that look like urls, by column.
        example: A url that looks like none; empty where there is none.
    """

    names: tuple[str, ...]
    url: int
    first: int
    fits: int
    records: int
    given: int
    looks: tuple[int, ...]
    example: bytes

    @property
    def has_urls(self) -> bool:
        """Whether half of what stands in the url column, or more, looks like urls; an empty one is neutral."""
        return not self.fits or 0 < self.given <= 2 * self.looks[self.url]


def columns_of(stream: BinaryIO, spec: SourceSpec, cutting: Cutting, name: str) -> tuple[tuple[str, ...], BinaryIO]:
    """Tell the columns of a file, and whether it is of its source.

    Args:
        stream: The file (`unpacked`), at its start.
        spec: The source. Of its `headers`, where it has any, the one most of the first records fit is the file's;
            of two, the one that fits earlier. Where it has none, the first line names the columns.
        cutting: How the format is cut.
        name: What to call the file in an error.

    Returns:
        The names of the columns, and the stream at its first record.

    Raises:
        MetadataError: The file is empty, the header line is missing or lacks the url or a text; of the records of the
            first `HEAD_BYTES` less than half fit any of `headers`; or the url column holds no urls.
    """
    if not spec.headers:
        names, stream = header_line(stream, cutting.split, name)
        return names, with_urls(stream, spec, names, cutting, name)
    head = ahead(stream, HEAD_BYTES)
    if not head:
        raise MetadataError(f"{name}: is empty; it should hold rows of source {spec.key}; fetch it again")
    samples = [_sample(head, names, spec, cutting, name) for names in spec.headers]
    fits = sum(sample.fits for sample in samples)
    if not fits or 2 * fits < max(sample.records for sample in samples):
        raise MetadataError(_misfit(head, samples, spec, cutting, name))
    best = max(samples, key=lambda sample: (sample.fits, -sample.first))
    _check_urls(best, spec, name)
    return best.names, again(head, stream)


def with_urls(stream: BinaryIO, spec: SourceSpec, names: tuple[str, ...], cutting: Cutting, name: str) -> BinaryIO:
    """Check that the url column of a file with a header line holds urls.

    Args:
        stream: The file, at its second line.
        spec: The source.
        names: The columns.
        cutting: How the format is cut.
        name: What to call the file in an error.

    Returns:
        The stream at the second line again.

    Raises:
        MetadataError: There is no url column, no text column, or there are records of this shape and less than half of
            their urls look like urls.
    """
    head = ahead(stream, HEAD_BYTES)
    _check_urls(_sample(head, names, spec, cutting, name), spec, name)
    return again(head, stream)


def header_line(stream: BinaryIO, split: Callable[[bytes], list[bytes]], name: str) -> tuple[tuple[str, ...], BinaryIO]:
    """Read the names of the columns off the first line.

    Args:
        stream: The file (`unpacked`), at its start.
        split: Cuts a line into fields; ValueError for one that cannot be cut.
        name: What to call the file in an error.

    Returns:
        The names, and the stream at the second line.

    Raises:
        MetadataError: There is no such line.
    """
    head = ahead(stream, MAX_HEADER_BYTES)
    line, end, rest = head.partition(b"\n")
    if not head:
        raise MetadataError(f"{name}: is empty; its first line should name the columns; fetch it again")
    if not end and len(head) == MAX_HEADER_BYTES:
        raise MetadataError(f"{name}: its first line should name the columns, but is {_shown(head)}")
    try:
        names = tuple(field.decode() for field in split(line.removesuffix(b"\r")))
    except ValueError as error:
        raise MetadataError(f"{name}: its first line should name the columns, but is {_shown(line)}") from error
    return names, again(rest, stream)


def missing(names: Sequence[str], wanted: Sequence[Sequence[str]]) -> list[str]:
    """Return the alternatives of which a header has none, whatever the case, each as words."""
    known = {name.lower() for name in names}
    return [" or ".join(options) for options in wanted if not known & {option.lower() for option in options}]


def _sample(head: bytes, names: tuple[str, ...], spec: SourceSpec, cutting: Cutting, name: str) -> _Sample:
    url = names.index(resolve(spec, names, name).fields["url"])
    looks = [0] * len(names)
    first, last, fits, records, given, example = -1, 0, 0, 0, 0, b""
    for start, block in _blocks(head, len(names), cutting):
        for index, fields in _fitting(block, len(names), cutting.split):
            if first < 0:
                first = start + int(block.offsets[index])
            fits += 1
            last = records + index + 1
            for column, value in enumerate(fields):
                looks[column] += _URL.match(value) is not None
            if fields[url].strip():
                given += 1
                example = example or (b"" if _URL.match(fields[url]) else fields[url])
        records += len(block.fields)
    if fits and len(head) == HEAD_BYTES:
        # The head may end inside a quoted record of many lines, each of which then seems a bad record.
        records = last
    return _Sample(names, url, first, fits, records, given, tuple(looks), example)


def _blocks(head: bytes, fields: int, cutting: Cutting) -> Iterator[tuple[int, Block]]:
    """Yield the records of the first bytes of a file, with where they begin; a last line that is cut is left out."""
    whole = head if len(head) < HEAD_BYTES else head[: head.rfind(b"\n") + 1] or head
    if whole and not whole.endswith(b"\n"):
        whole += b"\n"
    start = 0
    for block in cutting.cut(whole, fields) if whole else ():
        yield start, block
        start += len(block.body)


def _fitting(block: Block, size: int, split: Callable[[bytes], list[bytes]]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the records of a size that are text, with their fields."""
    for index in np.flatnonzero((block.fields == size) & (block.lengths <= MAX_LINE_BYTES)).tolist():
        record = block.record(index)
        try:
            record.decode()
            fields = split(record)
        except ValueError:
            continue
        if len(fields) == size:
            yield index, fields


def _check_urls(sample: _Sample, spec: SourceSpec, name: str) -> None:
    if sample.has_urls:
        return
    size, column, found = len(sample.names), sample.names[sample.url], sample.looks[sample.url]
    if not sample.given:
        holds = f"holds nothing in its first {sample.fits} records"
    elif not found:
        holds = f"holds no urls, but for example {_shown(sample.example)}"
    else:
        holds = f"holds no urls in most records ({found} of {sample.given}), but for example {_shown(sample.example)}"
    raise MetadataError(
        f"{name}: not a file of source {spec.key}: its column {column}, field {sample.url + 1} of {size}, {holds}."
        f"{_where(sample, bool(spec.headers))} Check that the file belongs to this source, or name its columns in the "
        "recipe."
    )


def _where(sample: _Sample, is_guessed: bool) -> str:
    """Say which column holds urls instead, where one does."""
    most = max(range(len(sample.names)), key=lambda column: sample.looks[column])
    if 2 * sample.looks[most] < sample.fits or most == sample.url:
        return ""
    if not is_guessed:
        return f" Urls stand in {sample.names[most]}, field {most + 1}."
    order = list(sample.names)
    order[most], order[sample.url] = order[sample.url], order[most]
    return f" Urls stand in field {most + 1}: its columns look like {', '.join(order)}."


def _misfit(head: bytes, samples: Sequence[_Sample], spec: SourceSpec, cutting: Cutting, name: str) -> str:
    expected = " or ".join(f"{len(names)} ({', '.join(names)})" for names in spec.headers)
    _, block = next(_blocks(head, len(spec.headers[0]), cutting))
    counts = islice(dict.fromkeys(block.fields.tolist()), 5)
    fits, records = sum(sample.fits for sample in samples), max(sample.records for sample in samples)
    few = f"only {fits} of its first {records} lines are" if fits else "none of its first lines is"
    return (
        f"{name}: {few} of source {spec.key}: {', '.join(map(str, counts))} fields found, "
        f"expected {expected}; the first line is {_shown(block.record(0))}. Check that the file belongs to this source."
    )


def _shown(line: bytes) -> str:
    """Return the start of a line, ASCII and escaped."""
    return f"'{detail(line[:_SHOWN_CHARS].decode(errors='replace'))[:_SHOWN_CHARS]}'"

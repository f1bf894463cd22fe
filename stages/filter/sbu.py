r"""Scan of the SBU captions, in either form they are published in.

One JSON object of parallel arrays: `image_urls`, `captions` and, perhaps, `user_ids`. Or two text files, one of urls
and one of captions, where line i belongs to line i. The first character that is not blank tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import chain, zip_longest
from typing import Any, BinaryIO

from manifests.sources import SourceSpec
from stages.filter.json_items import MissingListError, Refused, items
from stages.filter.matcher import Matcher
from stages.filter.records import Record, scan_records
from stages.filter.rows import MetadataError, Scan
from stages.filter.streams import MAX_LINE_BYTES, name_of, text_lines, unpacked

COLUMNS = ("image_urls", "captions", "user_ids")
"""Arrays of the JSON file, and what the columns of the text files are called too."""

Open = Callable[[], AbstractContextManager[BinaryIO]]

_URLS, _CAPTIONS, _USERS = COLUMNS
_BLANK = b"\xef\xbb\xbf \t\r\n"
_HEAD_BYTES = 1 << 16
_END = object()  # stands for an entry that is not there


def scan_sbu(opened: Open, captions: BinaryIO | None, spec: SourceSpec, matcher: Matcher) -> Iterator[Scan]:
    """Scan the SBU captions for keywords.

    Args:
        opened: Opens the file at its start: the arrays of a JSON file stand one after the other, and each is read by a
            cursor of its own, so that none is held in memory. Both files may be packed with gzip or bzip2.
        captions: The file of captions beside a file of urls; None beside a JSON file.
        spec: The source they belong to.
        matcher: The keywords.

    Yields:
        Scans in file order. A row's position is its place in the arrays, or its line, from 0.

    Raises:
        MetadataError: The file is no JSON or cut short; an array or the file of captions is missing; or there is not
            one caption for each url, so that which belongs to which cannot be told.
    """
    with opened() as file:
        name = name_of(file)
        is_json = _is_json(unpacked(file, name))
    if not is_json and captions is None:
        raise MetadataError(
            f"{name}: no JSON, and no file of captions beside it. Name the JSON file (sbu-captions-all.json), or both "
            "text files, of urls and of captions."
        )
    records = _of_lines(opened, captions, name) if captions and not is_json else _of_arrays(opened, name)
    yield from scan_records(records, COLUMNS, spec, matcher, name)


def _is_json(file: BinaryIO) -> bool:
    while data := file.read(_HEAD_BYTES):
        if rest := data.lstrip(_BLANK):
            return rest[:1] in (b"{", b"[")
    return False


def _of_arrays(opened: Open, name: str) -> Iterator[Record]:
    with ExitStack() as stack:
        names = [_URLS, _CAPTIONS]
        *cursors, users = (items(unpacked(stack.enter_context(opened()), name), array, name) for array in COLUMNS)
        try:
            first = next(users, _END)
        except MissingListError:
            pass
        else:
            names.append(_USERS)
            cursors.append(users if first is _END else chain([first], users))
        for row, entries in enumerate(_in_step(cursors, names, name)):
            values = dict(zip(names, entries, strict=True))
            refused = [f"{array}: {entry.why}" for array, entry in values.items() if isinstance(entry, Refused)]
            yield Record(row, {} if refused else values, ", ".join(refused))


def _of_lines(opened: Open, captions: BinaryIO, name: str) -> Iterator[Record]:
    with opened() as file:
        lines = [text_lines(unpacked(file, name)), text_lines(unpacked(captions, name_of(captions)))]
        for row, (url, caption) in enumerate(_in_step(lines, ["the file of urls", "the file of captions"], name)):
            if url is None or caption is None:
                yield Record(row, {}, f"a line of more than {MAX_LINE_BYTES} bytes")
            else:
                yield Record(row, {_URLS: _decoded(url), _CAPTIONS: _decoded(caption)})


def _in_step(cursors: list[Iterator[Any]], names: list[str], name: str) -> Iterator[tuple[Any, ...]]:
    """Yield what stands at the same place. Raises MetadataError where one ends before the others."""
    for row, entries in enumerate(zip_longest(*cursors, fillvalue=_END)):
        if any(entry is _END for entry in entries):
            rest = (0 if entry is _END else 1 + _count(cursor) for entry, cursor in zip(entries, cursors, strict=True))
            told = ", ".join(f"{given} has {row + more} entries" for given, more in zip(names, rest, strict=True))
            raise MetadataError(
                f"{name}: which caption belongs to which picture cannot be told: {told}. Fetch the files again."
            )
        yield entries


def _count(coming: Iterable[object]) -> int:
    return sum(1 for _ in coming)


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")

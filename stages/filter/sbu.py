r"""Scan of the SBU captions, in either form they are published in.

One JSON object of parallel arrays, as published `image_urls`, `captions` and, perhaps, `user_ids`; the source names
them, spelt exactly as in the file. Or two text files, one of urls and one of captions, where line i belongs to line i.
The first character that is not blank tells the two forms apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from itertools import chain, zip_longest
from typing import Any, BinaryIO

from manifests.sources import SourceSpec
from stages.filter.json_items import MissingListError, Refused, items
from stages.filter.matcher import Matcher
from stages.filter.records import Record, scan_records
from stages.filter.rows import MetadataError, Scan
from stages.filter.streams import MAX_LINE_BYTES, name_of, text_lines, unpacked

Open = Callable[[], AbstractContextManager[BinaryIO]]

_BLANK = b"\xef\xbb\xbf \t\r\n"
_HEAD_BYTES = 1 << 16
_END = object()  # stands for an entry that is not there


def scan_sbu(opened: Open, captions: BinaryIO | None, spec: SourceSpec, matcher: Matcher) -> Iterator[Scan]:
    """Scan the SBU captions for keywords.

    Args:
        opened: Opens the file at its start: the arrays of a JSON file stand one after the other, and each is read by a
            cursor of its own, so that none is held in memory. Both files may be packed with gzip or bzip2.
        captions: The file of captions beside a file of urls; None beside a JSON file.
        spec: The source they belong to. The arrays of its url and of its texts must be there, any other it names may.
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
    records = _of_lines(opened, captions, spec, name) if captions and not is_json else _of_arrays(opened, spec, name)
    yield from scan_records(records, spec, matcher)


def _is_json(file: BinaryIO) -> bool:
    while data := file.read(_HEAD_BYTES):
        if rest := data.lstrip(_BLANK):
            return rest[:1] in (b"{", b"[")
    return False


def _of_arrays(opened: Open, spec: SourceSpec, name: str) -> Iterator[Record]:
    with ExitStack() as stack:

        def entries_of(array: str) -> Iterator[object]:
            return items(unpacked(stack.enter_context(opened()), name), array, name)

        needed = [spec.columns.url, *((text, *spec.instead.get(text, ())) for text in spec.text)]
        cursors: dict[str, Iterator[object]] = {}
        for tried in needed:
            cursors |= _first_array(tried, cursors.keys(), entries_of)
        for tried in spec.columns.model_dump(exclude={"url"}).values():
            with suppress(MissingListError):
                cursors |= _first_array(tried, cursors.keys(), entries_of)
        names = list(cursors)
        for row, entries in enumerate(_in_step(list(cursors.values()), names, name)):
            values = dict(zip(names, entries, strict=True))
            refused = [f"{array}: {entry.why}" for array, entry in values.items() if isinstance(entry, Refused)]
            yield Record(row, {} if refused else values, ", ".join(refused))


def _first_array(
    tried: Sequence[str], begun: Collection[str], entries_of: Callable[[str], Iterator[object]]
) -> dict[str, Iterator[object]]:
    """Return the first array that is there, by name; none if it is read already. Raises MissingListError for none."""
    missing: MissingListError | None = None
    for array in tried:
        if array in begun:
            return {}
        coming = entries_of(array)
        try:
            first = next(coming, _END)
        except MissingListError as error:
            missing = missing or error
        else:
            return {array: iter(()) if first is _END else chain([first], coming)}
    if missing:
        raise missing
    return {}


def _of_lines(opened: Open, captions: BinaryIO, spec: SourceSpec, name: str) -> Iterator[Record]:
    url_column, caption_column = spec.columns.url[0], spec.text[0]
    with opened() as file:
        lines = [text_lines(unpacked(file, name)), text_lines(unpacked(captions, name_of(captions)))]
        for row, (url, caption) in enumerate(_in_step(lines, ["the file of urls", "the file of captions"], name)):
            if url is None or caption is None:
                yield Record(row, {}, f"a line of more than {MAX_LINE_BYTES} bytes")
            else:
                yield Record(row, {url_column: _decoded(url), caption_column: _decoded(caption)})


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

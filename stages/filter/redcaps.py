"""Scan of RedCaps: one JSON file a subreddit and year, whose list `annotations` has an object for every picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from manifests.sources import SourceSpec
from stages.filter.json_items import Refused, checked, items
from stages.filter.matcher import Matcher
from stages.filter.records import Record, scan_records
from stages.filter.rows import Scan, resolve
from stages.filter.streams import name_of, unpacked

_LIST = "annotations"


def scan_redcaps(file: BinaryIO, spec: SourceSpec, matcher: Matcher) -> Iterator[Scan]:
    """Scan a RedCaps file for keywords.

    An annotation that is no object is a bad row.

    Args:
        file: The JSON; it may be packed with gzip or bzip2.
        spec: The source it belongs to.
        matcher: The keywords.

    Yields:
        Scans in file order. A row's position is its place in `annotations`, from 0.

    Raises:
        MetadataError: The file is no JSON or cut short, has no `annotations`, or the first of them lack the url
            or a text.
    """
    name = name_of(file)
    _, annotations = checked(items(unpacked(file, name), _LIST, name), lambda keys: resolve(spec, keys, name))
    yield from scan_records(_records(annotations), spec, matcher)


def _records(annotations: Iterator[object]) -> Iterator[Record]:
    for row, annotation in enumerate(annotations):
        if isinstance(annotation, dict):
            yield Record(row, annotation)
        elif isinstance(annotation, Refused):
            yield Record(row, {}, annotation.why)
        else:
            yield Record(row, {}, f"no object but {type(annotation).__name__}")

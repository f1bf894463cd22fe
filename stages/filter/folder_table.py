"""The table of a folder of images: ``metadata.jsonl`` or ``metadata.csv``, as the Hugging Face hub lays folders out."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stages.filter.held_records import read_record
from stages.filter.rows import MetadataError
from stages.members import Archive, inside

TABLE_NAMES = ("metadata.jsonl", "metadata.csv")
MAX_TABLE_BYTES = 1 << 26
"""A table is read whole: this is some hundred thousand rows."""

_FILE_NAME = "file_name"


@dataclass(frozen=True, slots=True)
class FolderTable:
    """What the tables of a folder say.

    Attributes:
        records: Path of an image to its row, without the file name.
        bad: What is wrong with the other rows, in words, in order of table and row.
    """

    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bad: tuple[str, ...] = ()


def read_folder_tables(archive: Archive, paths: Collection[str], images: Collection[str]) -> FolderTable:
    """Read every table of a folder; names in it are relative to the folder that it lies in.

    Args:
        archive: The folder or archive.
        paths: Paths of its files.
        images: Those that are images.

    Raises:
        MetadataError: A table as a whole cannot be read, or has no column ``file_name``.
    """
    records: dict[str, Mapping[str, Any]] = {}
    bad: list[str] = []
    for table in sorted(path for path in paths if path.rpartition("/")[2] in TABLE_NAMES):
        folder = table.rpartition("/")[0]
        for number, record, problem in _rows(table, _body(archive, table)):
            name = record.pop(_FILE_NAME, None)
            path = (inside(f"{folder}/{name}" if folder else name) or "") if isinstance(name, str) else ""
            if not problem and path not in images:
                problem = f"names {name!r}, which is no image here"
            elif not problem and path in records:
                problem = f"names {name!r} again"
            if problem:
                bad.append(f"{table} row {number}: {problem}")
            else:
                records[path] = record
    return FolderTable(records, tuple(bad))


def _body(archive: Archive, table: str) -> bytes:
    piece = archive.read(table, MAX_TABLE_BYTES)
    if piece.problem:
        raise MetadataError(f"{table}: {piece.problem.replace('_', ' ')}: {piece.detail}; split it, or remove it")
    return piece.body


def _rows(table: str, body: bytes) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Yield (number from 1, row, what is wrong with it)."""
    if table.endswith(".jsonl"):
        for number, line in enumerate(body.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
            if line.strip():
                yield number, *_parsed(line)
        return
    try:
        reader = csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        if _FILE_NAME not in (reader.fieldnames or ()):
            raise MetadataError(f"{table}: has no column {_FILE_NAME}; its columns are {reader.fieldnames or 'none'}")
        for number, row in enumerate(reader, 1):
            wide = row.pop(None, None)  # where csv puts cells without a column
            yield number, dict(row), "has more cells than columns" if wide else ""
    except (csv.Error, UnicodeDecodeError) as error:
        raise MetadataError(f"{table}: cannot be read ({error}); mend it or remove it") from error


def _parsed(line: bytes) -> tuple[dict[str, Any], str]:
    try:
        return read_record(line), ""
    except ValueError as error:
        return {}, str(error)

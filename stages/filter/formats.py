"""Which reader scans which format: the only place to add one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from manifests.canonical import JsonValue
from manifests.sources import SourceSpec
from manifests.store import Store
from stages.filter.csv_rows import scan_csv
from stages.filter.jsonl import scan_jsonl
from stages.filter.matcher import Matcher
from stages.filter.parquet import scan_parquet
from stages.filter.redcaps import scan_redcaps
from stages.filter.rows import Scan
from stages.filter.sbu import scan_sbu
from stages.filter.tsv import scan_tsv
from stages.filter.vg import scan_vg
from stages.filter.wit import scan_wit
from stages.filter.yfcc import scan_yfcc
from stages.uris import open_unchanged

_ONE_FILE: Mapping[str, Callable[[BinaryIO, SourceSpec, Matcher], Iterator[Scan]]] = {
    "csv": scan_csv,
    "jsonl": scan_jsonl,
    "redcaps": scan_redcaps,
    "tsv": scan_tsv,
    "wit": scan_wit,
}


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of one partition."""

    store: Store
    params: Mapping[str, JsonValue]

    @property
    def uri(self) -> str:
        return str(self.params["uri"])

    def main(self) -> AbstractContextManager[BinaryIO]:
        """Open the file of rows."""
        return open_unchanged(self.store, self.uri, str(self.params["digest"]))

    def beside(self, role: str) -> AbstractContextManager[BinaryIO] | None:
        """Open the file that stands beside it in a role; None where there is none."""
        named = cast("Mapping[str, Mapping[str, str]]", self.params.get("beside") or {})
        return open_unchanged(self.store, named[role]["uri"], named[role]["digest"]) if role in named else None


def scan_metadata(
    store: Store, source: SourceSpec, params: Mapping[str, JsonValue], matcher: Matcher, scratch: Path
) -> Iterator[Scan]:
    """Scan the metadata file of a partition.

    Args:
        store: The workdir.
        source: The source it is of; no archive.
        params: ``uri`` and ``digest``; ``first_group`` and ``end_group`` of a Parquet file; ``beside``: those by role.
        matcher: The keywords.
        scratch: A local folder for what must lie on a disk.

    Yields:
        Scans in file order.

    Raises:
        MetadataError: The file, or one beside it, is not what its source publishes.
        ChangedFileError: One of them is no longer the file that was planned.
    """
    files = _Files(store, params)
    if source.format == "sbu":
        with ExitStack() as stack:
            beside = files.beside("captions")
            captions = stack.enter_context(beside) if beside else None
            yield from scan_sbu(files.main, captions, source, matcher)
        return
    with ExitStack() as stack:
        file = stack.enter_context(files.main())
        if source.format == "parquet":
            groups = cast("int", params["first_group"]), cast("int", params["end_group"])
            yield from scan_parquet(file, source, *groups, matcher, scratch)
        elif source.format in _WITH_ANOTHER:
            role, scan = _WITH_ANOTHER[source.format]
            beside = files.beside(role)
            if beside is None:
                raise ValueError(f"{files.uri}: the plan names no file of {role} beside it")
            yield from scan(file, stack.enter_context(beside), source, matcher)
        else:
            yield from _ONE_FILE[source.format](file, source, matcher)


_WITH_ANOTHER: Mapping[str, tuple[str, Callable[[BinaryIO, BinaryIO, SourceSpec, Matcher], Iterator[Scan]]]] = {
    "vg": ("images", scan_vg),
    "yfcc": ("ids", scan_yfcc),
}

"""Rows of images that someone already holds, in webdataset tars or folders: one an image, with the text beside it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from manifests.identity import locator, sample_id
from manifests.ledger import Departures
from manifests.schemas import TABLES
from manifests.sources import SourceSpec
from manifests.store import Store
from manifests.tables import empty_frame
from stages.archives import kind_of, open_archive
from stages.filter.archive_scan import ArchiveScan, no_images
from stages.filter.folder_table import FolderTable, read_folder_tables
from stages.filter.held_records import URL, endings_read, layout_of, pick, read_record, read_text, texts_of
from stages.filter.matcher import Matcher
from stages.filter.rows import MetadataError, make_hit
from stages.filter.sidecars import MAX_SIDECAR_BYTES
from stages.filter.values import detail
from stages.held_images import Sample, find_samples
from stages.members import Archive, ArchiveError, Piece


def scan_held(
    store: Store, source: SourceSpec, uri: str, digest: str, matcher: Matcher, max_text_bytes: int
) -> ArchiveScan:
    """Scan a folder or archive; a row's position is its sample's among all samples, sorted by key.

    Rows of a folder's table that name no image are rows too, after the samples. An archive without a member, as
    img2dataset leaves where no download succeeded, has no rows.

    Args:
        store: The workdir.
        source: The source it belongs to.
        uri: Its name.
        digest: Its digest (`archives.archive_digest`).
        matcher: The keywords; decides which rows stay.
        max_text_bytes: A row with a longer text, in UTF-8, leaves.

    Raises:
        MetadataError: It cannot be read, or holds nothing of its layout.
    """
    rows = _Rows(source, digest, matcher, max_text_bytes)
    try:
        with open_archive(store, uri) as archive:
            paths = frozenset(member.path for member in archive.members())
            samples = find_samples(source.format, paths)
            images = {sample.image for sample in samples if sample.image}
            if not images and (kind_of(store, uri) == "folder" or (paths and not samples)):
                raise MetadataError(no_images(uri, source.format))
            table = FolderTable()
            if source.format == "imagefolder":
                table = read_folder_tables(archive, paths, images)
            for row, pieces in _with_pieces(archive, samples, endings_read(source)):
                rows.add(row, archive.name, samples[row], pieces, table.records.get(samples[row].image, {}))
            for row, why in enumerate(table.bad, len(samples)):
                rows.leave(row, "filter.bad_row", detail=detail(why))
            seen, ignored = len(samples) + len(table.bad), archive.ignored + len(paths) - len(images)
    except ArchiveError as error:
        raise MetadataError(str(error)) from error
    return ArchiveScan(rows.frame(), rows.departures, seen, ignored, rows.unmatched)


def _with_pieces(
    archive: Archive, samples: Sequence[Sample], endings: Collection[str]
) -> Iterator[tuple[int, dict[str, Piece]]]:
    """Yield each sample's number with the files read beside it, by ending; in whatever order they are complete."""
    wanted: dict[str, list[tuple[int, str]]] = {}
    missing = [0] * len(samples)
    for number, sample in enumerate(samples):
        for ending in dict.fromkeys(endings):
            if path := sample.beside.get(ending):
                wanted.setdefault(path, []).append((number, ending))
                missing[number] += 1
        if not missing[number]:
            yield number, {}
    have: dict[int, dict[str, Piece]] = {}
    for piece in archive.read_many(wanted, MAX_SIDECAR_BYTES):
        for number, ending in wanted[piece.path]:
            have.setdefault(number, {})[ending] = piece
            missing[number] -= 1
            if not missing[number]:
                yield number, have.pop(number)


class _Rows:
    """The rows of one folder or archive, and the ledger rows beside them."""

    def __init__(self, source: SourceSpec, digest: str, matcher: Matcher, max_text_bytes: int) -> None:
        self._source = source
        self._digest = digest
        self._matcher = matcher
        self._max_text_bytes = max_text_bytes
        self._kept: list[tuple[int, dict[str, Any]]] = []
        self.unmatched = 0
        self.departures = Departures("filter.match")

    def add(
        self, row: int, archive: str, sample: Sample, pieces: Mapping[str, Piece], listed: Mapping[str, Any]
    ) -> None:
        """Take, count or list a sample; the keyword comes first."""
        try:
            record = {**listed, **(read_record(_body(pieces["json"])) if "json" in pieces else {})}
            files = {ending: read_text(_body(piece)) for ending, piece in pieces.items() if ending != "json"}
            texts, used = texts_of(self._source, record, files)
            text = self._source.text_joiner.join(text for text in texts if text.strip())
        except ValueError as error:
            self.leave(row, "filter.bad_row", detail=detail(f"{sample.key}: {error}"))
            return
        matched = self._matcher.keywords(text)
        if not self._matcher.accepts(matched):
            self.unmatched += 1
            return
        if sample.problem:
            self.leave(row, "filter.bad_row", detail=detail(f"{sample.key}: {sample.problem}"))
            return
        url = f"{self._source.key}:{archive}/{sample.image}"
        told = self._told(record, files, used)
        hit = make_hit(row, [], (text, matched), told | {URL: url}, layout_of(self._source, record, used))
        key = hit["source_key"] or sample.key
        identity = sample_id(self._source.key, key, url, ())
        if (text_bytes := len(text.encode())) > self._max_text_bytes:
            evidence = {"url": url, "value": text_bytes, "cut": self._max_text_bytes}
            self.leave(row, "filter.text_too_long", identity, **evidence)
            return
        named = {"sample_id": identity, "locator": locator(self._digest, row), "source_key": key}
        terms = {
            "licence": hit["licence"] or self._source.licence,
            "credit": hit["credit"] or self._source.credit or None,
        }
        self._kept.append((row, {**hit, **named, **terms}))

    def _told(self, record: Mapping[str, Any], files: Mapping[str, str], used: Sequence[str]) -> dict[str, Any]:
        """Return the record with the url it came from as ``url``, and the name in a released tar as ``img_name``."""
        names = self._source.columns.url or ("url",)
        origin = next((found for name in names if (found := pick(name, record))), None)
        told = {name: value for name, value in record.items() if name not in (origin, URL, *used)}
        if "img_name" in files:
            told.setdefault("img_name", files["img_name"])
        return told | ({"url": record[origin]} if origin else {})

    def leave(self, row: int, reason: str, identity: str = "", **evidence: Any) -> None:  # noqa: ANN401
        """List a row that leaves."""
        self.departures.add(self._source.key, identity, reason, locator=locator(self._digest, row), **evidence)

    def frame(self) -> pl.DataFrame:
        """Return the rows that stay, by position."""
        constant = {"source": self._source.key, "subset": self._source.subset}
        rows = [constant | hit for _, hit in sorted(self._kept, key=lambda kept: kept[0])]
        schema = empty_frame(TABLES["matched"]).schema
        return pl.DataFrame({name: [row[name] for row in rows] for name in schema}, schema=schema)


def _body(piece: Piece) -> bytes:
    if piece.problem:
        raise ValueError(f"{piece.path.rpartition('/')[2]}: {piece.problem.replace('_', ' ')}: {piece.detail}")
    return piece.body

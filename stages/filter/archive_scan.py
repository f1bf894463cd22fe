"""Rows of a folder or archive: one an image, whatever its text; what the files beside it say goes into the row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from manifests.identity import locator, sample_id
from manifests.ledger import Departures
from manifests.schemas import TABLES
from manifests.sources import SourceSpec
from manifests.store import Store
from manifests.tables import empty_frame
from stages.archives import open_archive
from stages.filter.patch_table import MAX_TABLE_BYTES, TABLE_NAME, read_patch_table
from stages.filter.rows import MetadataError
from stages.filter.sidecars import MAX_SIDECAR_BYTES, Facts, from_band, read_bigearthnet, read_fmow
from stages.filter.values import canonical, detail
from stages.geotiff import BandError, read_place
from stages.layouts import EXPECTED, Frame, file_of, find_frames, url_of
from stages.members import Archive, ArchiveError, Piece

# Rows whose sidecars are in memory at a time, unless each reading would cost a pass over the archive.
_CHUNK_ROWS = 50_000
# All bands of a patch have one outline; those of 60 m a pixel have the smallest files.
_PLACING_BANDS = ("B01", "B09", "B05", "B02", "B03", "B04")


@dataclass(frozen=True, slots=True)
class ArchiveScan:
    """What filter.match finds in a folder or archive.

    Attributes:
        frame: The rows, of table ``matched``; ``extra`` is the canonical JSON of `Facts.extra`.
        departures: Images that are none of the set's, and those whose sidecar cannot be read.
        seen: Images; of held images, samples and rows of a table.
        ignored: Other members: sidecars, links, hidden files.
        unmatched: Rows without a keyword, of a source whose rows need one.
    """

    frame: pl.DataFrame
    departures: Departures
    seen: int
    ignored: int
    unmatched: int = 0


def scan_archive(store: Store, source: SourceSpec, uri: str, digest: str) -> ArchiveScan:
    """Scan a folder or archive; a row's position is its image's among all images, sorted by path.

    Args:
        store: The workdir.
        source: The source it belongs to.
        uri: Its name.
        digest: Its digest (`archives.archive_digest`).

    Raises:
        MetadataError: It cannot be read, or holds no image of the set.
    """
    departures = Departures("filter.match")
    try:
        with open_archive(store, uri) as archive:
            paths = frozenset(member.path for member in archive.members())
            found = find_frames(source.format, archive.name, paths)
            if not found.any:
                raise MetadataError(no_images(uri, source.format))
            chunk = len(found.frames) if archive.streamed else _CHUNK_ROWS
            parts = []
            for start in range(0, len(found.frames), chunk):
                frames = found.frames[start : start + chunk]
                facts = _FACTS[source.format](archive, frames, paths)
                parts.append(_rows(source, digest, start, frames, facts, departures))
            ignored = archive.ignored + found.others
    except ArchiveError as error:
        raise MetadataError(str(error)) from error
    return ArchiveScan(pl.concat(parts), departures, len(found.frames), ignored)


def no_images(uri: str, layout: str) -> str:
    """Return what is said of a folder or archive without an image of its set."""
    return f"{uri}: holds no image in the layout {EXPECTED[layout]}; check that it belongs to this source"


def _rows(
    source: SourceSpec,
    digest: str,
    start: int,
    frames: Sequence[Frame],
    facts: Mapping[str, Facts | str],
    departures: Departures,
) -> pl.DataFrame:
    kept: list[dict[str, Any]] = []
    for row, frame in enumerate(frames, start):
        place = locator(digest, row)
        if not frame.official:
            why = detail(f"{frame.path} is not in the layout {EXPECTED[source.format]}")
            departures.add(source.key, "", "filter.bad_row", locator=place, detail=why)
            continue
        url = url_of(source.key, frame)
        identity, known = sample_id(source.key, frame.key, url, ()), facts.get(frame.path, Facts())
        if isinstance(known, str):
            departures.add(source.key, identity, "filter.bad_row", locator=place, url=url, detail=detail(known))
        else:
            kept.append({"sample_id": identity, "locator": place, "url": url, **_described(source, frame, known)})
    schema = empty_frame(TABLES["matched"]).schema
    return pl.DataFrame({name: [row.get(name) for row in kept] for name in schema}, schema=schema)


def _described(source: SourceSpec, frame: Frame, facts: Facts) -> dict[str, Any]:
    tags = (frame.label,) if frame.label else facts.tags
    return {
        "source": source.key,
        "subset": source.subset,
        "source_key": frame.key,
        "group": frame.group,
        "text": "",
        "matched": [],
        "width": facts.width,
        "height": facts.height,
        "taken_at": facts.taken_at,
        "tags": [{"name": name, "mid": None, "prob": None} for name in tags] or None,
        "licence": source.licence,
        "credit": source.credit,
        "extra": canonical(facts.extra),
    }


def _fmow(archive: Archive, frames: Sequence[Frame], paths: frozenset[str]) -> dict[str, Facts | str]:
    """Return, by frame, what its sidecar says, or why that cannot be read; nothing for a frame without one."""
    beside = {f"{frame.path.rpartition('.')[0]}.json": frame.path for frame in frames if frame.official}
    wanted = [path for path in beside if path in paths]
    return {beside[piece.path]: _read(piece, read_fmow) for piece in archive.read_many(wanted, MAX_SIDECAR_BYTES)}


def _bigearthnet(archive: Archive, frames: Sequence[Frame], paths: frozenset[str]) -> dict[str, Facts | str]:
    patches = {frame.path: frame for frame in frames if frame.official}
    sidecars = {file_of(frame, "labels_metadata.json"): path for path, frame in patches.items()}
    wanted = {path: patch for path, patch in sidecars.items() if path in paths}
    said: dict[str, Facts | str] = {
        wanted[piece.path]: _read(piece, read_bigearthnet) for piece in archive.read_many(wanted, MAX_SIDECAR_BYTES)
    }
    bands = {band: path for path, frame in patches.items() if path not in said and (band := _band(frame, paths))}
    table = _patch_table(archive, paths, {frame.key for frame in patches.values()}) if bands else {}
    for piece in archive.read_many(bands, MAX_SIDECAR_BYTES):
        frame = patches[bands[piece.path]]
        said[frame.path] = _read(piece, partial(_placed, frame, table))
    return said


def _band(frame: Frame, paths: frozenset[str]) -> str | None:
    named = (file_of(frame, f"{band}.tif") for band in _PLACING_BANDS)
    return next((path for path in named if path in paths), None)


def _placed(frame: Frame, table: Mapping[str, Mapping[str, Any]], body: bytes) -> Facts:
    try:
        place = read_place(body)
    except BandError:
        place = None  # whether the patch can be rendered is for the download stage to say
    return from_band(place, frame.key, table.get(frame.key, {}))


def _patch_table(archive: Archive, paths: frozenset[str], patches: set[str]) -> dict[str, dict[str, Any]]:
    """Return the rows of the metadata.parquet nearest to the root, by patch; none where there is no such file."""
    tables = sorted((p for p in paths if p.rpartition("/")[2] == TABLE_NAME), key=lambda p: (p.count("/"), p))
    if not tables:
        return {}
    piece = archive.read(tables[0], MAX_TABLE_BYTES)
    try:
        if piece.problem:
            raise MetadataError(f"{piece.problem.replace('_', ' ')}: {piece.detail}")
        return read_patch_table(piece.body, patches)
    except MetadataError as error:
        raise MetadataError(f"{tables[0]}: cannot be read ({error}); fetch it again or remove it") from error


def _read(piece: Piece, reader: Callable[[bytes], Facts]) -> Facts | str:
    name = piece.path.rpartition("/")[2]
    if piece.problem:
        return f"{name}: {piece.problem.replace('_', ' ')}: {piece.detail}"
    try:
        return reader(piece.body)
    except ValueError as error:
        return f"{name}: {error}"


def _millionaid(archive: Archive, frames: Sequence[Frame], paths: frozenset[str]) -> dict[str, Facts | str]:
    del archive, frames, paths  # nothing stands beside its images
    return {}


_FACTS = {"fmow": _fmow, "bigearthnet": _bigearthnet, "millionaid": _millionaid}

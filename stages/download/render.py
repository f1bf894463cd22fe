"""Images out of folders and archives: taken as they are, or rendered from bands, where the web would be asked."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from manifests.sources import SourceSpec
from manifests.store import Store
from stages.archives import kind_of, open_archive, own_name
from stages.download.answers import EMPTY, Answer, Limits
from stages.download.media import HEAD_BYTES, describe, sniff
from stages.geotiff import Band, BandError, read_band
from stages.layouts import EXPECTED, Frame, file_of, find_frames, url_of
from stages.members import ArchiveError, Piece
from stages.uris import named

BANDS = ("B04", "B03", "B02")
"""Sentinel-2's red, green and blue (665, 560 and 490 nm), 10 m a pixel."""
STRETCH_PER_MILLE = 995
"""Share of the valid values of all three bands that is not brighter than white."""
WHITE_AT_LEAST = 500
"""Least value shown as white, reflectance 0.05: open water stays dark instead of becoming bright noise."""
MOST_NO_DATA = 0.5
"""A patch of which more is no-data is no picture. Pixels that are 0 in all three bands are no-data."""

# JPEG as the published images are; quality 95 without chroma subsampling keeps 120 x 120 pixels within a grey level or
# two, at a third of a PNG's size.
_JPEG = {"quality": 95, "subsampling": 0, "optimize": False, "progressive": False}


def renderer_of(layout: str) -> str | None:
    """Return what renders the images of a set, with its encoder; None for a set whose images are taken as they are.

    Rows rendered by another are rendered anew, so every part that bytes depend on stands in it.
    """
    if layout != "bigearthnet":
        return None
    return f"ben-rgb-1 jpeg95-444 libjpeg {features.version('libjpeg_turbo') or features.version('jpg')}"


def stretch(red: Band, green: Band, blue: Band) -> NDArray[np.uint8]:
    """Scale three bands to 8 bits by one factor, so that colours keep their hue.

    White is the nearest-rank 99.5 % point of the values of all three bands where any of them is above 0, and at least
    `WHITE_AT_LEAST`; black is 0. Integers throughout: ``min(255, (255 v + white // 2) // white)``.

    Args:
        red: uint16 (height, width); green and blue alike.
        green: See red.
        blue: See red.

    Returns:
        uint8 (height, width, 3).
    """
    bands = np.stack([red, green, blue], axis=2).astype(np.int64)
    values = bands[bands.any(axis=2)].ravel()
    white = WHITE_AT_LEAST
    if values.size:
        rank = -(-STRETCH_PER_MILLE * values.size // 1000)
        white = max(white, int(np.partition(values, rank - 1)[rank - 1]))
    return np.minimum(255, (255 * bands + white // 2) // white).astype(np.uint8)


_NOWHERE = Answer("", "download.no_member", detail="no folder or archive holds it")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A frame to be taken from an archive: its url, and the members it is made of."""

    url: str
    parts: tuple[str, ...]


def take_from_archives(
    store: Store, source: SourceSpec, archives: Sequence[str], urls: Sequence[str], limits: Limits, budget_s: float
) -> Iterator[Answer]:
    """Take images from a source's folders and archives; the first that holds one sound decides.

    Only where none does, the refusal counts: the first that is about an image, before one about a member that cannot
    be read.

    Args:
        store: The workdir.
        source: The source.
        archives: Names or patterns of its folders and archives, as the recipe lists them.
        urls: The images, as filter.match names them.
        limits: What is taken.
        budget_s: Seconds after which no further image is read; those left have no answer.

    Raises:
        ArchiveError: If an archive is damaged as a whole, or is not there: what it holds is not known then.
    """
    ends = time.monotonic() + budget_s
    left, refused = set(urls), dict[str, Answer]()
    uris = _uris(store, source, archives)
    if source.is_held:  # their urls name the archive: of thousands of tars only those asked for are opened
        asked = {url.partition(":")[2].partition("/")[0] for url in urls}
        uris = [uri for uri in uris if own_name(uri) in asked]
    for number, uri in enumerate(uris, 1):
        if not left:
            return
        for answer in _of_archive(store, source, uri, left, limits):
            if answer.reason is not None and refused.get(answer.url, _NOWHERE).reason == _NOWHERE.reason:
                refused[answer.url] = answer
            if answer.reason is None or number == len(uris):  # else another archive may hold it sound
                left.discard(answer.url)
                yield answer if answer.reason is None else refused[answer.url]
            if time.monotonic() > ends:
                return
    for url in sorted(left):
        yield refused.get(url) or replace(_NOWHERE, url=url)


def _uris(store: Store, source: SourceSpec, archives: Sequence[str]) -> list[str]:
    """Return the names that patterns stand for; each stood for something when the build was planned."""
    found = {pattern: named(store, pattern) for pattern in archives}
    for pattern, uris in found.items():
        if not uris:
            raise ArchiveError(f"sources.{source.key}.metadata: {pattern} matches nothing; is its disk mounted here?")
    return [uri for uris in found.values() for uri in uris]


def _of_archive(store: Store, source: SourceSpec, uri: str, urls: set[str], limits: Limits) -> Iterator[Answer]:
    with open_archive(store, uri) as archive:
        found = find_frames(source.format, archive.name, (member.path for member in archive.members()))
        if not found.any and kind_of(store, uri) == "folder":  # as a disk leaves its mount point
            raise ArchiveError(
                f"{uri}: holds no image in the layout {EXPECTED[source.format]}; is its disk mounted here?"
            )
        wanted: dict[str, _Wanted] = {}
        for frame in found.frames:
            url = url_of(source.key, frame)
            if frame.official and url in urls and url not in wanted:
                wanted[url] = _Wanted(url, _parts(source.format, frame))
        owners = {part: of for of in wanted.values() for part in of.parts}
        judge = _rendered if source.format == "bigearthnet" else _as_it_is
        pieces: dict[str, list[Piece]] = {}
        for piece in archive.read_many(owners, limits.max_bytes):
            of = owners[piece.path]
            have = pieces.setdefault(of.url, [])
            have.append(piece)
            if len(have) == len(of.parts):
                yield judge(of, pieces.pop(of.url), limits)


def _parts(layout: str, frame: Frame) -> tuple[str, ...]:
    if layout != "bigearthnet":
        return (frame.path,)
    return tuple(file_of(frame, f"{band}.tif") for band in BANDS)


def _as_it_is(of: _Wanted, pieces: list[Piece], limits: Limits) -> Answer:
    (piece,) = pieces
    if piece.problem:
        return _refused(of.url, piece, limits)
    media = sniff(piece.body[:HEAD_BYTES]) if piece.body else EMPTY
    if media is None:
        return Answer(of.url, "download.not_image", detail=describe(piece.body[:1024]))
    return _within(Answer(of.url, None, piece.body, media), limits)


def _rendered(of: _Wanted, pieces: list[Piece], limits: Limits) -> Answer:
    """Render a patch from its three bands."""
    by_path = {piece.path: piece for piece in pieces}
    ordered = [(band, by_path[path]) for band, path in zip(BANDS, of.parts, strict=True)]
    missing = [band for band, piece in ordered if piece.problem == "gone"]
    if missing:
        return Answer(of.url, "download.missing_band", detail=f"no {', '.join(missing)}")
    bands: list[Band] = []
    for band, piece in ordered:
        if piece.problem:
            return _refused(of.url, piece, limits)
        try:
            bands.append(read_band(piece.body))
        except BandError as error:
            return Answer(of.url, "download.not_image", detail=f"{band}: {error}")
    sizes = sorted({f"{band.shape[1]} x {band.shape[0]}" for band in bands})
    if len(sizes) > 1:
        return Answer(of.url, "download.not_image", detail=f"bands of different sizes: {', '.join(sizes)}")
    no_data = 1 - float((bands[0] | bands[1] | bands[2]).astype(np.bool_).mean())
    if no_data > MOST_NO_DATA:
        return Answer(of.url, "download.no_data", value=round(no_data, 6), cut=MOST_NO_DATA)
    out = io.BytesIO()
    Image.fromarray(stretch(*bands)).save(out, format="JPEG", **_JPEG)
    return _within(Answer(of.url, None, out.getvalue(), "jpeg"), limits)


def _within(answer: Answer, limits: Limits) -> Answer:
    if answer.media_type != EMPTY and answer.media_type not in limits.media:
        return Answer(answer.url, "download.not_image", detail=f"{answer.media_type} is not taken")
    return answer


def _refused(url: str, piece: Piece, limits: Limits) -> Answer:
    if piece.problem == "too_large":
        return Answer(url, "download.too_large", value=float(piece.detail), cut=float(limits.max_bytes))
    name = piece.path.rpartition("/")[2]
    return Answer(url, "download.no_member", detail=f"{name} {piece.detail}")

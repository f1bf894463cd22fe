"""The mini world: about 3,300 rows of eleven web sources and three archives, over real imagery and other pictures."""

from collections.abc import Callable
from pathlib import Path

from pipeline.world.captions import FOREIGN
from pipeline.world.copies import NearCopies, distinct
from pipeline.world.draft import Draft, Row
from pipeline.world.grounds import camera_note
from pipeline.world.mini_archives import add_archives
from pipeline.world.pictures import other_pictures, tile_pictures
from pipeline.world.plain import plain_rows
from pipeline.world.publish import (
    Spelling,
    add_refused_rows,
    add_stray_quote,
    other_source,
    publish,
    publish_bytes_again,
    publish_failures,
    publish_near,
    publish_url_again,
    repeat_rows,
    weighted_source,
)
from pipeline.world.small_sources import Amount, Plan, add_small_sources

_PLAIN_ROWS = {"laion2b": 780, "laion400m": 190, "laioncoco": 400, "coyo700m": 300, "cc3m": 110, "cc12m": 150}
_FAILURES = {
    "404": 18, "410": 4, "403": 6, "400": 2, "html": 5, "svg": 1, "redirect_loop": 2, "bad_scheme": 1, "too_large": 1,
    "too_large_undeclared": 1, "short_body": 2, "always500": 3, "reset": 3, "drip": 2, "refuses": 4, "nowhere": 3,
    "empty": 3, "truncated_file": 5, "huge_pixels": 1,
}  # fmt: skip
_SMALL = Plan(
    amounts={
        "yfcc14m": Amount(alone=3, shared=12, plain=36),
        "wit": Amount(alone=3, shared=14, plain=46),
        "redcaps": Amount(alone=3, shared=9, plain=36),
        "sbu": Amount(alone=2, shared=4, plain=22),
        "vg": Amount(alone=2, shared=2, plain=16),
        "cc3m": Amount(alone=1, shared=5, plain=10),
    },
    failures={"404": 5, "410": 1, "html": 1, "truncated_file": 1, "reset": 1},
    foreign=FOREIGN,
    note=camera_note,
    passed_over=8,
    long_text=True,
)
_SPELLINGS: dict[int, Spelling] = {0: "fragment", 24: "upper"}
_BEHAVIOURS = {8: "flaky", 13: "flaky429", 21: "slow", 34: "redirect"}

STAGED = (
    "every url, host, caption and number other than size and position was made for this world",
    "the web behind the urls is one server on this machine",
    "which source names a picture is invented; files have the published layouts of the eleven sources",
    "texts beside photographs, prints, drawn maps and synthetic pictures are invented false positives",
    "copies (same url, same bytes, re-encoded, resized) and failing urls are staged, as truth.parquet says row by row",
    "records of the YFCC-like source tell true positions; times but the drone's, and all else they say, are invented",
    "labels in CC3M's layout are true of tiles; MIDs and probabilities are invented",
    "drawn maps (etopo1, shadedrelief, dem) are made from elevation data, synthetic pictures by formula: no imagery",
    "archives/fmow and archives/millionaid.zip hold tiles of this world in those sets' layouts, no image of theirs",
    "in fMoW-like sidecars class, country, outline are true unless truth.parquet says otherwise; the rest is invented",
    "two patches of archives/bigearthnet are damaged copies under invented names",
    "each drone tile (awpe) carries the position and time of the whole photograph in its EXIF",
)
REAL = (
    "tiles are windows of real imagery: airborne camera, drone, Landsat 7, Blue Marble; NOTICE names the sources",
    "captions of tiles are true of their class, place names and coordinates included",
    "six patches of archives/bigearthnet are BigEarthNet's own, labels, place and date included",
    "six old photographs and two printed illustrations are real",
)


def draft_mini(wheel_paths: dict[str, Path], say: Callable[[str], None]) -> Draft:
    """Return the mini world's content.

    Args:
        wheel_paths: Checked wheels by name.
        say: Called with lines of progress.

    Raises:
        WorldError: A source picture is missing or cannot be decoded.
    """
    say("cutting tiles from real imagery")
    pictures = distinct([*tile_pictures(wheel_paths), *other_pictures(wheel_paths, say)])
    copies = NearCopies(pictures)
    draft = Draft()
    say(f"publishing {len(pictures)} pictures")
    for number, picture in enumerate(pictures):
        source = weighted_source("first", picture.name)
        first = publish(draft, picture, source, _BEHAVIOURS.get(number % 55, "ok"))
        _publish_copies(draft, copies, first, number)
    jpegs = [picture for picture in pictures if picture.kind == "tile" and picture.image.suffix == "jpg"]
    publish_failures(draft, _FAILURES, jpegs)
    add_refused_rows(draft, jpegs[0].texts, long_text=True)
    add_stray_quote(draft, "cc12m")
    repeat_rows(draft, ("laion2b", "cc3m"))
    add_small_sources(draft, _SMALL, jpegs)
    add_archives(draft, pictures, wheel_paths)
    for source, count in _PLAIN_ROWS.items():
        draft.rows += plain_rows(source, count)
    return draft


def _publish_copies(draft: Draft, copies: NearCopies, first: Row, number: int) -> None:
    """Stage the copies of one picture: two in three pictures have some, a few have many."""
    picture = first.picture
    if picture is None or number % 3 == 2:
        return
    taken = [first.source]
    for turn in range(1 + (number % 4 == 0)):
        taken.append(other_source(tuple(taken), "url", picture.name, turn))
        publish_url_again(
            draft, first, taken[-1], turn + 1, _SPELLINGS.get(number % 48, "same") if not turn else "same"
        )
    if number % 2 == 0:
        publish_bytes_again(draft, first, weighted_source("bytes", picture.name), turn=number)
    if number % 3 == 1:
        for copy in copies.encoded_again(picture, 55 + number % 4 * 5):
            publish_near(draft, first, copy, "again", weighted_source("again", picture.name), turn=number + 1)
    if number % 4 == 3:
        for copy in copies.shrunk(picture, 0.75):
            publish_near(draft, first, copy, "small", weighted_source("small", picture.name), turn=number + 2)

"""The nano world: about 130 rows over generated textures, no download, built in a second; laws are tested on it."""

import numpy as np

from manifests.identity import draw
from pipeline.world.archive_files import (
    MILLIONAID,
    Reflectances,
    add_fmow,
    add_millionaid,
    add_millionaid_failures,
    add_patch,
    patch_files,
)
from pipeline.world.copies import NearCopies, distinct
from pipeline.world.draft import TABLES, Draft, Picture
from pipeline.world.drawings import texture
from pipeline.world.grounds import Ground
from pipeline.world.images import Format, encode
from pipeline.world.plain import plain_rows
from pipeline.world.publish import (
    add_refused_rows,
    other_source,
    publish,
    publish_bytes_again,
    publish_failures,
    publish_near,
    publish_url_again,
    repeat_rows,
)
from pipeline.world.small_sources import SMALL, Amount, Plan, add_small_sources

_PICTURES = 20
_SENTENCES = (
    "Aerial view, generated texture number {}",
    "Satellite image that is really a formula, number {}",
    "Remote sensing test pattern {}",
)
_FAILURES = {
    "404": 2, "410": 1, "html": 1, "empty": 1, "truncated_file": 1, "refuses": 1, "nowhere": 1, "always500": 1,
    "drip": 1, "short_body": 1, "huge_pixels": 1,
}  # fmt: skip
_BEHAVIOURS = {3: "redirect", 8: "flaky", 13: "flaky429"}

# In the archives: textures of their own, so that none is a copy of a picture on the web.
_FMOW = (("airport", 0, 100), ("airport", 1, 101), ("stadium", 0, 102))
_MILLIONAID_TEXTURES = (110, 111, 112, 114)
_PATCHES = ("S2A_MSIL2A_20170613T101031_1_2", "S2A_MSIL2A_20171221T112501_3_4", "S2B_MSIL2A_20180204T94161_5_6")
_PATCH_SIDE = 24
_GROUND = Ground("FRA", "31T", 2.0, 47.0, 2.01, 47.01, 0.5)

_SMALL = Plan(
    amounts={source: Amount(alone=int(source == "yfcc14m"), shared=2, plain=2) for source in SMALL},
    failures={"404": 5},
    foreign=(("de", "Landsat-Aufnahme, die eine Formel ist"),),
    note=lambda _: {"lon": "2.35", "lat": "48.85", "taken": "2017-06-13 10:10:31.0", "device": "Invented Camera 2"},
    passed_over=2,
    long_text=False,
)

STAGED = (
    "every image is a generated texture; nothing in this world is a photograph",
    "every caption, url, host and number is invented",
    "archives/ copies the layouts of fMoW, BigEarthNet and MillionAID and holds no image of theirs",
    "copies (same url, same bytes, re-encoded, resized) and failing urls are staged, as truth.parquet says row by row",
)
REAL: tuple[str, ...] = ()


def draft_nano() -> Draft:
    """Return the nano world's content."""
    draft = Draft()
    pictures = distinct([_picture(number) for number in range(_PICTURES)])
    copies = NearCopies(pictures)
    for number, picture in enumerate(pictures):
        source = TABLES[number % len(TABLES)]
        first = publish(draft, picture, source, _BEHAVIOURS.get(number, "ok"))
        other = other_source((source,), picture.name)
        match number % 5:
            case 0:
                publish_url_again(draft, first, other, turn=1)
            case 1:
                publish_bytes_again(draft, first, other, turn=1)
            case 2:
                for copy in copies.encoded_again(picture, 60):
                    publish_near(draft, first, copy, "q60", other, turn=2)
            case 4 if number % 2:
                for copy in copies.shrunk(picture, 0.75):
                    publish_near(draft, first, copy, "small", other, turn=2)
    jpegs = [picture for picture in pictures if picture.image.suffix == "jpg"]
    publish_failures(draft, _FAILURES, jpegs)
    add_refused_rows(draft, tuple(text.format(0) for text in _SENTENCES), long_text=False)
    repeat_rows(draft, ("laion2b", "cc3m"))
    add_small_sources(draft, _SMALL, jpegs)
    _add_archives(draft)
    for source in TABLES:
        draft.rows += plain_rows(source, 2)
    return draft


def _add_archives(draft: Draft) -> None:
    for label, number, textured in _FMOW:
        add_fmow(draft, label, number, _picture(textured), _GROUND, boxes=label == "airport")
    archive = f"{MILLIONAID}.tar"
    for number, textured in enumerate(_MILLIONAID_TEXTURES, 1):
        add_millionaid(draft, archive, number, _picture(textured))
    add_millionaid_failures(draft, archive, len(_MILLIONAID_TEXTURES) + 1, _picture(_MILLIONAID_TEXTURES[0]).image)
    for number, patch in enumerate(_PATCHES):
        bands = {band: _reflectances(patch, band) for band in ("B02", "B03", "B04")}
        files = patch_files(bands, 32631, (400_000 + 1_000 * number, 5_200_000), ["Pastures"], "2017-06-13 10:10:31")
        add_patch(draft, patch, files, staged="generated reflectances")
    name = "S2A_MSIL2A_20170613T101031_7_8"
    add_patch(draft, name, {"B02.tif": files["B02.tif"]}, "download.missing_band", "a patch of one band")


def _reflectances(patch: str, band: str) -> Reflectances:
    """Return a slope of reflectances that differs by patch and band."""
    y, x = np.mgrid[0:_PATCH_SIDE, 0:_PATCH_SIDE] / _PATCH_SIDE
    across, down = 2_000 * draw("patch", patch, band, "x"), 2_000 * draw("patch", patch, band, "y")
    return np.asarray(100 + across * x + down * y, dtype=np.uint16)


def _picture(number: int) -> Picture:
    kind: Format = "png" if number % 6 == 5 else "jpeg"
    pixels = texture(number, 96 + 16 * (number % 5), 96 + 16 * (number * 3 % 5))
    texts = tuple(text.format(number) for text in _SENTENCES)
    name = f"texture-{number:02d}"
    licence = "CC0-1.0 (generated by rs5m-build)"
    return Picture(name, "texture", f"world:{name}", licence, "rs5m-build", texts, encode(pixels, kind))

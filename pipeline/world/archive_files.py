"""The archives of a world: images in the layouts that fMoW, BigEarthNet and MillionAID publish, and the truth of them.

Only BigEarthNet's patches in the mini world are images of their set; the others are tiles or textures of the world in
the set's layout.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from manifests.identity import draw
from pipeline.world.draft import Draft, Picture, Row
from pipeline.world.grounds import Ground
from pipeline.world.images import Encoded, encode

Reflectances = NDArray[np.uint16]

FMOW, BIGEARTHNET, MILLIONAID = "archives/fmow", "archives/bigearthnet", "archives/millionaid"
"""Paths in a world, MillionAID's without the suffix of its archive."""

NO_COUNTRY = "XXX"
"""A country code that does not exist, as some of fMoW's do not."""

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_CUT_SHARE = 0.6


def add_fmow(draft: Draft, label: str, number: int, picture: Picture, ground: Ground, *, boxes: bool = True) -> None:
    """Add a location: the picture as the rgb frame, at half its size as the msrgb frame, a sidecar beside each.

    Args:
        draft: The world.
        label: The class, true of the picture.
        number: Of the location in its class.
        picture: What it shows.
        ground: Where it lies.
        boxes: Whether the sidecars have bounding boxes.
    """
    with Image.open(io.BytesIO(picture.image.body)) as image:
        whole = image.convert("RGB")
    half = whole.resize((max(1, whole.width // 2), max(1, whole.height // 2)), Image.Resampling.BICUBIC)
    for variant, shown in (("rgb", whole), ("msrgb", half)):
        frame = f"train/{label}/{label}_{number}/{label}_{number}_0_{variant}"
        body = encode(np.asarray(shown), "jpeg").body
        gsd_m = ground.gsd_m * whole.width / shown.width
        sidecar = _fmow_sidecar(label, frame, shown.size, replace(ground, gsd_m=gsd_m), boxes=boxes)
        draft.files[f"{FMOW}/{frame}.json"] = sidecar
        staged = "a tile in fMoW's layout; time, angles and boxes of its sidecar are invented"
        notes = [staged] + ([] if boxes else ["its sidecar has no boxes"])
        notes += ["its country code does not exist"] if ground.country == NO_COUNTRY else []
        _add(draft, "fmow", FMOW, f"{frame}.jpg", body, picture, "; ".join(notes))


def _fmow_sidecar(label: str, frame: str, size: tuple[int, int], ground: Ground, *, boxes: bool) -> bytes:
    width, height = size

    def invented(what: str, low: float, high: float) -> float:
        return round(low + (high - low) * draw("fmow", what, frame), 6)

    box = [width // 4, height // 4, width // 2, height // 2]
    entries = [
        {"ID": -1, "box": box, "category": label, "raw_location": ground.outline},
        {"ID": int(invented("id", 0, 1e6)), "box": box, "category": label, "visible": "True"},
    ]
    day = f"{int(invented('month', 1, 13)):02d}-{int(invented('day', 1, 29)):02d}"
    said: dict[str, Any] = {
        "bounding_boxes": entries if boxes else [],
        "cloud_cover": int(invented("cloud", 0, 30)),
        "country_code": ground.country,
        "gsd": ground.gsd_m,
        "img_filename": f"{frame.rsplit('/', 1)[-1]}.tif",
        "img_height": height,
        "img_width": width,
        "multi_resolution_dbl": ground.gsd_m,
        "off_nadir_angle_dbl": invented("nadir", 0, 30),
        "raw_location": ground.outline,
        "scan_direction": "Forward" if invented("scan", 0, 1) < 0.5 else "Reverse",
        "target_azimuth_dbl": invented("azimuth", 0, 360),
        "timestamp": f"{int(invented('year', 2010, 2017))}-{day}T{int(invented('hour', 15, 20)):02d}:32:22Z",
        "utm": ground.utm,
    }
    return json.dumps(said, sort_keys=True).encode()


def add_patch(
    draft: Draft, patch: str, files: Mapping[str, bytes], expected: str = "released", staged: str | None = None
) -> None:
    """Add a BigEarthNet v1 patch.

    Args:
        draft: The world.
        patch: Its name.
        files: Its files by what follows the name (``B04.tif``, ``labels_metadata.json``).
        expected: How its row ends.
        staged: What is staged about it.
    """
    for ending, body in files.items():
        draft.files[f"{BIGEARTHNET}/BigEarthNet-v1.0/{patch}/{patch}_{ending}"] = body
    row = Row("ben", f"ben:BigEarthNet-v1.0/{patch}", (), False, expected, staged=staged)
    draft.archived.setdefault(BIGEARTHNET, []).append((f"BigEarthNet-v1.0/{patch}", row))


def add_millionaid(draft: Draft, archive: str, number: int, picture: Picture) -> None:
    """Add a picture to a MillionAID-like archive, as its test split names them."""
    _add(
        draft, "millionaid", archive, _millionaid(number), picture.image.body, picture, "a tile in MillionAID's layout"
    )


def add_millionaid_failures(draft: Draft, archive: str, number: int, intact: Encoded) -> None:
    """Add what is wrong with images of archives: a JPEG cut short, a text, and a picture that is none of the set's."""
    cut = intact.body[: int(len(intact.body) * _CUT_SHARE)]
    bad = (
        (_millionaid(number), cut, "dedup.undecodable", "a JPEG cut at 60 % of its bytes"),
        (_millionaid(number + 1), b"no picture\n", "download.not_image", "a text called .jpg"),
        ("test/preview.jpg", intact.body, "filter.bad_row", "a picture with a name that MillionAID does not use"),
    )
    for path, body, expected, staged in bad:
        url = f"millionaid:{path}" if expected != "filter.bad_row" else None
        draft.archived.setdefault(archive, []).append(
            (path, Row("millionaid", url, (), False, expected, staged=staged))
        )
        draft.members.setdefault(archive, {})[path] = body


def _millionaid(number: int) -> str:
    return f"test/P{number:07d}.jpg"


def _add(draft: Draft, source: str, archive: str, path: str, body: bytes, picture: Picture, staged: str) -> None:
    url = f"{source}:{path}"
    row = Row(source, url, (), False, "released", picture=picture, staged=staged)
    draft.archived.setdefault(archive, []).append((path, row))
    draft.attributes[url] = (picture.licence, picture.credit, None)
    if archive.endswith((".zip", ".tar")):
        draft.members.setdefault(archive, {})[path] = body
    else:
        draft.files[f"{archive}/{path}"] = body


def packed(name: str, members: Mapping[str, bytes]) -> bytes:
    """Pack members into a zip or tar, as the name's suffix says, sorted, without a clock.

    Args:
        name: Of the archive.
        members: Bytes by path.
    """
    out = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(out, "w") as archive:
            for path, body in sorted(members.items()):
                archive.writestr(zipfile.ZipInfo(path, _ZIP_TIME), body)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, body in sorted(members.items()):
            info = tarfile.TarInfo(path)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return out.getvalue()


def band_tiff(pixels: Reflectances, epsg: int, ulx: float, uly: float, metres: float = 10.0) -> bytes:
    """Encode one band as an uncompressed GeoTIFF.

    Args:
        pixels: uint16 (height, width).
        epsg: Its projected reference system.
        ulx: Easting of the upper left corner.
        uly: Northing of the upper left corner.
        metres: A pixel's side.
    """
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[33550] = (metres, metres, 0.0)
    tags[33922] = (0.0, 0.0, 0.0, ulx, uly, 0.0)
    tags[34735] = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, epsg)
    for tag, kind in ((33550, 12), (33922, 12), (34735, 3)):
        tags.tagtype[tag] = kind
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="TIFF", tiffinfo=tags)
    return out.getvalue()


def patch_files(
    pixels: Mapping[str, Reflectances], epsg: int, corner: tuple[int, int], labels: Sequence[str], date: str
) -> dict[str, bytes]:
    """Return the files of a BigEarthNet v1 patch, made from bands of 10 m a pixel.

    Args:
        pixels: uint16 (side, side) by band.
        epsg: Reference system, a UTM zone (326xx or 327xx).
        corner: Easting and northing of the upper left corner.
        labels: Class labels.
        date: ``YYYY-MM-DD HH:MM:SS``.
    """
    ulx, uly = corner
    side_m = 10 * next(iter(pixels.values())).shape[0]
    zone = f"{epsg % 100}{'N' if epsg < 32700 else 'S'}"
    said = {
        "labels": list(labels),
        "coordinates": {"ulx": ulx, "uly": uly, "lrx": ulx + side_m, "lry": uly - side_m},
        "projection": f'PROJCS["WGS 84 / UTM zone {zone}",AUTHORITY["EPSG","{epsg}"]]',
        "acquisition_date": date,
    }
    files = {f"{band}.tif": band_tiff(values, epsg, ulx, uly) for band, values in pixels.items()}
    return files | {"labels_metadata.json": json.dumps(said).encode()}

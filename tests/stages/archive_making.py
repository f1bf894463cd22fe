"""Folders and archives with given members, and the files of images that stand in them."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.world.archive_files import band_tiff

KINDS = ("folder", "tar", "tar.gz", "tgz", "zip")


def pack(folder: Path, name: str, kind: str, members: Mapping[str, bytes]) -> str:
    """Write members as a folder or archive below ``folder``; return its name there."""
    if kind == "folder":
        for path, body in members.items():
            target = folder / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(body)
        return name
    file = folder / f"{name}.{kind}"
    file.parent.mkdir(parents=True, exist_ok=True)
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, body in members.items():
                archive.writestr(path, body)
        return f"{name}.zip"
    with tarfile.open(file, "w" if kind == "tar" else "w:gz") as tar:
        for path, body in members.items():
            add(tar, path, body)
    return f"{name}.{kind}"


def add(tar: tarfile.TarFile, path: str, body: bytes = b"", **header: object) -> None:
    """Add a member to a tar, with what the header shall say beside name and size."""
    info = tarfile.TarInfo(path)
    info.size = len(body)
    for name, value in header.items():
        setattr(info, name, value)
    tar.addfile(info, io.BytesIO(body))


def jpeg(number: int = 0, side: int = 32) -> bytes:
    """Return a small JPEG that differs by number."""
    y, x = np.mgrid[0:side, 0:side]
    pixels = np.stack([x * 7 + number, y * 5, x + y + 3 * number], axis=2).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="JPEG")
    return out.getvalue()


def fmow_sidecar(**changed: object) -> bytes:
    """Return a sidecar in fMoW's layout with invented values."""
    outline = "POLYGON ((8.58 47.45, 8.59 47.45, 8.59 47.44, 8.58 47.44, 8.58 47.45))"
    said = {
        "bounding_boxes": [
            {"ID": -1, "box": [10, 20, 30, 40], "category": "fountain", "raw_location": outline, "crowd_rank": 0.5},
            {"ID": 7, "box": [11, 21, 31, 41], "category": "fountain", "visible": "True"},
            {"ID": 8, "box": [1, 2, 3, 4], "category": "pond"},
        ],
        "cloud_cover": 0, "country_code": "CHE", "img_height": 663, "img_width": 977, "multi_resolution_dbl": 1.87,
        "off_nadir_angle_dbl": 21.9, "scan_direction": "Reverse", "target_azimuth_dbl": 31.2, "utm": "32T",
        "timestamp": "2012-04-02T10:32:22Z", "abs_cal_factors": [1, 2, 3],
    } | changed  # fmt: skip
    return json.dumps(said).encode()


def fmow_members(locations: int = 2) -> dict[str, bytes]:
    """Return locations of fMoW with two frames each, below no folder of theirs."""
    members = {}
    for number in range(locations):
        for variant in ("rgb", "msrgb"):
            stem = f"train/fountain/fountain_{number}/fountain_{number}_0_{variant}"
            members[f"{stem}.jpg"] = jpeg(2 * number + (variant == "rgb"))
            members[f"{stem}.json"] = fmow_sidecar()
    return members


V1 = "S2A_MSIL2A_20170613T101031_87_48"
V2 = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57"
BANDS = ("B01", "B02", "B03", "B04")


def bands(patch: str, side: int = 12, scale: int = 100, **changed: bytes) -> dict[str, bytes]:
    """Return band files of a patch by name; B01 has pixels of 60 m. ``changed`` replaces bands."""
    files = {}
    for number, band in enumerate(BANDS):
        wide = side // 6 if band == "B01" else side
        ramp = np.arange(wide * wide, dtype=np.uint16).reshape(wide, wide)
        body = band_tiff(
            ramp * scale // side + 50 * number + 100, 32633, 404_400, 5_342_400, 60.0 if number == 0 else 10.0
        )
        files[f"{patch}_{band}.tif"] = changed.get(band, body)
    return files


def v1_labels(**changed: object) -> bytes:
    """Return a labels_metadata.json in the layout of BigEarthNet v1."""
    said = {
        "labels": ["Pastures", "Water bodies"],
        "coordinates": {"ulx": 404400, "uly": 5342400, "lrx": 405600, "lry": 5341200},
        "projection": 'PROJCS["WGS 84 / UTM zone 33N"]', "acquisition_date": "2017-06-13 10:10:31",
        "tile_source": "S2A_MSIL1C",
    } | changed  # fmt: skip
    return json.dumps(said).encode()


def v1_members(patch: str = V1, **changed: bytes) -> dict[str, bytes]:
    """Return a patch of BigEarthNet v1."""
    files = bands(patch, **changed) | {f"{patch}_labels_metadata.json": v1_labels()}
    return {f"BigEarthNet-v1.0/{patch}/{name}": body for name, body in files.items()}


def v2_members(patch: str = V2) -> dict[str, bytes]:
    """Return a patch of BigEarthNet v2, without its table."""
    scene = patch.rsplit("_", 2)[0]
    return {f"BigEarthNet-S2/{scene}/{patch}/{name}": body for name, body in bands(patch).items()}

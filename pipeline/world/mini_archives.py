"""The archives of the mini world: BigEarthNet's example patches, and tiles in the layouts of fMoW and MillionAID."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.world.archive_files import (
    BANDS,
    MILLIONAID,
    NO_COUNTRY,
    add_fmow,
    add_millionaid,
    add_millionaid_failures,
    add_patch,
    band_tiff,
)
from pipeline.world.captions import SENTENCES
from pipeline.world.draft import Draft, Picture
from pipeline.world.errors import WorldError
from pipeline.world.grounds import YELL1, YELL2, lake_ground
from pipeline.world.scenes import scene_bytes, scenes

_PARKS = (("yell1", YELL1, 4), ("yell2", YELL2, 4))
_LAKES = 4
_LAKE_CLASSES = ("salt_lake_water", "salt_lake_shore")
_NO_BOXES, _NO_COUNTRY = ("lake_or_pond", 3), ("park", 7)
_MILLIONAID = (("awpe", 5), ("sfbay", 6), ("bahamas", 3), ("bmng", 8), ("rmnp", 2))
_ARCHIVE = f"{MILLIONAID}.zip"
# Copies of real patches under names of their own, damaged.
_NO_BAND = ("S2A_MSIL2A_20170617T113321_36_85", "S2A_MSIL2A_20170617T113321_90_90", "B03")
_NO_DATA = "S2A_MSIL2A_20170617T113321_91_91"


def add_archives(draft: Draft, pictures: Sequence[Picture], wheel_paths: dict[str, Path]) -> None:
    """Add the three archives to the mini world.

    Args:
        draft: The world.
        pictures: Its pictures; JPEG tiles among them are shown again.
        wheel_paths: Checked wheels by name.

    Raises:
        WorldError: The patches are missing or cannot be unpacked.
    """
    of_scene: dict[str, list[Picture]] = {}
    for picture in pictures:
        if picture.kind == "tile" and picture.image.suffix == "jpg":
            of_scene.setdefault(picture.group.removeprefix("world:"), []).append(picture)
    parks = [(picture, ground) for scene, ground, count in _PARKS for picture in _spread(of_scene[scene], count)]
    water = {text for kind in _LAKE_CLASSES for text in SENTENCES[kind]}
    shown = [picture for picture in of_scene["slc_rgb"] if water & set(picture.texts)]
    lakes = [(picture, lake_ground(picture)) for picture in _spread(shown, _LAKES)]
    for label, locations in (("park", parks), ("lake_or_pond", lakes)):
        for number, (picture, ground) in enumerate(locations):
            place = (label, number)
            told = replace(ground, country=NO_COUNTRY) if place == _NO_COUNTRY else ground
            add_fmow(draft, *place, picture, told, boxes=place != _NO_BOXES)
    number = 0
    for scene, count in _MILLIONAID:
        for picture in _spread(of_scene[scene], count):
            number += 1
            add_millionaid(draft, _ARCHIVE, number, picture)
    add_millionaid_failures(draft, _ARCHIVE, number + 1, of_scene["sfbay"][-1].image)
    _add_patches(draft, wheel_paths)


def _spread(pictures: Sequence[Picture], count: int) -> Iterator[Picture]:
    """Yield ``count`` pictures from all over the scene."""
    yield from (pictures[index * len(pictures) // count] for index in range(count))


def _add_patches(draft: Draft, wheel_paths: dict[str, Path]) -> None:
    patches = _example_patches(wheel_paths)
    for patch, files in sorted(patches.items()):
        add_patch(draft, patch, files)
    original, name, lacks = _NO_BAND
    left = {ending: body for ending, body in patches[original].items() if ending != f"{lacks}.tif"}
    add_patch(draft, name, left, "download.missing_band", f"a patch without {lacks}")
    empty = {f"{band}.tif": band_tiff(np.zeros((120, 120), np.uint16), 32629, 643200, 5798040) for band in BANDS}
    label = {"labels_metadata.json": patches[original]["labels_metadata.json"]}
    add_patch(draft, _NO_DATA, empty | label, "download.no_data", "a patch whose pixels are all 0")


def _example_patches(wheel_paths: dict[str, Path]) -> dict[str, dict[str, bytes]]:
    """Return the example patches: files by ending, by patch. The archive they come from is pinned as a whole."""
    scene = scenes()["bigearthnet"]
    patches: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(scene_bytes(scene, wheel_paths)), mode="r:bz2") as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isreg() else None
                if file:
                    patch, name = member.name.split("/")[-2:]
                    patches.setdefault(patch, {})[name.removeprefix(f"{patch}_")] = file.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise WorldError(f"cannot unpack {scene.member}: {error}; remove the wheel and run again") from error
    return patches

"""Which files of a folder or archive are images of a set, and their place in that set.

An image of fMoW, BigEarthNet or MillionAID is known by the last parts of its path, the way its set publishes it;
whatever stands before does not matter, so that the same image out of a folder or out of an archive, moved or renamed,
is the same image. An image that someone holds is known by the name of its folder or archive, and its path there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from stages.held_images import HELD, find_samples

EXPECTED = {
    "fmow": "train/CLASS/CLASS_N/CLASS_N_I_rgb.jpg (or _msrgb.jpg), each with a .json beside it",
    "bigearthnet": "PATCH/PATCH_B01.tif .. PATCH_B12.tif and PATCH_labels_metadata.json (v1), or SCENE/PATCH/... (v2)",
    "millionaid": "test/P0000001.jpg",
    "webdataset": "KEY.jpg with KEY.txt or KEY.json beside it, in tars (name the tars: FOLDER/*.tar)",
    "imagefolder": "FOLDER/NAME.jpg (or .png, .webp, .gif, .bmp, .tif), in folders of any name and depth",
}
"""The layout of each set, in words."""

# fMoW: test and seq hold numbers for names; with their ground truth joined they are test_gt and seq_gt.
_FMOW_SPLITS = ("train", "val", "test", "test_gt", "seq", "seq_gt")
_FMOW_IMAGE = re.compile(r"(?P<location>[a-z0-9][a-z0-9_-]*)_(?P<number>\d+)_(?:rgb|msrgb)\.jpe?g")
# fMoW-full: the same frames as GeoTIFFs of raw bands, which may lie beside.
_FMOW_COMPANION = re.compile(r"[a-z0-9][a-z0-9_-]*_\d+_(?:ms|pan|rgb|msrgb)\.tiff?")
_FMOW_LOCATION = re.compile(r"(?P<label>[a-z][a-z0-9_-]*)_\d+")
# BigEarthNet: v1 names a scene by satellite and time, v2 (reBEN) by baseline, orbit and tile too. Hours below ten
# have lost their zero in some names of v1.
_BEN_FILE = re.compile(
    r"(?P<patch>(?P<scene>S2[ABC]_MSIL2A_\d{8}T\d{5,6}(?P<v2>_N\d{4}_R\d{3}_T\d{2}[A-Z]{3})?)_\d{1,3}_\d{1,3})"
    r"_(?:B(?:0[1-9]|1[0-2]|8A)\.tif|labels_metadata\.json)"
)
_BEN_COMPANION = re.compile(r"S1[ABC]_.*|.*_reference_map\.tif")
_MILLIONAID_IMAGE = re.compile(r"(?P<key>P\d{4,})\.(?:jpe?g|png|tif)")
_IMAGE = re.compile(r"(?i).*\.(?:jpe?g|png|gif|webp|bmp|tiff?)")


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of a folder or archive: a row.

    Attributes:
        path: Where it lies in the archive: its file; for BigEarthNet the patch's folder, empty for the root itself.
        official: Its path in the official set; empty for an image that is none of the set's. Of held images the name
            of the folder or archive, and the path there; empty for a sample without an image.
        key: The official name without a suffix.
        group: Frames that show one place, and must not be parted: fMoW's location, BigEarthNet's scene.
        label: The class that the path tells.
    """

    path: str
    official: str = ""
    key: str = ""
    group: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder or archive holds of a set.

    Attributes:
        frames: Its images, sorted by path; among them those that do not belong to the set.
        others: Files that are no images of their own: sidecars, bands, tables, other sensors.
    """

    frames: list[Frame]
    others: int

    @property
    def any(self) -> bool:
        """Whether an image of the set is among them."""
        return any(frame.official for frame in self.frames)


def url_of(source: str, frame: Frame) -> str:
    """Return the url under which a frame is known: the source and its path in the official set."""
    return f"{source}:{frame.official}"


def file_of(frame: Frame, ending: str) -> str:
    """Return the path of a file of a BigEarthNet patch, e.g. of its ``B04.tif``."""
    name = f"{frame.key}_{ending}"
    return f"{frame.path}/{name}" if frame.path else name


def find_frames(layout: str, name: str, paths: Iterable[str]) -> Found:
    """Find the images of a set among files.

    Args:
        layout: fmow, bigearthnet, millionaid, webdataset or imagefolder.
        name: The folder's or archive's own name: it may be the first part of the official path (``train``).
        paths: Paths of the files, from the root of the folder or archive.
    """
    if layout in HELD:
        return _held(layout, name, list(paths))
    frames: dict[str, Frame] = {}
    others = 0
    for path in paths:
        frame = _FRAME_OF[layout]([name, *path.split("/")], path)
        if frame is None:
            others += 1
        else:
            others += frame.path in frames
            frames.setdefault(frame.path, frame)
    return Found(sorted(frames.values(), key=lambda frame: frame.path), others)


def _held(layout: str, name: str, paths: list[str]) -> Found:
    samples = find_samples(layout, paths)
    images = sum(bool(sample.image) for sample in samples)
    return Found(
        [Frame(s.image or s.key, f"{name}/{s.image}" if s.image else "", s.key) for s in samples], len(paths) - images
    )


def _fmow(parts: list[str], path: str) -> Frame | None:
    if not _IMAGE.fullmatch(parts[-1]) or _FMOW_COMPANION.fullmatch(parts[-1]):
        return None
    image = _FMOW_IMAGE.fullmatch(parts[-1])
    if not image or len(parts) < 2 or parts[-2] != image["location"]:
        return Frame(path)
    location = image["location"]
    named = _FMOW_LOCATION.fullmatch(location)
    label = named["label"] if named and len(parts) > 2 and parts[-3] == named["label"] else None
    if label is None and not location.isdigit():
        return Frame(path)
    folders = [label, location] if label else [location]
    before = parts[-2 - len(folders)] if len(parts) >= 2 + len(folders) else ""
    split = before if before in _FMOW_SPLITS else "train" if label else "test"
    group = "/".join([split, *folders])
    return Frame(path, f"{group}/{parts[-1]}", parts[-1].rsplit(".", 1)[0], group, label)


def _bigearthnet(parts: list[str], path: str) -> Frame | None:
    file = _BEN_FILE.fullmatch(parts[-1])
    if not file or len(parts) < 2 or parts[-2] != file["patch"]:
        stray = _IMAGE.fullmatch(parts[-1]) and not _BEN_COMPANION.fullmatch(parts[-1])
        return Frame(path) if stray else None
    patch, scene = file["patch"], file["scene"]
    official = f"BigEarthNet-S2/{scene}/{patch}" if file["v2"] else f"BigEarthNet-v1.0/{patch}"
    return Frame(path.rpartition("/")[0], official, patch, scene)


def _millionaid(parts: list[str], path: str) -> Frame | None:
    if not _IMAGE.fullmatch(parts[-1]):
        return None
    image = _MILLIONAID_IMAGE.fullmatch(parts[-1])
    if not image:
        return Frame(path)
    if "train" not in parts[:-1]:
        return Frame(path, f"test/{parts[-1]}", image["key"])
    start = len(parts) - 2 - parts[-2::-1].index("train")
    label = parts[-2] if start < len(parts) - 2 else None
    return Frame(path, "/".join(parts[start:]), image["key"], None, label)


_FRAME_OF = {"fmow": _fmow, "bigearthnet": _bigearthnet, "millionaid": _millionaid}

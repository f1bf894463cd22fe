"""Web images that someone already holds: which files of a webdataset tar or a folder of images make up a sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

HELD = ("webdataset", "imagefolder")
"""Layouts of held images."""

_IMAGE_ENDINGS = frozenset("jpg jpeg png webp gif bmp tif tiff".split())
# The released tars of RS5M call the image so, whatever its format.
_RS5M_IMAGE = "img_content"
_SIDECARS = ("txt", "json")


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: an image with what stands beside it.

    Attributes:
        key: What its files have in common: their path up to the first dot of the name; in a folder of images, the
            image's path without its suffix.
        image: Path of the image; empty where there is none, or no telling which.
        beside: Ending in lower case to path, of its other files.
        problem: Why there is no image; empty where there is one.
    """

    key: str
    image: str = ""
    beside: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


def find_samples(layout: str, paths: Iterable[str]) -> list[Sample]:
    """Find the samples among files, sorted by key, then by image.

    In the layout ``webdataset`` files of one key are a sample, as the webdataset library reads them: the key is the
    path up to the first dot of the name. A key without an image is one too, with its problem, as long as it has a text
    or a record. Of several images the one with a plain ending counts (``KEY.jpg`` beside ``KEY.mask.png``).
    In the layout ``imagefolder`` every image is a sample; ``.txt`` and ``.json`` of the same name stand beside it.

    Args:
        layout: One of `HELD`.
        paths: Paths of the files, from the root of the folder or archive.
    """
    found = _of_webdataset(paths) if layout == "webdataset" else _of_folder(paths)
    return sorted(found, key=lambda sample: (sample.key, sample.image))


def _of_webdataset(paths: Iterable[str]) -> list[Sample]:
    by_key: dict[str, dict[str, str]] = {}
    for path in sorted(paths):
        folder, slash, name = path.rpartition("/")
        stem, dot, ending = name.partition(".")
        if dot:
            by_key.setdefault(f"{folder}{slash}{stem}", {}).setdefault(ending.lower(), path)
    return [sample for key, files in by_key.items() if (sample := _sample(key, files))]


def _sample(key: str, files: Mapping[str, str]) -> Sample | None:
    images = [ending for ending in files if _is_image(ending)]
    plain = [ending for ending in images if "." not in ending]
    beside = {ending: path for ending, path in files.items() if ending not in images}
    candidates = plain or images
    if len(candidates) == 1:
        return Sample(key, files[candidates[0]], beside)
    if candidates:
        several = f"{len(candidates)} images: {', '.join(candidates[:3])}; leave one, or read it as an imagefolder"
        return Sample(key, "", beside, several)
    has_words = any(ending in ("txt", "caption", "json") for ending in files)
    return Sample(key, "", beside, "no image") if has_words else None


def _is_image(ending: str) -> bool:
    return ending == _RS5M_IMAGE or ending.rpartition(".")[2] in _IMAGE_ENDINGS


def _of_folder(paths: Iterable[str]) -> list[Sample]:
    images: list[tuple[str, str]] = []
    sidecars: dict[str, dict[str, str]] = {}
    for path in sorted(paths):
        stem, dot, ending = path.rpartition(".")
        if dot and ending.lower() in _IMAGE_ENDINGS:
            images.append((stem, path))
        elif dot and ending.lower() in _SIDECARS:
            sidecars.setdefault(stem, {}).setdefault(ending.lower(), path)
    return [Sample(stem, path, sidecars.get(stem, {})) for stem, path in images]

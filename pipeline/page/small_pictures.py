"""Small copies of stored images for a page: decoded under guard, made anew from their pixels, one file each."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from manifests.store import Store
from stages.images import Place, read_images
from stages.picture_files import PictureFileError, open_guarded
from stages.step import CorruptFileError

SIDE_PIXELS = 160
_QUALITY = 82
_NAME_DIGITS = 16
_GREY_16 = ("I", "F")


@dataclass(frozen=True, slots=True)
class SmallPicture:
    """A picture on the page.

    Attributes:
        name: Of its file: the first 16 digits of the original's sha256.
        body: A JPEG without metadata.
        width: Pixels, at most `SIDE_PIXELS`.
        height: Pixels, likewise.
    """

    name: str
    body: bytes
    width: int
    height: int


def small_pictures(store: Store, places: Iterable[Place], max_pixels: int) -> Iterator[tuple[str, SmallPicture | str]]:
    """Yield (sha256, small picture) of each distinct image, or (sha256, why there is none).

    Args:
        store: The workdir.
        places: Where the images lie.
        max_pixels: Greatest pixel count that is decoded.
    """
    distinct: Mapping[str, Place] = {place.sha256: place for place in places}
    by_tar: dict[str, list[Place]] = {}
    for place in distinct.values():
        by_tar.setdefault(place.tar, []).append(place)
    for tar in sorted(by_tar):
        for place, body in _bodies(store, by_tar[tar]):
            yield place.sha256, body if isinstance(body, str) else _shrunk(body, place.sha256, max_pixels)


def _bodies(store: Store, places: Sequence[Place]) -> Iterator[tuple[Place, bytes | str]]:
    """Yield the bytes of the images of one tar; of one that cannot be read, why."""
    left = dict(enumerate(places))
    try:
        for index, body in read_images(store, places):
            yield left.pop(index), body
    except (CorruptFileError, OSError):
        # One bad place ends the reading of a tar: what is left is read one by one, and each has its own reason.
        for place in left.values():
            yield place, _one_body(store, place)


def _one_body(store: Store, place: Place) -> bytes | str:
    try:
        return next(body for _, body in read_images(store, [place]))
    except CorruptFileError as error:
        return f"not stored any more: {error.detail}"
    except OSError as error:
        return f"cannot be read: {type(error).__name__}"


def _shrunk(body: bytes, sha256: str, max_pixels: int) -> SmallPicture | str:
    try:
        with open_guarded(body) as image:
            if image.width * image.height > max_pixels:
                return f"not decoded: {image.width} x {image.height} pixels"
            small = _flat(image)
    except PictureFileError as error:
        return f"not decoded: {error.detail}"
    packed = io.BytesIO()
    small.save(packed, "JPEG", quality=_QUALITY)
    return SmallPicture(sha256[:_NAME_DIGITS], packed.getvalue(), small.width, small.height)


def _flat(image: Image.Image) -> Image.Image:
    """Return the first frame in RGB on white, shrunk, as a new picture: nothing of a file's metadata goes along."""
    image.draft("RGB", (2 * SIDE_PIXELS, 2 * SIDE_PIXELS))  # JPEG alone: decoded at a fraction of its size
    image.load()
    deep = image.mode.startswith(_GREY_16)
    seen = (_eight_bits(image) if deep else image).convert("RGBA")
    scale = min(1.0, SIDE_PIXELS / max(seen.size))
    size = (max(1, round(seen.width * scale)), max(1, round(seen.height * scale)))
    seen = seen.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    page = Image.new("RGB", size, "white")
    page.paste(seen, mask=seen.getchannel("A"))
    return page


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return grey levels of 16 bits and more on 0 to 255, the brightest white: else all of it would be white."""
    levels = np.nan_to_num(np.asarray(image, np.float32), posinf=0.0, neginf=0.0)
    brightest = max(255.0, float(levels.max(initial=0.0)))
    return Image.fromarray((levels.clip(0) * (255.0 / brightest)).astype(np.uint8))

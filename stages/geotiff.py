"""Single-band GeoTIFFs of 16-bit reflectances: pixels and place, from bytes that strangers sent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.picture_files import PictureFileError, open_guarded

Band = NDArray[np.uint16]

MAX_PIXELS = 1 << 22
"""A band of BigEarthNet has 120 x 120 pixels; anything near this bound is something else."""

_MODES = ("I;16", "I;16L", "I;16B", "I")
# Tags and keys of OGC GeoTIFF 1.1, sections 7.1 and 7.3.
_PIXEL_SCALE, _TIE_POINT, _KEY_DIRECTORY = 33550, 33922, 34735
_PROJECTED_CRS = 3072
_USER_DEFINED = 32767


class BandError(PictureFileError):
    """A file that is no band this project reads: one line of ASCII that says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a GeoTIFF lies.

    Attributes:
        epsg: Code of its projected reference system; None where the file names none.
        ulx: Easting of the upper left corner, in units of the system.
        uly: Northing of the upper left corner.
        lrx: Easting of the lower right corner.
        lry: Northing of the lower right corner.
    """

    epsg: int | None
    ulx: float
    uly: float
    lrx: float
    lry: float


def read_band(body: bytes) -> Band:
    """Decode a band.

    Args:
        body: The file.

    Returns:
        uint16 (height, width).

    Raises:
        BandError: It is no single-band 16-bit TIFF, is damaged, or has more than `MAX_PIXELS`.
        MemoryError: The machine's memory did not hold its pixels: nothing is said of the file.
    """
    with _opened(body) as image:
        if image.mode not in _MODES or int(getattr(image, "n_frames", 1)) != 1:
            raise BandError(f"{image.mode} pixels where one band of 16-bit integers is expected")
        pixels = np.asarray(image)
    if pixels.size and (int(pixels.min()) < 0 or int(pixels.max()) > np.iinfo(np.uint16).max):
        raise BandError("values outside 0 to 65535")
    return np.ascontiguousarray(pixels, dtype=np.uint16)


def read_place(body: bytes) -> Place | None:
    """Read where a band lies from its tags, decoding no pixels; None where it does not say.

    Raises:
        BandError: It is no TIFF, or its header is damaged.
    """
    with _opened(body) as image:
        tags: Any = getattr(image, "tag_v2", {})
        scale, tie = tags.get(_PIXEL_SCALE), tags.get(_TIE_POINT)
        if scale is None or tie is None:
            return None
        column, row, _, east, north = (float(part) for part in tie[:5])
        across, down = float(scale[0]), float(scale[1])
        ulx, uly = east - column * across, north + row * down
        place = Place(_epsg(tags.get(_KEY_DIRECTORY)), ulx, uly, ulx + across * image.width, uly - down * image.height)
    corners = (place.ulx, place.uly, place.lrx, place.lry)
    return place if all(math.isfinite(corner) for corner in corners) else None


def _epsg(directory: tuple[int, ...] | None) -> int | None:
    """Return the projected system of a key directory: rows of key, tag, count, value after one of four numbers."""
    keys = tuple(directory or ())
    for at in range(4, len(keys) - 3, 4):
        key, tag, _, value = keys[at : at + 4]
        if key == _PROJECTED_CRS and tag == 0 and 0 < value < _USER_DEFINED:
            return int(value)
    return None


@contextmanager
def _opened(body: bytes) -> Iterator[Image.Image]:
    try:
        with open_guarded(body, ("TIFF",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BandError(f"{image.width} x {image.height} pixels, limit {MAX_PIXELS}")
            yield image
    except BandError:
        raise
    except PictureFileError as error:
        raise BandError(error.detail) from error

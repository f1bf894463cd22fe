"""Guarded decoding of bytes that strangers sent: one picture's facts and its two small grey copies, or a reason.

The two copies are what later stages compare, so that no later step of duplicate removal opens a picture again.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from stages.picture_files import DAMAGED, PictureFileError, open_guarded

HASH_SIDE = 32
THUMBNAIL_SIDE = 16
_ANIMATED = frozenset({"GIF", "WEBP", "PNG"})  # frames of one canvas; further pages of a TIFF or JPEG are never decoded
_BOMB = "DecompressionBombError: "
_REDUCED_SIDE = 3 * HASH_SIDE  # three times the size asked for: nearly fair resampling, by Pillow's documentation


class DecodeError(PictureFileError):
    """A body is not a picture this project accepts.

    Attributes:
        reason: dedup.empty, dedup.too_many_pixels or dedup.undecodable.
        detail: what was wrong: one line of printable ASCII, at most 200 bytes, equal for equal bytes.
        too_large: whether it has too many pixels.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail, too_large=reason == "dedup.too_many_pixels")
        self.reason = reason
        self.args = (f"{reason}: {self.detail}",)


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """Facts of one picture.

    Attributes:
        width: pixels, as stored: before any EXIF turn.
        height: pixels, as stored.
        mode: Pillow's mode of the first frame ("RGB", "L", "P", "CMYK", "I;16", ...).
        frames: frames of an animation or pages of a file, at least 1.
        exif_orientation: 1 to 8, or 0 where absent or malformed.
        exif_lon: degrees east from the EXIF GPS directory; None where absent or malformed.
        exif_lat: degrees north, present exactly where exif_lon is.
        luma32: first frame in grey levels, uint8 [32, 32], Lanczos: exactly what imagehash.phash transforms, unless
            decoded fast.
        thumbnail: first frame in grey levels, uint8 [16, 16], mean of each box.
    """

    width: int
    height: int
    mode: str
    frames: int
    exif_orientation: int
    exif_lon: float | None
    exif_lat: float | None
    luma32: NDArray[np.uint8]
    thumbnail: NDArray[np.uint8]


def decode(body: bytes, max_pixels: int, *, fast: bool = False) -> Decoded:
    """Decodes the whole first frame of a JPEG, PNG, WEBP, GIF, BMP or TIFF.

    Fast decodes the brightness of a JPEG alone, instead of grey levels made from its colours, and of a large one only
    the lower frequencies of each block (every byte of it is still read, so damage shows); what is still large it
    averages in small boxes of pixels before it resamples. The two small copies come out close to the exact ones, and
    are compared with fast ones only.

    The pixel count is taken from the header before any pixel is decoded: width x height, times the number of frames for
    animated GIF, WEBP and PNG, because a reader of the released file may decode them all. Pillow's own limit of about
    179 million pixels a frame holds as well. EXIF never fails a picture: what is malformed counts as absent. The EXIF
    turn is not applied.

    Args:
        body: the file.
        max_pixels: greatest accepted pixel count.
        fast: whether the small copies may be a little off.

    Returns:
        The picture's facts.

    Raises:
        DecodeError: The body is empty, has too many pixels, or does not decode to the end.
        MemoryError: The machine's memory did not hold a picture of an accepted size: nothing is said of the picture.
    """
    if not body:
        raise DecodeError("dedup.empty", "0 bytes")
    try:
        with open_guarded(body) as image:
            return _read(image, max_pixels, fast=fast)
    except DecodeError:
        raise
    except PictureFileError as error:
        reason = "dedup.too_many_pixels" if error.too_large else "dedup.undecodable"
        raise DecodeError(reason, error.detail.removeprefix(_BOMB)) from error


def _read(image: Image.Image, max_pixels: int, *, fast: bool) -> Decoded:
    width, height = image.size
    if width < 1 or height < 1:
        raise DecodeError("dedup.undecodable", f"{width} x {height} pixels")
    if width * height > max_pixels:
        raise DecodeError("dedup.too_many_pixels", f"{width} x {height} pixels, limit {max_pixels}")
    mode, frames = image.mode, int(getattr(image, "n_frames", 1))
    if image.format in _ANIMATED and width * height * frames > max_pixels:
        raise DecodeError("dedup.too_many_pixels", f"{width} x {height} x {frames} frames, limit {max_pixels}")
    # A TIFF is closed by decoding it; a PNG would be decoded by asking for its EXIF, and swallow the error.
    exif = _exif(image) if image.format == "TIFF" else None
    # The JPEG library can halve a picture up to three times as it decodes: cheaper than any averaging afterwards.
    draft = image.draft("L", (min(width, _REDUCED_SIDE), min(height, _REDUCED_SIDE))) if fast else None
    image.load()
    orientation, lon, lat = exif or _exif(image)
    across, down = draft[1][2:] if draft else (width, height)
    grey = image if image.mode == "L" else image.convert("L")
    # As `reducing_gap` of Pillow's resize does, but once for both copies.
    by = (max(1, grey.width // _REDUCED_SIDE), max(1, grey.height // _REDUCED_SIDE)) if fast else (1, 1)
    box = (0.0, 0.0, across / by[0], down / by[1])
    reduced = grey if by == (1, 1) else grey.reduce(by)
    luma32 = reduced.resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS, box)
    thumbnail = reduced.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX, box)
    return Decoded(
        width, height, mode, frames, orientation, lon, lat,
        np.array(luma32, dtype=np.uint8), np.array(thumbnail, dtype=np.uint8),
    )  # fmt: skip


def _exif(image: Image.Image) -> tuple[int, float | None, float | None]:
    """Orientation, longitude and latitude; each part that is malformed counts as absent."""
    try:
        tags = image.getexif()
        orientation = tags.get(ExifTags.Base.Orientation, 0)
    except DAMAGED:
        return 0, None, None
    orientation = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 0
    try:
        gps = tags.get_ifd(ExifTags.IFD.GPSInfo)
        lat = _degrees(gps[ExifTags.GPS.GPSLatitude], gps[ExifTags.GPS.GPSLatitudeRef], "NS", 90.0)
        lon = _degrees(gps[ExifTags.GPS.GPSLongitude], gps[ExifTags.GPS.GPSLongitudeRef], "EW", 180.0)
    except DAMAGED:
        return orientation, None, None
    return orientation, lon, lat


def _degrees(parts: Iterable[Any], reference: object, signs: str, limit: float) -> float:
    """Signed degrees of a GPS tag: degrees, minutes and seconds, and a letter of `signs` (the second is negative)."""
    text = reference.decode("ascii") if isinstance(reference, bytes) else str(reference)
    letter = text.strip("\0 ").upper()
    degrees, minutes, seconds = (float(part) for part in parts)
    value = degrees + minutes / 60 + seconds / 3600
    ranges_hold = degrees >= 0 and 0 <= minutes < 60 and 0 <= seconds < 60 and value <= limit
    if len(letter) != 1 or letter not in signs or not ranges_hold or not math.isfinite(value):
        raise ValueError("GPS tag out of range")
    return -value if letter == signs[1] else value

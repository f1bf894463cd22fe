"""Bytes to an RGB picture for a model: under guard, whatever mode the file has."""

from __future__ import annotations

import numpy as np
from PIL import Image

from stages.picture_files import PictureFileError, open_guarded
from stages.step import OutOfMemoryError

MAX_SIDE_RATIO = 32
_LOWER_BITS = 8


class PictureError(PictureFileError):
    """A body that is no picture a model can take: one line of printable ASCII."""


def open_picture(body: bytes) -> Image.Image:
    """Return the first frame as an RGB picture; an EXIF turn is not applied, an alpha channel is dropped.

    16-bit grey levels lose their lower 8 bits. A picture more than 32 times as long as wide is cut to its middle:
    models look at the middle square anyway, and scaling a line of pixels to their size would fill the memory.

    Raises:
        PictureError: The body is empty, no accepted format, too large for Pillow's limit, or damaged.
        OutOfMemoryError: The machine's memory did not hold its pixels: nothing is said of the picture.
    """
    if not body:
        raise PictureError("0 bytes")
    try:
        with open_guarded(body) as image:
            image.load()
            return _middle(_rgb(image))
    except PictureFileError as error:
        raise PictureError(error.detail) from error
    except MemoryError as error:
        raise OutOfMemoryError(f"the pixels of a picture ({len(body)} bytes) do not fit into memory") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        deep = image.mode != "I" or levels.max() > 255
        eight = np.clip(levels >> _LOWER_BITS if deep else levels, 0, 255).astype(np.uint8)
        return Image.fromarray(eight).convert("RGB")
    if image.mode == "F":
        levels = np.nan_to_num(np.asarray(image), nan=0.0, posinf=255.0, neginf=0.0)
        return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    return image.convert("RGB")


def _middle(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    longest = MAX_SIDE_RATIO * min(width, height)
    if max(width, height) <= longest:
        return picture
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return picture.crop((left, top, left + min(width, longest), top + min(height, longest)))

"""Pictures as the captioner and the judge are given them: no larger than a model has use for."""

from __future__ import annotations

from PIL import Image

from stages.pictures import open_picture

SHORT_SIDE = 1024
"""Pixels. Over twice what the largest encoder of a shipped recipe looks at (RN50x64: 448), and more than the disc
that is turned (724): a batch of pictures is held at once, and one may have 300 MB."""


def open_bounded(body: bytes) -> Image.Image:
    """Return the first frame as an RGB picture, its short side at most `SHORT_SIDE`: 3 MiB where it is a square.

    A smaller picture is exactly that of `open_picture`, which also bounds how much longer than wide one is. A larger
    one is scaled down, bicubic with antialiasing in whole numbers: equal bytes give equal pixels on any machine.

    Raises:
        PictureError: If it is no picture that a model can take.
    """
    picture = open_picture(body)
    short = min(picture.size)
    if short <= SHORT_SIDE:
        return picture
    width, height = (round(side * SHORT_SIDE / short) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)

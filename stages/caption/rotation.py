"""The views of the rotation rule: one picture turned step by step, each view showing the same disc of ground."""

from __future__ import annotations

import math

from PIL import Image

# The disc is brought to this diameter before it is turned: the square in it has 512 pixels a side, more than any
# encoder named in a shipped recipe looks at (RN50x64: 448), and large frames cost no more than small ones.
_MAX_DIAMETER = 724


def views(picture: Image.Image, rotations: int) -> list[Image.Image]:
    """Return ``rotations`` square views, turned by equal steps of 360 / rotations degrees, the first one upright.

    The paper turns by 12 steps of 30 degrees and does not say what becomes of the corners. Here every view is the
    square inscribed in the largest centred disc, for the upright view too: no view has filled corners that the
    encoder could see, and none shows ground that another does not have the chance to show. Filled corners would make
    the variance measure the filling: they come and go with the angle.

    Args:
        picture: RGB, of any size.
        rotations: How many views.
    """
    diameter = min(picture.size)
    left, top = (picture.width - diameter) // 2, (picture.height - diameter) // 2
    box = (left, top, left + diameter, top + diameter)
    side = min(diameter, _MAX_DIAMETER)
    disc = picture.resize((side, side), Image.Resampling.BICUBIC, box=box) if side < diameter else picture.crop(box)
    inner = max(1, math.floor(side / math.sqrt(2)))
    start = (side - inner) // 2
    crop = (start, start, start + inner, start + inner)
    turned = (disc.rotate(360.0 * step / rotations, Image.Resampling.BICUBIC) for step in range(rotations))
    return [view.crop(crop) for view in turned]

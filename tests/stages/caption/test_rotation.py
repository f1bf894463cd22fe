import numpy as np
import pytest
from PIL import Image, ImageDraw

from stages.caption.rotation import views


def disc_picture(width, height):
    """Smooth inside a circle around the middle, pure red outside of it."""
    y, x = np.mgrid[:height, :width]
    radius = np.hypot(x - (width - 1) / 2, y - (height - 1) / 2)
    pixels = np.stack([radius * 0, radius / radius.max() * 255, 255 - x / width * 255], axis=-1)
    pixels[radius > min(width, height) / 2] = (255, 0, 0)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("size", [(120, 120), (200, 131), (2000, 1501)])
def test_every_view_shows_the_disc_alone_without_filled_corners(size):
    shown = views(disc_picture(*size), 12)
    assert len({view.size for view in shown}) == 1
    side = shown[0].width
    assert side == int(min(*size, 724) / 2**0.5)
    for view in shown:
        # What lies outside the disc is red; filling would be black in all bands.
        inner = np.asarray(view)[2:-2, 2:-2]
        assert inner[..., 0].max() < 60
        assert inner.astype(int).sum(axis=-1).min() > 30


def test_steps_are_equal_and_quarter_turns_are_exact():
    picture = disc_picture(101, 101)
    shown = views(picture, 12)
    upright = np.asarray(shown[0]).astype(int)
    for quarter in range(1, 4):
        turned = np.asarray(shown[3 * quarter]).astype(int)
        assert np.abs(turned - np.rot90(upright, quarter)).mean() < 2
    assert np.abs(np.asarray(shown[1]).astype(int) - upright).mean() > 2
    assert [view.tobytes() for view in views(picture, 4)] == [view.tobytes() for view in shown[::3]]


def test_the_middle_of_a_frame_is_looked_at():
    frame = Image.new("RGB", (300, 100), "blue")
    ImageDraw.Draw(frame).rectangle((100, 0, 199, 99), fill="white")
    assert all(np.asarray(view).min() > 250 for view in views(frame, 4))


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 900), (3, 3)])
def test_the_smallest_pictures(size):
    shown = views(Image.new("RGB", size, "green"), 12)
    assert len(shown) == 12
    assert min(shown[0].size) >= 1

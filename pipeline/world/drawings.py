"""Pictures made by formula: smooth textures for the nano world, and synthetic non-photographs for the mini world.

Everything is drawn from `manifests.identity.draw`, so a picture is the same wherever it is made.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from manifests.identity import draw
from pipeline.world.scenes import Pixels

Grid = NDArray[np.float64]


def texture(number: int, width: int, height: int) -> Pixels:
    """Return a smooth colour texture: per channel, a sum of twelve waves of low frequency.

    Args:
        number: Which texture; equal numbers give equal pictures.
        width: Pixels.
        height: Pixels.

    Returns:
        Array (height, width, 3).
    """
    y, x = np.mgrid[0:height, 0:width]
    across, down = x / width, y / height
    shared = _waves("shape", number, across, down)
    channels = [shared + 0.35 * _waves(f"tint-{channel}", number, across, down) for channel in range(3)]
    return np.stack([_to_bytes(channel) for channel in channels], axis=2)


def _waves(what: str, number: int, across: Grid, down: Grid) -> Grid:
    total = np.zeros_like(across)
    for wave in range(12):
        # Half periods: they fill the 8 by 8 block of the cosine transform that a perceptual hash looks at.
        along = [np.pi * int(8 * draw(what, number, wave, axis)) for axis in "xy"]
        phase = [2 * np.pi * draw(what, number, wave, axis, "phase") for axis in "xy"]
        strength = 0.3 + draw(what, number, wave, "strength")
        total += strength * np.cos(along[0] * across + phase[0]) * np.cos(along[1] * down + phase[1])
    return total


def _to_bytes(grid: Grid) -> Pixels:
    low, high = float(grid.min()), float(grid.max())
    return np.clip((grid - low) * (255.0 / max(high - low, 1e-9)), 0, 255).astype(np.uint8)


def synthetic() -> dict[str, Pixels]:
    """Return the mini world's synthetic pictures by name: plots, gradients, noise, line drawings."""
    shapes: dict[str, Callable[[int], Image.Image]] = {
        "bars": _bars, "curve": _curve, "rings": _rings, "blocks": _blocks, "boxes": _boxes, "star": _star,
    }  # fmt: skip
    made = {f"{name}-{number}": np.asarray(make(number)) for name, make in shapes.items() for number in (1, 2)}
    made |= {f"noise-{number}": _noise(number) for number in (1, 2)}
    made |= {f"gradient-{number}": texture(900 + number, 320, 240) for number in (1, 2)}
    return made


def _paper() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (320, 240), (250, 250, 246))
    return image, ImageDraw.Draw(image)


def _colour(*key: str | int) -> tuple[int, int, int]:
    red, green, blue = (30 + int(190 * draw(*key, channel)) for channel in "rgb")
    return red, green, blue


def _bars(number: int) -> Image.Image:
    image, pen = _paper()
    for bar in range(4 + 3 * number):
        left = 24 + bar * 280 // (4 + 3 * number)
        top = 30 + int(170 * draw("bars", number, bar))
        pen.rectangle((left, top, left + 160 // (4 + 3 * number), 214), fill=_colour("bars", number, bar))
    pen.line((18, 16, 18, 215, 304, 215), fill=(20, 20, 20), width=2)
    return image


def _curve(number: int) -> Image.Image:
    image, pen = _paper()
    for line in range(3):
        points = [(20 + 14 * step, 20 + int(190 * draw("curve", number, line, step))) for step in range(21)]
        pen.line(points, fill=_colour("curve", number, line), width=3)
    pen.line((18, 16, 18, 215, 304, 215), fill=(20, 20, 20), width=2)
    return image


def _rings(number: int) -> Image.Image:
    image, pen = _paper()
    x, y = 100 + int(120 * draw("rings", number, "x")), 80 + int(80 * draw("rings", number, "y"))
    for ring in range(9, 0, -1):
        reach = ring * (9 + 6 * number)
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=_colour("rings", number, ring))
    return image


def _blocks(number: int) -> Image.Image:
    image, pen = _paper()
    for cell in range(48):
        left, top = cell % 8 * 40, cell // 8 * 40
        pen.rectangle((left, top, left + 39, top + 39), fill=_colour("blocks", number, cell))
    return image


def _boxes(number: int) -> Image.Image:
    image, pen = _paper()
    spots = [
        (int(240 * draw("boxes", number, box, "x")), int(190 * draw("boxes", number, box, "y"))) for box in range(7)
    ]
    pen.line([(x + 35, y + 20) for x, y in spots], fill=(60, 60, 60), width=2)
    for box, (x, y) in enumerate(spots):
        pen.rectangle((x, y, x + 70, y + 40), fill=_colour("boxes", number, box), outline=(20, 20, 20), width=2)
    return image


def _star(number: int) -> Image.Image:
    image, pen = _paper()
    points = [
        (160 + (110 - 70 * (corner % 2)) * np.cos(corner * np.pi / (4 + number)),
         120 + (110 - 70 * (corner % 2)) * np.sin(corner * np.pi / (4 + number)))
        for corner in range(8 + 2 * number)
    ]  # fmt: skip
    pen.polygon([(round(float(x)), round(float(y))) for x, y in points], fill=_colour("star", number))
    return image


def _noise(number: int) -> Pixels:
    side = 24 * number
    cells = [int(256 * draw("noise", number, cell)) for cell in range(side * side * 3)]
    grid: Pixels = np.array(cells, dtype=np.uint8).reshape(side, side, 3)
    return grid.repeat(240 // side, axis=0).repeat(240 // side, axis=1)

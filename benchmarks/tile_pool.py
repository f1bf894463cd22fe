"""Distinct overhead tiles of 64 to 150 pixels: windows of real imagery, and rendered sea, sand, cloud and the like.

Distinct means: windows of one picture that are cut at the same size overlap by at most half along an axis, and those
cut at different sizes differ by a factor of at least 1.5 in what they cover; no two source pictures show each other
(landsat/RGB.byte.tif is, pixel for pixel, the mini world's Bahamas, so it is used once); every rendered tile is a
random field of its own; gradients differ by 15 degrees, or by 16 levels in their middle or their range; plain colours
differ by at least 24 levels in a channel. Left out and counted: windows with more than 2 % of no data, and windows
whose grey levels spread by less than one level (blank sea floor, overexposed snow), which are one picture many times.

Drawn relief is told apart: the mini world's shaded relief of the globe, and the sea floor that is drawn into its Blue
Marble (windows with less than 20 % of land), are no imagery; the gates are on the other kinds.

AID's own 1,500 pictures are not cleaned: where two of them show the same place, they count against the result.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.fft
from PIL import Image, ImageDraw, ImageEnhance

from pipeline.world.scenes import scene_bytes, scene_pixels, scenes
from pipeline.world.wheels import fetch_wheels, wheel_cache
from stages.download.render import BANDS, stretch
from stages.geotiff import read_band

SEED = 20230620
SMALLEST, LARGEST, LADDER = 64, 150, 1.5
RENDERED = {"sea": 34_000, "sand": 30_000, "cloud": 34_000, "fog": 12_000, "snow": 12_000, "fields": 30_000}
DRAWN_WINDOWS = 12_000
PLAIN_STEP, GRADIENT_STEP, GRADIENT_DEGREES = 24, 16, 15
REAL_KINDS = ("aerial", "airborne", "landsat", "sentinel", "globe")
DRAWN = "drawn"
LEAST_LAND = 0.2
_KIND_OF_SCENE = {"bmng": "globe", "shadedrelief": DRAWN, "bahamas": "landsat", "sfbay": "landsat"}
_KIND_OF_SCENE |= {"slc_rgb": "landsat", "rmnp": "landsat"}
_BORDER_PX = {"rmnp": 12}


@dataclass(frozen=True, slots=True)
class Tile:
    """Where a tile comes from: a window of a picture, or the number of a rendered one (picture -1)."""

    kind: str
    picture: int
    top: int
    left: int
    footprint: int
    side: int
    number: int


class TilePool:
    """All tiles, by index; the same on every machine, up to the decoders and the rounding of the transforms."""

    def __init__(self, data: Path | None, say) -> None:
        self.names: list[str] = []
        self._pictures: list[np.ndarray] = []
        self.tiles: list[Tile] = []
        for kind, name, pixels in _pictures(data, say):
            self.names.append(name)
            self._pictures.append(pixels)
            windows = _windows(kind, len(self._pictures) - 1, pixels)
            self.tiles += _without_sea_floor(windows, pixels) if kind == "globe" else windows
        drawn = [number for number, tile in enumerate(self.tiles) if tile.kind == DRAWN]
        chosen = np.random.default_rng(SEED).permutation(len(drawn))[:DRAWN_WINDOWS]
        kept = {drawn[number] for number in chosen}
        self.tiles = [tile for number, tile in enumerate(self.tiles) if tile.kind != DRAWN or number in kept]
        for kind, count in RENDERED.items():
            sides = np.random.default_rng([SEED, len(kind), ord(kind[0])]).integers(SMALLEST, LARGEST + 1, count)
            self.tiles += [Tile(kind, -1, 0, 0, 0, int(side), number) for number, side in enumerate(sides)]
        for kind, table in (("gradient", gradients()), ("plain", plain_colours())):
            sides = np.random.default_rng([SEED, len(kind), ord(kind[0])]).integers(SMALLEST, LARGEST + 1, len(table))
            self.tiles += [Tile(kind, -1, 0, 0, 0, int(side), number) for number, side in enumerate(sides)]

    def pixels(self, index: int) -> np.ndarray | None:
        """Pixels of a tile, uint8 (side, side, 3); None for a window that is blank or lacks data."""
        tile = self.tiles[index]
        if tile.picture < 0:
            return _render(tile.kind, tile.number, tile.side)
        picture = self._pictures[tile.picture]
        window = picture[tile.top : tile.top + tile.footprint, tile.left : tile.left + tile.footprint]
        if tile.kind != "aerial" and (window.max(axis=2) == 0).mean() > 0.02:
            return None
        if tile.side != tile.footprint:
            small = Image.fromarray(window).resize((tile.side, tile.side), Image.Resampling.LANCZOS, reducing_gap=3.0)
            window = np.asarray(small)
        return None if grey(window).std() < 1.0 else window


def grey(pixels: np.ndarray) -> np.ndarray:
    """Grey levels as Pillow makes them (ITU-R 601-2)."""
    return np.asarray(Image.fromarray(pixels).convert("L"))


def _pictures(data: Path | None, say):
    """Yield kind, name and pixels of every source picture."""
    wheels = fetch_wheels(wheel_cache(), say)
    for scene in scenes().values():
        if scene.kind == "overhead" or scene.key == "shadedrelief":
            border = _BORDER_PX.get(scene.key, 0)
            pixels = scene_pixels(scene, scene_bytes(scene, wheels))
            height, width = pixels.shape[:2]
            inner = pixels[border : height - border, border : width - border]
            yield _KIND_OF_SCENE.get(scene.key, "airborne"), scene.key, inner
    if data is None:
        return
    for file in sorted((data / "rs-pairs").rglob("*.jpg")):
        with Image.open(file) as image:
            yield "aerial", file.stem, np.asarray(image.convert("RGB"))
    for patch in sorted((data / "bigearthnet" / "s2").iterdir()):
        red, green, blue = (read_band((patch / f"{patch.name}_{band}.tif").read_bytes()) for band in BANDS)
        yield "sentinel", patch.name, stretch(red, green, blue)


def _windows(kind: str, picture: int, pixels: np.ndarray) -> list[Tile]:
    """Windows of a picture at every rung of the ladder of sizes; those larger than a tile are shrunk to one."""
    height, width = pixels.shape[:2]
    rng = np.random.default_rng([SEED, picture])
    made, footprint = [], SMALLEST
    while footprint <= min(height, width):
        step = (footprint + 1) // 2
        for top in range(0, height - footprint + 1, step):
            for left in range(0, width - footprint + 1, step):
                side = footprint if footprint <= LARGEST else int(rng.integers(SMALLEST, LARGEST + 1))
                made.append(Tile(kind, picture, top, left, footprint, side, 0))
        footprint = round(footprint * LADDER) if footprint != 96 or min(height, width) != 150 else 150
    return made


def _without_sea_floor(windows: list[Tile], globe: np.ndarray) -> list[Tile]:
    """Windows of the globe, those with too little land as drawn: its sea floor is shading, not imagery."""
    wide = globe.astype(np.int16)
    red, blue = wide[..., 0], wide[..., 2]
    land = (red + 8 >= blue) & (wide.sum(axis=2) > 40)  # as pipeline/world/crops.py tells it
    sums = np.pad(land.cumsum(axis=0, dtype=np.int64).cumsum(axis=1), ((1, 0), (1, 0)))
    made = []
    for tile in windows:
        bottom, right = tile.top + tile.footprint, tile.left + tile.footprint
        inside = sums[bottom, right] - sums[tile.top, right] - sums[bottom, tile.left] + sums[tile.top, tile.left]
        enough = inside >= LEAST_LAND * tile.footprint**2
        made.append(tile if enough else dataclasses.replace(tile, kind=DRAWN))
    return made


def gradients() -> np.ndarray:
    """Direction (degrees), middle (grey level) and range (levels) of every gradient, all inside 0 to 255."""
    rows = [
        (degrees, middle, reach)
        for degrees in range(0, 360, GRADIENT_DEGREES)
        for middle in range(32, 225, GRADIENT_STEP)
        for reach in range(GRADIENT_STEP, 129, GRADIENT_STEP)
        if middle - reach / 2 >= 0 and middle + reach / 2 <= 255
    ]
    return np.array(rows, np.float32)


def plain_colours() -> np.ndarray:
    """Every colour on a grid, as float32 [colours, 3]."""
    levels = np.arange(8, 249, PLAIN_STEP)
    return np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3).astype(np.float32)


@functools.lru_cache(maxsize=256)
def _frequencies(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Cycles a pixel along x and y of a half-spectrum."""
    across, down = np.meshgrid(np.fft.rfftfreq(side), np.fft.fftfreq(side))
    return across.astype(np.float32), down.astype(np.float32)


def _field(rng, side: int, spectrum) -> np.ndarray:
    """A random field of unit deviation whose amplitudes follow spectrum(across, down, k); it does not wrap around."""
    wide = scipy.fft.next_fast_len(side + side // 3, real=True)
    across, down = _frequencies(wide)
    k = np.hypot(across, down)
    k[0, 0] = 1.0
    amplitude = spectrum(across, down, k)
    amplitude[0, 0] = 0.0
    white = scipy.fft.rfft2(rng.standard_normal((wide, wide), dtype=np.float32))
    out = scipy.fft.irfft2(white * amplitude, s=(wide, wide))[:side, :side]
    return (out / max(float(out.std()), 1e-6)).astype(np.float32)


def _fractal(rng, side: int, power: float) -> np.ndarray:
    return _field(rng, side, lambda _, __, k: k**-power)


def _swell(rng, side: int) -> np.ndarray:
    """Sea surface: directional swell, and wind sea with a k^-3 energy tail (Phillips), about the wind's direction."""
    wind, length = rng.uniform(0, 2 * np.pi), rng.uniform(5, 40)
    spread, share = rng.integers(1, 8), rng.uniform(0.2, 0.9)

    def spectrum(across, down, k):
        along = np.abs(np.cos(np.arctan2(down, across) - wind))
        swell = np.exp(-0.5 * ((k - 1 / length) / (0.25 / length)) ** 2) * along ** (2 * spread)
        chop = k**-1.5 * np.exp(-((0.05 / k) ** 2)) * along
        return share * swell / np.sqrt((swell**2).sum()) + (1 - share) * chop / np.sqrt((chop**2).sum())

    return _field(rng, side, spectrum)


def _ripples(rng, side: int) -> np.ndarray:
    """Wind ripples: bent crests, steep on one side, that end and fork where the bending is strong."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    turn, length = rng.uniform(0, np.pi), rng.uniform(4, 25)
    bend = _fractal(rng, side, rng.uniform(1.4, 2.2)) * rng.uniform(0.5, 3.0)
    phase = 2 * np.pi * (x * np.cos(turn) + y * np.sin(turn)) / length + bend
    return np.sin(phase + 0.5 * np.sin(phase))


def _between(rng, low, high) -> np.ndarray:
    """A colour between two, a little off the line."""
    return np.asarray(low) + rng.random() * np.subtract(high, low) + rng.uniform(-10, 10, 3)


def _sea(rng, side):
    level = _swell(rng, side) * rng.uniform(1.5, 12) + _fractal(rng, side, 2.0) * rng.uniform(0.3, 5)
    if rng.random() < 0.3:  # glint: facets that face the sun
        facets = np.maximum(_swell(rng, side) - rng.uniform(0.8, 2.0), 0)
        level += facets * rng.uniform(15, 60)
    return level, _between(rng, (10, 30, 45), (70, 105, 130)), (0.8, 1.0, 1.0)


def _sand(rng, side):
    level = _ripples(rng, side) * rng.uniform(3, 18) + _fractal(rng, side, 1.8) * rng.uniform(1, 18)
    return level, _between(rng, (160, 130, 85), (235, 205, 160)), (1.0, 0.95, 0.8)


def _cloud(rng, side):
    ground = _fractal(rng, side, rng.uniform(1.2, 2.0)) * rng.uniform(2, 15) + rng.uniform(20, 110)
    thick = _fractal(rng, side, rng.uniform(1.5, 2.3)) + rng.uniform(-1.5, 3.0)  # at 3 it is overcast
    cover = 1 / (1 + np.exp(-thick * rng.uniform(1.5, 4)))
    top = rng.uniform(200, 240) + _fractal(rng, side, 1.8) * rng.uniform(1, 8)
    return ground * (1 - cover) + top * cover, np.zeros(3), (0.97, 0.99, 1.0)


def _fog(rng, side):
    ground = _fractal(rng, side, rng.uniform(1.1, 1.8)) * rng.uniform(15, 35)
    thick = rng.uniform(0.75, 0.95) + 0.04 * _fractal(rng, side, 2.2)
    return ground * (1 - thick), _between(rng, (140, 145, 150), (215, 218, 220)), (1.0, 1.0, 1.0)


def _snow(rng, side):
    level = _fractal(rng, side, rng.uniform(1.5, 2.3)) * rng.uniform(1.0, 8)
    if rng.random() < 0.4:  # sastrugi
        level += _ripples(rng, side) * rng.uniform(0.5, 5)
    return level, _between(rng, (215, 218, 222), (245, 247, 250)), (1.0, 1.0, 0.97)


def _fields(rng, side):
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    turn = rng.uniform(0, np.pi)
    across, along = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    wide, deep = rng.uniform(25, 120, 2)
    column = np.floor(across / wide + rng.random()).astype(np.int64) % 7
    row = np.floor(along / deep + rng.random()).astype(np.int64) % 7
    level, reach = rng.uniform(-35, 35, (7, 7)), rng.uniform(2, 20, (7, 7))
    turned, spacing = rng.random((7, 7)) < 0.3, rng.uniform(3, 12, (7, 7))
    place = np.where(turned[row, column], along, across)
    rows = np.sin(2 * np.pi * place / spacing[row, column]) * reach[row, column]
    return (
        level[row, column] + rows + _fractal(rng, side, 1.2) * rng.uniform(1, 8),
        _between(rng, (90, 80, 60), (140, 150, 110)),
        (1, 1, 1),
    )


_LANDS = {"sea": _sea, "sand": _sand, "cloud": _cloud, "fog": _fog, "snow": _snow, "fields": _fields}


def _render(kind: str, number: int, side: int) -> np.ndarray:
    rng = np.random.default_rng([SEED, len(kind), ord(kind[0]), number])
    if kind == "plain":
        level, base, tint = np.zeros((side, side), np.float32), plain_colours()[number], (1.0, 1.0, 1.0)
    elif kind == "gradient":
        degrees, middle, reach = gradients()[number]
        y, x = (np.mgrid[0:side, 0:side].astype(np.float32) + 0.5) / side - 0.5
        turn = np.radians(degrees)
        place = x * np.cos(turn) + y * np.sin(turn)
        level, base, tint = place * (reach / (2 * np.abs(place).max())), np.full(3, middle), (1.0, 1.0, 1.0)
    else:
        level, base, tint = _LANDS[kind](rng, side)
    noise = rng.standard_normal((side, side, 3), dtype=np.float32) * rng.uniform(0.7, 3.0)  # of the sensor
    return np.clip(level[..., None] * np.asarray(tint) + base + noise + 0.5, 0, 255).astype(np.uint8)


FILTERS = ("NEAREST", "BOX", "BILINEAR", "HAMMING", "BICUBIC", "LANCZOS")
SMALLEST_COPY = 32
TURNS = {
    "rotate 90": Image.Transpose.ROTATE_90, "rotate 180": Image.Transpose.ROTATE_180,
    "rotate 270": Image.Transpose.ROTATE_270, "mirror": Image.Transpose.FLIP_LEFT_RIGHT,
    "flip": Image.Transpose.FLIP_TOP_BOTTOM, "transpose": Image.Transpose.TRANSPOSE,
    "transverse": Image.Transpose.TRANSVERSE,
}  # fmt: skip


def encoded(image, quality, **settings):
    out = io.BytesIO()
    image.save(out, "JPEG", quality=int(quality), **settings)
    return out.getvalue()


def original(pool, index):
    pixels = pool.pixels(index)
    if pixels is None:
        return None
    rng = np.random.default_rng([SEED, 1, index])
    if rng.random() >= 0.1:
        return encoded(Image.fromarray(pixels), rng.integers(75, 96))
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def crop(image, rng, share):
    """A share of width and of height cut away, from sides by chance."""
    width, height = round(image.width * (1 - share)), round(image.height * (1 - share))
    left, top = rng.integers(0, image.width - width + 1), rng.integers(0, image.height - height + 1)
    return image.crop((left, top, left + width, top + height))


def marked(image, _):
    """Half-transparent words in a corner, an eighth of the picture high."""
    layer = Image.new("RGBA", image.size)
    pen, high = ImageDraw.Draw(layer), image.height // 8
    pen.text((image.width // 10, image.height - 2 * high), "(c) AERIAL", fill=(255, 255, 255, 160), font_size=high)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def bordered(image, _):
    wide = Image.new("RGB", (round(image.width * 1.06), round(image.height * 1.06)), (255, 255, 255))
    wide.paste(image, (round(image.width * 0.03), round(image.height * 0.03)))
    return wide


def bent(image, gamma):
    return image.point([round(255 * (level / 255) ** gamma) for level in range(256)] * 3)


CHANGES = {
    **{f"crop {share:.0%}": functools.partial(crop, share=share) for share in (0.01, 0.02, 0.05, 0.1)},
    "brightness x0.9": lambda image, _: ImageEnhance.Brightness(image).enhance(0.9),
    "brightness x1.2": lambda image, _: ImageEnhance.Brightness(image).enhance(1.2),
    "contrast x0.8": lambda image, _: ImageEnhance.Contrast(image).enhance(0.8),
    "contrast x1.2": lambda image, _: ImageEnhance.Contrast(image).enhance(1.2),
    "gamma 0.8": lambda image, _: bent(image, 0.8),
    "gamma 1.25": lambda image, _: bent(image, 1.25),
    "words laid over": marked,
    "white border 3%": bordered,
    "greyscale": lambda image, _: image.convert("L").convert("RGB"),
    **{name: (lambda image, _, turn=turn: image.transpose(turn)) for name, turn in TURNS.items()},
}


def copied(image, rng, smallest):
    """A planted copy: its bytes, which way, its quality (0 where not chosen), its scale and filter."""
    way = rng.integers(3)
    quality = int(rng.integers(30, 96)) if way != 1 else 90
    scale, resampling = 1.0, ""
    if way:
        low = max(0.3, smallest / min(image.size))
        scale = float(np.exp(rng.uniform(np.log(low), np.log(2.0))))
        size = [max(1, round(side * scale)) for side in image.size]
        resampling = FILTERS[rng.integers(len(FILTERS))]
        image = image.resize(size, Image.Resampling[resampling])
    way = ("re-encoded", "resized", "both")[way]
    return encoded(image, quality), way, quality if way != "resized" else 0, scale, resampling


def made(pool, index, how):
    """The body of a tile or of what became of it, and of a copy its way, quality, scale and filter."""
    body = original(pool, index)
    if body is None or how == "original":
        return body, "", 0, 1.0, ""
    rng = np.random.default_rng([SEED, 2, index, len(how)])
    with Image.open(io.BytesIO(body)) as opened:
        image = opened.convert("RGB")
    if how in ("copy", "tiny copy"):
        return copied(image, rng, SMALLEST_COPY if how == "copy" else 1)
    if how == "chroma 4:4:4":
        return encoded(image, 90, subsampling=0), "", 0, 1.0, ""
    return encoded(CHANGES[how](image, rng), 90), "", 0, 1.0, ""

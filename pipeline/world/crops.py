"""The crop plan: which windows of which scene become tiles, and which class each tile is.

Windows stand on a centred grid and overlap by at most 16 pixels (bahamas 12). Rules and thresholds work on 8-bit RGB
and were set by eye on a sheet of all tiles; they name what is in the picture, roughly.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.world.scenes import Pixels

_MIN_STD = 6.0
# Six windows of the bay are almost blank water: (y, x) of their corners.
_SFBAY_BLANK = {(590, 2), (830, 2), (1070, 2), (1310, 242), (1310, 1442), (1550, 242)}
_GRID_PX = {"yell2": (256, 240), "yell1": (256, 240), "awpe": (256, 240), "slc_rgb": (256, 240), "sfbay": (256, 240)}
_GRID_PX |= {"osbs": (400, 400), "soap_031": (400, 400), "soap_061": (400, 400), "bahamas": (192, 180)}
_GRID_PX |= {"rmnp": (224, 224)}


@dataclass(frozen=True, slots=True)
class Tile:
    """One window of a scene.

    Attributes:
        name: ``<scene>-<y>-<x>``, of the window's corner in pixels of the scene.
        scene: Key of the scene.
        kind: Class name, a key of `captions.SENTENCES`.
        pixels: Array (height, width, 3).
        place: What a caption may say of the position, or an empty string.
    """

    name: str
    scene: str
    kind: str
    pixels: Pixels
    place: str


def tiles(scene: str, pixels: Pixels) -> Iterator[Tile]:
    """Cut a scene into its tiles, row by row.

    Args:
        scene: Key of an overhead scene.
        pixels: The whole scene, (height, width, 3).
    """
    for y, x, size in _windows(scene, pixels):
        window = pixels[y : y + size, x : x + size]
        if _keeps(scene, window, y, x):
            yield Tile(f"{scene}-{y:05d}-{x:05d}", scene, _kind(scene, window), window, _place(scene, y, x, size))


def _windows(scene: str, pixels: Pixels) -> Iterator[tuple[int, int, int]]:
    height, width = pixels.shape[:2]
    if scene == "bmng":
        yield from ((y, x, 256) for y in range(20, height - 255, 240) for x in range(52, width - 255, 240))
        return
    top, left = 0, 0
    if scene == "rmnp":  # a white border of 12 pixels
        top, left, height, width = 12, 12, 348, 460
    size, step = _GRID_PX[scene]
    rows, columns = (height - size) // step + 1, (width - size) // step + 1
    top += (height - ((rows - 1) * step + size)) // 2
    left += (width - ((columns - 1) * step + size)) // 2
    yield from ((top + row * step, left + column * step, size) for row in range(rows) for column in range(columns))


def _keeps(scene: str, window: Pixels, y: int, x: int) -> bool:
    wide = window.astype(np.int16)
    red, green, blue = wide[..., 0], wide[..., 1], wide[..., 2]
    spread = float(window.reshape(-1, 3).std(axis=0).mean())
    if scene == "bmng":
        land = float(((red + 8 >= blue) & (red + green + blue > 40)).mean())
        blank = float((wide.min(axis=2) > 225).mean())
        return land >= 0.2 and spread >= 8 and blank <= 0.6
    if scene == "bahamas" and float((wide.max(axis=2) == 0).mean()) > 0.02:
        return False
    return spread >= _MIN_STD and not (scene == "sfbay" and (y, x) in _SFBAY_BLANK)


def _kind(scene: str, window: Pixels) -> str:
    wide = window.astype(np.int16)
    red, green, blue = wide[..., 0], wide[..., 1], wide[..., 2]
    light = wide.sum(axis=2) / 3
    match scene:
        case "yell2":
            dark = float((light < 85).mean())
            return "sagebrush" if dark < 0.06 else "scattered_conifers" if dark < 0.25 else "conifer_stand"
        case "yell1":
            grey = (abs(red - green) < 14) & (abs(green - blue) < 18) & (light > 150)
            return "forest_road" if float(grey.mean()) > 0.10 else "conifer_forest"
        case "slc_rgb":
            water = float((green >= red).mean())
            if water > 0.5:
                return "salt_lake_water"
            if float((light > 140).mean()) > 0.4:
                return "salt_flats"
            return "salt_lake_shore" if water > 0.1 else "desert_ranges"
        case "sfbay":
            water = float(((red < 60) & (green < 50)).mean())
            if water > 0.15:
                return "bay_water" if water > 0.6 else "bay_shore"
            hills = (red > 90) & (red > 1.7 * green)
            return "bay_hills" if float(hills.mean()) > 0.55 else "bay_city"
        case "bmng":
            if float((wide.min(axis=2) > 190).mean()) > 0.3:
                return "globe_ice"
            if float((blue > red + 20).mean()) > 0.45:
                return "globe_coast"
            desert = (red > blue + 35) & (red > 120)
            return "globe_desert" if float(desert.mean()) > 0.45 else "globe_land"
        case "soap_031" | "soap_061":
            return "dead_trees"
    return {"osbs": "open_woodland", "awpe": "pelicans", "bahamas": "shallows", "rmnp": "ridges"}[scene]


def _place(scene: str, y: int, x: int, size: int) -> str:
    if scene != "bmng":
        return ""
    # Plate carree: 1/15 degree a pixel, the corner is 180 W, 90 N.
    latitude, longitude = 90 - (y + size / 2) / 15, (x + size / 2) / 15 - 180
    north = f"{abs(latitude):.1f} {'N' if latitude >= 0 else 'S'}"
    return f"{north}, {abs(longitude):.1f} {'E' if longitude >= 0 else 'W'}"

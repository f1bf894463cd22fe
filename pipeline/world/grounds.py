"""Where pictures of the mini world lie on the ground, as far as their scenes tell."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.world.draft import Picture


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a picture lies.

    Attributes:
        country: Three letters, as fMoW writes them.
        utm: Zone and band.
        west: Degrees of its outline.
        south: See west.
        east: See west.
        north: See west.
        gsd_m: Metres a pixel.
    """

    country: str
    utm: str
    west: float
    south: float
    east: float
    north: float
    gsd_m: float

    @property
    def outline(self) -> str:
        """The outline as fMoW writes it: a closed polygon in well-known text, longitude before latitude."""
        corners = [(self.west, self.north), (self.east, self.north), (self.east, self.south), (self.west, self.south)]
        return "POLYGON ((" + ", ".join(f"{lon} {lat}" for lon, lat in (*corners, corners[0])) + "))"

    @property
    def middle(self) -> tuple[float, float]:
        """Longitude and latitude of its middle, degrees."""
        return (self.west + self.east) / 2, (self.south + self.north) / 2


# Outlines of the 1 km tiles of two NEON scenes (scenes.toml); those of the lake are its own pixels'.
YELL1 = Ground("USA", "12T", -110.48029, 44.94525, -110.46753, 44.9542, 0.1)
YELL2 = Ground("USA", "12T", -110.64502, 44.95488, -110.63228, 44.96385, 0.1)

_DRONE_LON, _DRONE_LAT, _DRONE_TAKEN = -94.348758, 45.037992, "2020-06-04 22:10:30.0"  # its EXIF
# The Landsat scene is plate carree: its upper left corner and degrees a pixel.
_LAKE_WEST, _LAKE_NORTH, _LAKE_DEGREES, _LAKE_GSD_M, _TILE_PX = -112.909, 41.006, 0.000269, 30.0, 256
# So is the globe: 15 pixels a degree, the corner is 180 W, 90 N.
_GLOBE_PX = 256


def lake_ground(picture: Picture) -> Ground:
    """Return where a tile of the Landsat scene lies, by the corner in its name."""
    y, x = _corner(picture)
    west, north = _LAKE_WEST + x * _LAKE_DEGREES, _LAKE_NORTH - y * _LAKE_DEGREES
    side = _TILE_PX * _LAKE_DEGREES
    west, south, east, north = (round(degrees, 6) for degrees in (west, north - side, west + side, north))
    return Ground("USA", "12T", west, south, east, north, _LAKE_GSD_M)


def _corner(picture: Picture) -> tuple[int, int]:
    """Return y and x of a tile's corner in its scene, which end its name."""
    y, x = picture.name.split("-")[-2:]
    return int(y), int(x)


def camera_note(picture: Picture) -> dict[str, str] | None:
    """Return what YFCC's record of a picture may say truly of where it was taken, and a time; None without a place.

    Longitude and latitude of the middle: of the tile, of the square kilometre that the scene is from, or of the drone.
    The drone's time is its own; the others are invented, the park's in the year of its scenes.

    Args:
        picture: A picture of the mini world.
    """
    match picture.group.removeprefix("world:"):
        case "awpe":
            return _note(_DRONE_LON, _DRONE_LAT, _DRONE_TAKEN, "DJI FC6310")
        case "yell1":
            return _note(*YELL1.middle, "2019-07-18 11:05:00.0")
        case "yell2":
            return _note(*YELL2.middle, "2019-07-18 11:40:00.0")
        case "slc_rgb":
            return _note(*lake_ground(picture).middle, "2011-10-03 17:30:12.0")
        case "bmng":
            y, x = _corner(picture)
            half = _GLOBE_PX / 2
            return _note((x + half) / 15 - 180, 90 - (y + half) / 15, "2004-05-01 00:00:00.0")
    return None


def _note(lon: float, lat: float, taken: str, device: str = "") -> dict[str, str]:
    return {"lon": f"{lon:.6f}", "lat": f"{lat:.6f}", "taken": taken, "device": device, "tags": "landscape,from above"}

"""Where an image is: what its source said, else its archive's sidecar, else its EXIF. Never what its caption names."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import utm

Extra = Mapping[str, object]

_VERTEX = re.compile(r"\(\(\s*([^()]{1,100000})")
_EPSG_UTM = re.compile(r"(?:EPSG:)?32([67])(\d\d)")
_WKT_UTM = re.compile(r"UTM zone (\d{1,2})\s?([NS])")


@dataclass(frozen=True, slots=True)
class Point:
    """Degrees east and north, within -180 to 180 and -90 to 90."""

    lon: float
    lat: float


def point(lon: object, lat: object) -> Point | None:
    """Return a point, or None for what is none: missing, not finite, or out of range."""
    east, north = number(lon), number(lat)
    if east is None or north is None or abs(east) > 180 or abs(north) > 90:
        return None
    return Point(east, north)


def stated_point(lon: object, lat: object) -> Point | None:
    """Return the point that two fields state, None if they state none; exactly 0, 0 is how fields are left unset."""
    found = point(lon, lat)
    return None if found == Point(0.0, 0.0) else found


def number(value: object) -> float | None:
    """Return a finite number that a value is or spells, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        read = float(value)
    except (ValueError, OverflowError):
        return None
    return read if math.isfinite(read) else None


def read_extra(extra: str | None) -> dict[str, object]:
    """Return what the archive's reader kept of a sidecar; empty for none and for what is no JSON object."""
    try:
        found = json.loads(extra) if extra else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def boxes_of(extra: Extra) -> list[dict[str, object]]:
    """Return fMoW's boxes in their order: entry 0 is the whole place, entry 1 the object."""
    for key in ("bounding_boxes", "boxes"):
        boxes = extra.get(key)
        if isinstance(boxes, list):
            return [box for box in boxes if isinstance(box, dict)]
    return []


def sidecar_point(extra: Extra, which: str) -> Point | None:
    """Return where a sidecar says that the image is.

    Args:
        extra: The sidecar.
        which: ``centroid``: of fMoW's polygon of the image; ``first_vertex``: of its box 0, as the paper has it.
    """
    grid = grid_of(extra)
    if grid is not None:
        return _centre(extra, *grid)
    shapes = [extra.get("raw_location"), *(box.get("raw_location") for box in boxes_of(extra)[:1])]
    if which == "first_vertex":
        shapes.reverse()
    for shape in shapes:
        ring = polygon(shape)
        found = (ring[0] if which == "first_vertex" else centroid(ring)) if ring else None
        if found is not None:
            return found
    return None


def polygon(wkt: object) -> list[Point]:
    """Return the outer ring of ``POLYGON ((lon lat, ...))``; empty if a vertex is no point."""
    ring = _VERTEX.search(wkt) if isinstance(wkt, str) else None
    points: list[Point] = []
    for vertex in ring.group(1).split(",") if ring else ():
        lon, _, lat = vertex.strip().partition(" ")
        found = point(lon, lat.strip().partition(" ")[0])
        if found is None:
            return []
        points.append(found)
    return points


def centroid(ring: list[Point]) -> Point | None:
    """Return the mean of a ring's distinct corners; rings across the 180th meridian are closed on its far side."""
    corners = ring[:-1] if len(ring) > 1 and ring[0] == ring[-1] else ring
    if not corners:
        return None
    first = corners[0].lon
    lons = [first + (p.lon - first + 180) % 360 - 180 for p in corners]
    lon = (math.fsum(lons) / len(lons) + 180) % 360 - 180
    return point(round(lon, 9), round(math.fsum(p.lat for p in corners) / len(corners), 9))


def grid_of(extra: Extra) -> tuple[int, Literal["N", "S"]] | None:
    """Return zone and hemisphere of a projection: WKT (BigEarthNet v1) or EPSG code (v2); None if it is no UTM."""
    wkt = extra.get("projection")
    if isinstance(wkt, str) and (found := _WKT_UTM.search(wkt)):
        zone, hemisphere = int(found.group(1)), found.group(2)
    else:
        code = _EPSG_UTM.fullmatch(str(extra.get("epsg") or wkt or "").strip())
        if code is None:
            return None
        zone, hemisphere = int(code.group(2)), "N" if code.group(1) == "6" else "S"
    return (zone, "N" if hemisphere == "N" else "S") if 1 <= zone <= 60 else None


def _centre(extra: Extra, zone: int, hemisphere: str) -> Point | None:
    corners = extra.get("corners") or extra.get("coordinates")
    if not isinstance(corners, Mapping):
        return None
    west, east = number(corners.get("ulx")), number(corners.get("lrx"))
    # Sentinel-1's labels spell the last corner "lly".
    north, south = number(corners.get("uly")), number(corners.get("lry", corners.get("lly")))
    if west is None or east is None or north is None or south is None:
        return None
    easting, northing = (west + east) / 2, (north + south) / 2
    # As utm's own bounds, but a patch may reach across the equator by some of its width.
    if not 100_000 <= easting < 1_000_000 or not -20_000 <= northing <= 10_020_000:
        return None
    lat, lon = utm.to_latlon(easting, northing, zone, northern=hemisphere == "N", strict=False)
    return point(round(float(lon), 7), round(float(lat), 7))

"""The nearest city of a point, and so its country, offline."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from manifests.gazetteer import Place, load_gazetteer

LIMIT_KM = 200.0
"""Farther than this from a city of over 15,000 people nothing is said (ours: seas get no country)."""
EARTH_KM = 6371.0088
"""Mean radius of the Earth (IUGG)."""


class Nearest:
    """A k-d tree over the cities as points on the unit sphere: neither poles nor the 180th meridian matter."""

    def __init__(self, places: tuple[Place, ...]) -> None:
        from scipy.spatial import cKDTree

        self._cities = [place for place in places if place.kind == "city"]
        points = np.array([_on_sphere(city.lon or 0.0, city.lat or 0.0) for city in self._cities])
        self._tree = cKDTree(points)

    def city(self, lon: float, lat: float, limit_km: float = LIMIT_KM) -> Place | None:
        """Return the nearest city within ``limit_km`` along the surface, None if there is none."""
        chord, index = self._tree.query(_on_sphere(lon, lat))
        distance_km = 2 * EARTH_KM * math.asin(min(1.0, float(chord) / 2))
        return self._cities[int(index)] if distance_km <= limit_km else None


def _on_sphere(lon: float, lat: float) -> NDArray[np.float64]:
    east, north = math.radians(lon), math.radians(lat)
    return np.array([math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north)])


@cache
def load_nearest(gazetteer: str) -> Nearest:
    """Build the tree over a gazetteer's cities, once a process."""
    return Nearest(load_gazetteer(gazetteer).places)

"""UTM zone, month and season of a point and a time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import utm

from stages.geo.coordinates import Point, number

TROPIC_DEGREES = 23.43629
"""Latitude of the tropics: between them a year has no four seasons (obliquity of the ecliptic, 2000 to 2030)."""
SEASONS = ("winter", "spring", "summer", "fall")

_BANDS = "CDEFGHJKLMNPQRSTUVWX"
_ZONE = re.compile(r"0?([1-9]|[1-5]\d|60)([C-HJ-NP-X])")
_DATE_CHARACTERS = len("2017-01-01")  # the longest form without a time; the shortest with one is longer
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONTHS = (
    "January February March April May June July August September October November December".split()
)  # not the machine's locale


@dataclass(frozen=True, slots=True)
class Moment:
    """A time as far as it is known.

    Attributes:
        year: Year.
        month: 1 to 12.
        day: Day of the month, None if only the month is known.
        hour: 0 to 23, None if only the day is known.
    """

    year: int
    month: int
    day: int | None
    hour: int | None

    def text(self, *, hour: bool = True) -> str | None:
        """Return ``H o'clock, Month D, YYYY``, the published form; without the hour where it is unknown or unwanted."""
        if self.day is None:
            return None
        date = f"{_MONTHS[self.month - 1]} {self.day}, {self.year}"
        return f"{self.hour} o'clock, {date}" if hour and self.hour is not None else date


def moment(taken_at: object) -> Moment | None:
    """Return the time that a source gave: ISO 8601, ``YYYY-MM``, or seconds since 1970; None for anything else.

    The hour is the one written: times are not moved to another zone. A date alone, also as ``20170101``, has none.
    Seconds since 1970 are read in UTC.
    """
    if isinstance(taken_at, bool) or not isinstance(taken_at, str | int | float):
        return None
    text = str(taken_at).strip()
    if re.fullmatch(r"\d{4}-\d{2}", text):
        month = int(text[5:])
        return Moment(int(text[:4]), month, None, None) if 1 <= month <= 12 else None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        seconds = number(text)
        if seconds is None or not 1e8 <= seconds < 4e9:  # 1973 to 2096: other numbers are no times
            return None
        when = _EPOCH + timedelta(seconds=seconds)
        return Moment(when.year, when.month, when.day, when.hour)
    return Moment(when.year, when.month, when.day, when.hour if len(text) > _DATE_CHARACTERS else None)


def season(month: int | None, lat: float | None, rule: str) -> str | None:
    """Return the season of a month.

    Args:
        month: 1 to 12; December to February is winter in the north.
        lat: Degrees north.
        rule: ``northern``: the paper's, the north's season everywhere. ``hemisphere``: the hemisphere's own; None
            between the tropics, which have no four seasons, and where the latitude is unknown.
    """
    if month is None:
        return None
    quarter = month % 12 // 3
    if rule == "northern":
        return SEASONS[quarter]
    if lat is None or abs(lat) < TROPIC_DEGREES:
        return None
    return SEASONS[quarter if lat > 0 else (quarter + 2) % 4]


def band(lat: float) -> str | None:
    """Return the letter of the MGRS latitude band, None outside 80 S to 84 N."""
    return _BANDS[min(int(lat + 80) // 8, 19)] if -80 <= lat <= 84 else None


def zone_of(place: Point) -> str | None:
    """Return the UTM zone with its band letter, e.g. ``32V``, with the exceptions of Norway and Svalbard.

    None outside 80 S to 84 N, where UTM ends.
    """
    letter = band(place.lat)
    return f"{utm.latlon_to_zone_number(place.lat, place.lon)}{letter}" if letter else None


def stated_zone(zone: object, place: Point | None) -> str | None:
    """Return the zone that a sidecar states (``32T``), with the band letter of ``place`` where that is known.

    The letter of a projection's name is the hemisphere's ("29N" of a patch at 39 N in Portugal, which is band S): the
    number is kept, which is the grid that the pixels lie in, and the letter follows from the latitude.
    """
    found = _ZONE.fullmatch(zone.strip().upper()) if isinstance(zone, str) else None
    if found is None:
        return None
    if place is None:
        return f"{found.group(1)}{found.group(2)}"
    letter = band(place.lat)
    return f"{found.group(1)}{letter}" if letter else None


def grid_zone(grid: tuple[int, Literal["N", "S"]], place: Point | None) -> str | None:
    """Return the zone of a projection with the band letter of ``place``; None where that is unknown."""
    return stated_zone(f"{grid[0]}{grid[1]}", place) if place else None

import pytest
import utm
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stages.geo.coordinates import Point
from stages.geo.nearest import LIMIT_KM, load_nearest
from stages.geo.zones import Moment, band, grid_zone, moment, season, stated_zone, zone_of

LONS, LATS = st.floats(-180, 180), st.floats(-90, 90)


@pytest.mark.parametrize(
    ("lon", "lat", "zone"),
    [
        (8.58, 47.45, "32T"), (5.32, 60.39, "32V"), (2.9, 60.39, "31V"), (5.32, 55.9, "31U"), (15.6, 78.2, "33X"),
        (8.9, 78.2, "31X"), (20.9, 80.0, "33X"), (21.1, 80.0, "35X"), (33.1, 83.9, "37X"), (0.5, 84.0, "31X"),
        (151.2, -33.9, "56H"), (-180.0, 0.0, "1N"), (180.0, 10.0, "1P"), (179.9, -0.1, "60M"), (0.0, -80.0, "31C"),
        (10.0, 84.1, None), (10.0, -80.1, None), (10.0, 90.0, None),
    ],
)  # fmt: skip
def test_zones_with_the_exceptions_of_norway_and_svalbard(lon, lat, zone):
    assert zone_of(Point(lon, lat)) == zone


@settings(deadline=None)
@given(LONS, LATS)
def test_zones_agree_with_utm_and_lead_back(lon, lat):
    zone = zone_of(Point(lon, lat))
    assert (zone is None) == (not -80 <= lat <= 84)
    assume(zone is not None)
    east, north, number, letter = utm.from_latlon(lat, lon)
    assert zone == f"{number}{letter}"
    assume(100_000 <= east < 1_000_000 and 0 <= north <= 10_000_000)
    back = utm.to_latlon(east, north, number, letter)
    assert back[0] == pytest.approx(lat, abs=1e-4)
    assert (back[1] - lon + 180) % 360 - 180 == pytest.approx(0, abs=1e-3)


def test_the_letter_of_a_projection_is_no_band():
    portugal = Point(-8.213, 39.364)
    assert grid_zone((29, "N"), portugal) == "29S"
    assert grid_zone((29, "N"), None) is None
    assert grid_zone((29, "N"), Point(0, 89)) is None
    assert stated_zone("32T", Point(8.6, 47.4)) == "32T"
    assert stated_zone("29N", portugal) == "29S"
    assert stated_zone(" 08t ", None) == "8T"
    for bad in ("0T", "61T", "32I", "32", "T32", "", None, 32, "32TT"):
        assert stated_zone(bad, None) is None
    assert [band(lat) for lat in (-80.001, -80, 0, 72, 84, 84.001)] == [None, "C", "N", "X", "X", None]


def test_seasons():
    north = [season(month, 48.0, "hemisphere") for month in (1, 4, 7, 10, 12)]
    south = [season(month, -34.0, "hemisphere") for month in (1, 4, 7, 10, 12)]
    assert north == ["winter", "spring", "summer", "fall", "winter"]
    assert south == ["summer", "fall", "winter", "spring", "summer"]
    assert [season(month, -34.0, "northern") for month in (1, 4, 7, 10, 12)] == north
    assert season(1, 0.0, "hemisphere") is season(1, -23.4, "hemisphere") is season(1, None, "hemisphere") is None
    assert season(1, None, "northern") == "winter"
    assert season(None, 48.0, "northern") is None


@pytest.mark.parametrize(
    ("taken_at", "known"),
    [
        ("2012-04-02T10:32:22Z", Moment(2012, 4, 2, 10)), ("2017-06-17 11:33:21", Moment(2017, 6, 17, 11)),
        ("2008-07-20 14:25:17.0", Moment(2008, 7, 20, 14)), ("2008-07-20", Moment(2008, 7, 20, None)),
        ("20170101", Moment(2017, 1, 1, None)), (20170101, Moment(2017, 1, 1, None)),
        ("20170101T00", Moment(2017, 1, 1, 0)), ("2017-01-01T00:00", Moment(2017, 1, 1, 0)), ("20171301", None),
        ("1512010112", Moment(2017, 11, 30, 2)),
        ("2008-07", Moment(2008, 7, None, None)), ("2008-13", None), ("1400000000", Moment(2014, 5, 13, 16)),
        (1400000000.5, Moment(2014, 5, 13, 16)), ("null", None), ("", None), (None, None),
        ("0000-00-00 00:00:00", None),
        (True, None), ("1e400", None), (float("nan"), None), ("2020-05-01T23:00:00-08:00", Moment(2020, 5, 1, 23)),
    ],
)  # fmt: skip
def test_times_as_sources_write_them(taken_at, known):
    assert moment(taken_at) == known


@settings(deadline=None)
@given(st.one_of(st.text(max_size=40), st.integers(), st.floats(), st.binary(max_size=4), st.datetimes().map(str)))
def test_any_time_is_read_or_none(taken_at):
    known = moment(taken_at)
    assert known is None or 1 <= known.month <= 12


@settings(deadline=None)
@given(st.datetimes())
def test_times_read_back(when):
    known = moment(when.isoformat())
    assert known == Moment(when.year, when.month, when.day, when.hour)


def test_times_in_words():
    assert Moment(2012, 4, 2, 10).text() == "10 o'clock, April 2, 2012"
    assert Moment(2012, 4, 2, 0).text() == "0 o'clock, April 2, 2012"
    assert Moment(2012, 4, 2, 10).text(hour=False) == "April 2, 2012"
    assert Moment(2012, 4, 2, None).text() == "April 2, 2012"
    assert Moment(2012, 4, None, None).text() is None


def test_the_nearest_city_and_where_there_is_none():
    nearest = load_nearest("geonames-1")
    city = nearest.city(8.58, 47.45)
    assert city is not None
    assert city.country == "CH"
    assert nearest.city(-140.0, 0.0) is None
    assert nearest.city(0.0, 90.0) is None
    far = nearest.city(-140.0, 0.0, limit_km=20_100)
    assert far is not None
    suva = nearest.city(-179.9, -18.0, limit_km=500)
    assert suva is not None
    assert suva.country == "FJ"


@settings(deadline=None)
@given(LONS, LATS)
def test_the_nearest_city_is_within_the_limit(lon, lat):
    city = load_nearest("geonames-1").city(lon, lat)
    if city is not None:
        assert abs((city.lat or 0) - lat) <= LIMIT_KM / 110

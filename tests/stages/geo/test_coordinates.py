import json
import math
import os
from pathlib import Path

import pytest
import utm
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stages.geo.coordinates import (
    Point,
    boxes_of,
    centroid,
    grid_of,
    number,
    point,
    polygon,
    read_extra,
    sidecar_point,
    stated_point,
)

DATA = os.environ.get("RS5M_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="RS5M_TEST_DATA is not set: no real sidecars to read")
SQUARE = "POLYGON ((8.0 47.0, 9.0 47.0, 9.0 48.0, 8.0 48.0, 8.0 47.0))"
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=20)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
KEYS = "raw_location bounding_boxes boxes corners coordinates projection epsg ulx uly lrx lry".split()


@pytest.mark.parametrize(
    ("lon", "lat"),
    [(181, 0), (0, 91), (math.nan, 1), (1, math.inf), (None, 1), ("x", 1), (True, 1), ([1], 1), (1e400, 1)],
)
def test_what_is_no_point(lon, lat):
    assert point(lon, lat) is None


def test_what_is_a_point():
    assert point(-180, 90) == Point(-180.0, 90.0)
    assert point("8.5", " 47 ") == Point(8.5, 47.0)
    assert point(0, 0) == Point(0.0, 0.0)
    assert stated_point(0, 1) == Point(0.0, 1.0)
    assert stated_point("0.0", 0) is stated_point(-0.0, 0) is None
    assert number("1_000") in (None, 1000.0)


def test_polygons():
    assert sidecar_point({"raw_location": SQUARE}, "centroid") == Point(8.5, 47.5)
    assert sidecar_point({"raw_location": SQUARE}, "first_vertex") == Point(8.0, 47.0)
    inner = {"raw_location": "POLYGON ((8.4 47.4, 8.6 47.4, 8.6 47.6, 8.4 47.4))"}
    both = {"raw_location": SQUARE, "bounding_boxes": [inner, {}]}
    assert sidecar_point(both, "centroid") == Point(8.5, 47.5)
    assert sidecar_point(both, "first_vertex") == Point(8.4, 47.4)
    assert sidecar_point({"boxes": [inner]}, "centroid") is not None
    seam = polygon("POLYGON ((179.0 1, -179.0 1, -179.0 3, 179.0 3, 179.0 1))")
    assert centroid(seam) == Point(-180.0, 2.0)
    assert centroid([]) is None


@pytest.mark.parametrize(
    "wkt",
    [
        "",
        "POLYGON EMPTY",
        "POLYGON ((",
        "POLYGON ((8 47, 9",
        "POLYGON ((8 147, 9 147))",
        "POLYGON ((a b))",
        None,
        7,
        "((" * 9999,
    ],
)
def test_polygons_that_are_none(wkt):
    assert sidecar_point({"raw_location": wkt}, "centroid") is None or wkt == "POLYGON ((8 47, 9"
    assert sidecar_point({"raw_location": wkt, "bounding_boxes": "x"}, "first_vertex") is None or wkt


def test_projections():
    wkt = 'PROJCS["WGS 84 / UTM zone 29N",GEOGCS["WGS 84"]]'
    assert grid_of({"projection": wkt}) == (29, "N")
    assert grid_of({"epsg": 32735}) == (35, "S")
    assert grid_of({"epsg": "EPSG:32629"}) == grid_of({"projection": "EPSG:32629"}) == (29, "N")
    for bad in (
        {"epsg": 4326},
        {"epsg": 32600},
        {"epsg": 32661},
        {"projection": "UTM zone 61N"},
        {"projection": 3},
        {},
    ):
        assert grid_of(bad) is None


@settings(deadline=None)
@given(st.floats(-179, 179), st.floats(-79, 83))
@example(0.0, -8e-17)
def test_corners_lead_back_to_the_point_they_were_made_from(lon, lat):
    east, north, zone, letter = utm.from_latlon(lat, lon)
    corners = {"ulx": east - 600, "uly": north + 600, "lrx": east + 600, "lry": north - 600}
    epsg = (32600 if letter >= "N" else 32700) + zone
    found = sidecar_point({"corners": corners, "epsg": epsg}, "centroid")
    assert found is not None
    assert found.lat == pytest.approx(lat, abs=1e-4)
    assert (found.lon - lon + 180) % 360 - 180 == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    "corners",
    [
        None,
        [],
        {},
        {"ulx": 1},
        {"ulx": "a", "uly": 1, "lrx": 2, "lry": 3},
        dict.fromkeys(("ulx", "uly", "lrx", "lry"), 1e9),
    ],
)
def test_corners_that_are_none(corners):
    assert sidecar_point({"epsg": 32629, "corners": corners}, "centroid") is None


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6), st.sampled_from(["centroid", "first_vertex"]))
def test_any_sidecar_gives_a_point_or_none(extra, rule):
    found = sidecar_point(extra, rule)
    assert found is None or (abs(found.lon) <= 180 and abs(found.lat) <= 90)
    assert all(isinstance(box, dict) for box in boxes_of(extra))


@pytest.mark.parametrize("extra", [None, "", "{", "[]", "7", "[" * 100_000, '{"a":'])
def test_sidecars_that_are_none(extra):
    assert read_extra(extra) == {}


@needs_data
def test_a_real_sidecar_of_fmow():
    (path,) = Path(DATA or "", "fmow").glob("*.json")
    extra = read_extra(path.read_text("utf-8"))
    found = sidecar_point(extra, "centroid")
    assert found is not None
    assert (found.lon, found.lat) == pytest.approx((8.583081799, 47.4490394778), abs=1e-6)  # its own "coordinates"
    assert sidecar_point(extra, "first_vertex") == Point(8.5829783604202152, 47.4491842338692322)


@needs_data
def test_real_patches_of_bigearthnet_lie_in_their_tiles():
    """The tile's name in ``tile_source`` holds zone and band: an oracle that the corners are not."""
    from stages.geo.zones import grid_zone

    seen = 0
    for path in sorted(Path(DATA or "", "bigearthnet").glob("s2/*/*_labels_metadata.json")):
        extra = json.loads(path.read_text("utf-8"))
        found, grid = sidecar_point(extra, "centroid"), grid_of(extra)
        assert found is not None
        assert grid is not None
        tile = extra["tile_source"].split("_T")[1][:3]
        assert grid_zone(grid, found) == f"{int(tile[:2])}{tile[2]}"
        seen += 1
    assert seen >= 11

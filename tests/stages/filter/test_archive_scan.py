"""filter.match over folders and archives: every image of the set is a row, with what stands beside it."""

import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.identity import sample_id
from manifests.store import Store
from stages.archives import archive_digest
from stages.filter.match import Match
from stages.filter.rows import MetadataError
from stages.filter.sidecars import read_bigearthnet, read_fmow
from tests.stages.archive_making import (
    KINDS,
    V1,
    V2,
    fmow_members,
    fmow_sidecar,
    jpeg,
    pack,
    v1_labels,
    v1_members,
    v2_members,
)  # fmt: skip
from tests.stages.handing import Handed, perform

FRAME = "train/fountain/fountain_0/fountain_0_0_rgb"
REAL = os.environ.get("RS5M_TEST_DATA")


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def match(store, source, uri, attributes=""):
    params = {"source": source, "uri": uri, "digest": archive_digest(store, uri), "attributes": attributes}
    return perform(Match(), Handed(store, {}), params=params)


def scan(store, tmp_path, source, members, kind="folder"):
    return match(store, source, pack(tmp_path, "set", kind, members))


def rows(done):
    """Candidates by url."""
    return {row["url"]: row for row in done.table("candidates").to_dicts()}


def bad(done):
    """Details of bad rows by position."""
    listed = done.result.ledger.to_dicts()
    assert {row["reason"] for row in listed} <= {"filter.bad_row"}
    return {int(row["locator"].split(":")[1]): row["detail"] for row in listed}


def test_an_fmow_frame(store, tmp_path):
    done = scan(store, tmp_path, "fmow", fmow_members())
    row = rows(done)[f"fmow:{FRAME}.jpg"]
    assert row["sample_id"] == sample_id("fmow", "fountain_0_0_rgb", f"fmow:{FRAME}.jpg", ())
    assert (row["source_key"], row["group"]) == ("fountain_0_0_rgb", "train/fountain/fountain_0")
    assert (row["text"], row["matched"], row["subset"]) == ("", [], "rs3")
    assert (row["width"], row["height"], row["taken_at"]) == (977, 663, "2012-04-02T10:32:22Z")
    assert (row["lon"], row["lat"], row["licence"]) == (None, None, "fMoW challenge licence")
    assert [tag["name"] for tag in row["tags"]] == ["fountain"]
    extra = json.loads(row["extra"])
    assert {name: extra[name] for name in ("country_code", "utm", "multi_resolution_dbl", "scan_direction")} == {
        "country_code": "CHE", "utm": "32T", "multi_resolution_dbl": 1.87, "scan_direction": "Reverse",
    }  # fmt: skip
    first, second = extra["bounding_boxes"]
    assert (sorted(first), second) == (
        ["box", "category", "raw_location"], {"box": [11, 21, 31, 41], "category": "fountain"},
    )  # fmt: skip
    assert "abs_cal_factors" not in extra
    books = done.books["fmow"]
    assert (books.seen, books.kept, done.result.facts) == (4, 4, {"keywords": {}, "ignored_members": 4})


@pytest.mark.parametrize(("source", "members"), [
    ("fmow", fmow_members()), ("ben", v1_members() | v2_members()),
    ("millionaid", {f"test/P000000{n}.jpg": jpeg(n) for n in range(3)}),
])  # fmt: skip
def test_an_image_is_the_same_row_whatever_it_is_packed_in(store, tmp_path, source, members):
    found = []
    for kind in KINDS:
        for before in ("", "deep/er/"):
            told = {before + path: body for path, body in members.items()}
            uri = pack(tmp_path / kind / (before or "plain"), "set", kind, told)
            found.append(match(store, source, f"{kind}/{(before or 'plain').rstrip('/')}/{uri}"))
    tables = [done.table("candidates").drop("locator").sort("sample_id") for done in found]
    assert tables[0].height >= 2
    assert all(table.equals(tables[0]) for table in tables)


def test_the_position_is_the_images_among_all_images_by_path(store, tmp_path):
    members = {f"test/P000000{n}.jpg": jpeg(n) for n in (3, 1, 2)} | {"test/readme.txt": b"x", "test/P1.jpg": jpeg()}
    done = scan(store, tmp_path, "millionaid", members, "tar")
    digest = archive_digest(store, "set.tar")[:12]
    assert {url: row["locator"] for url, row in rows(done).items()} == {
        f"millionaid:test/P000000{n}.jpg": f"{digest}:{n - 1}" for n in (1, 2, 3)
    }
    assert bad(done) == {3: "test/P1.jpg is not in the layout test/P0000001.jpg"}
    assert done.books["millionaid"].seen == 4


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_not_matter_how_many_sidecars_are_read_at_a_time(store, tmp_path, monkeypatch, kind):
    members = fmow_members(4) | {"train/stray.jpg": jpeg(), f"{FRAME}.json": b"{"}
    whole = scan(store, tmp_path, "fmow", members, kind)
    monkeypatch.setattr("stages.filter.archive_scan._CHUNK_ROWS", 3)
    parts = match(store, "fmow", "set" if kind == "folder" else f"set.{kind}")
    assert parts.table("candidates").equals(whole.table("candidates"))
    assert parts.result.ledger.equals(whole.result.ledger)
    assert whole.books["fmow"].seen == 9


@pytest.mark.parametrize(
    ("sidecar", "says"),
    [
        (b"{broken", "is no JSON in UTF-8"), (b"\xff\xfe", "is no JSON in UTF-8"), (b"[]", "is no JSON object"),
        (b"[" * 100_000, "nested too deeply"), (b" " * (1 << 20) + b"{}", "too large: 1048578"), (b"", "is no JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is no JSON"),
    ],
)  # fmt: skip
def test_a_sidecar_that_cannot_be_read_is_a_bad_row(store, tmp_path, sidecar, says):
    done = scan(store, tmp_path, "fmow", fmow_members() | {f"{FRAME}.json": sidecar}, "zip")
    ((row, detail),) = bad(done).items()
    assert says in detail
    assert (row, detail.startswith("fountain_0_0_rgb.json: ")) == (1, True)
    left = done.result.ledger.row(0, named=True)
    assert left["sample_id"] == sample_id("fmow", "fountain_0_0_rgb", f"fmow:{FRAME}.jpg", ())
    assert done.table("candidates").height == 3


@pytest.mark.parametrize(
    ("changed", "lacks"),
    [
        ({"bounding_boxes": []}, "bounding_boxes"), ({"bounding_boxes": None}, "bounding_boxes"),
        ({"bounding_boxes": "none"}, "bounding_boxes"), ({"country_code": "XXX"}, ""), ({"country_code": None},
         "country_code"), ({"timestamp": "last week"}, ""), ({"utm": {"zone": 32}}, "utm"), ({"img_width": -1}, ""),
        ({"scan_direction": "\ud800"}, "scan_direction"), ({"cloud_cover": float("nan")}, "cloud_cover"),
        ({"bounding_boxes": [3, {"box": [1, 2], "category": 5}]}, ""), ({"raw_location": "x" * 5000}, "raw_location"),
    ],
)  # fmt: skip
def test_a_sidecar_may_lack_or_garble_anything(store, tmp_path, changed, lacks):
    members = {f"{FRAME}.jpg": jpeg(), f"{FRAME}.json": fmow_sidecar(**changed)}
    (row,) = rows(scan(store, tmp_path, "fmow", members)).values()
    assert lacks not in json.loads(row["extra"]) or not lacks
    assert row["extra"].encode()


def test_a_frame_without_a_sidecar_passes_without_facts(store, tmp_path):
    (row,) = rows(scan(store, tmp_path, "fmow", {f"{FRAME}.jpg": jpeg()})).values()
    assert (row["extra"], row["taken_at"], row["width"]) == (None, None, None)
    assert [tag["name"] for tag in row["tags"]] == ["fountain"]


def test_a_patch_of_bigearthnet_v1(store, tmp_path):
    (row,) = rows(scan(store, tmp_path, "ben", v1_members(), "tgz")).values()
    assert (row["url"], row["source_key"]) == (f"ben:BigEarthNet-v1.0/{V1}", V1)
    assert (row["group"], row["taken_at"]) == ("S2A_MSIL2A_20170613T101031", "2017-06-13T10:10:31")
    assert (row["width"], row["height"]) == (120, 120)
    assert [tag["name"] for tag in row["tags"]] == ["Pastures", "Water bodies"]
    assert json.loads(row["extra"]) == {
        "acquisition_date": "2017-06-13 10:10:31", "labels": ["Pastures", "Water bodies"],
        "projection": 'PROJCS["WGS 84 / UTM zone 33N"]',
        "corners": {"lrx": 405600, "lry": 5341200, "ulx": 404400, "uly": 5342400},
    }  # fmt: skip


def table(**columns):
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def test_a_patch_of_bigearthnet_v2_is_told_by_its_bands_and_the_table(store, tmp_path):
    about = table(
        patch_id=["other", V2], labels=[["Sea"], ["Pastures"]], country=["x", "Austria"], split=["a", "train"]
    )
    done = scan(store, tmp_path, "ben", v2_members() | {"metadata.parquet": about}, "tar")
    (row,) = rows(done).values()
    scene = V2.removesuffix("_26_57")
    assert (row["url"], row["group"]) == (f"ben:BigEarthNet-S2/{scene}/{V2}", scene)
    assert (row["taken_at"], row["width"], [tag["name"] for tag in row["tags"]]) == (
        "2017-06-13T10:10:31", 12, ["Pastures"],
    )  # fmt: skip
    assert json.loads(row["extra"]) == {
        "acquisition_date": "2017-06-13T10:10:31", "country": "Austria", "epsg": 32633, "labels": ["Pastures"],
        "split": "train", "corners": {"lrx": 404520.0, "lry": 5342280.0, "ulx": 404400.0, "uly": 5342400.0},
    }  # fmt: skip
    (bare,) = rows(match(store, "ben", pack(tmp_path, "bare", "zip", v2_members()))).values()
    assert bare["tags"] is None
    assert bare["sample_id"] == row["sample_id"]


@pytest.mark.parametrize(("kind", "patch"), [("folder", V1), ("zip", V1), ("folder", V2), ("tar", V2)])
def test_an_entry_that_is_a_patch_folder_itself_tells_the_same(store, tmp_path, kind, patch):
    members = (v1_members if patch == V1 else v2_members)()
    (whole,) = rows(scan(store, tmp_path, "ben", members)).values()
    inner = {path.rpartition("/")[2]: body for path, body in members.items()}
    (row,) = rows(match(store, "ben", f"alone/{pack(tmp_path / 'alone', patch, kind, inner)}")).values()
    assert {**row, "locator": ""} == {**whole, "locator": ""}
    assert "corners" in json.loads(row["extra"])


def test_the_geotiffs_of_fmow_full_beside_are_ignored(store, tmp_path):
    beside = {f"{FRAME.removesuffix('rgb')}{kind}.tif": b"II*\0" for kind in ("ms", "pan", "rgb", "msrgb")}
    done = scan(store, tmp_path, "fmow", fmow_members() | beside, "zip")
    assert bad(done) == {}
    assert (done.books["fmow"].seen, done.result.facts["ignored_members"]) == (4, 8)


def test_a_patch_whose_band_is_damaged_still_passes(store, tmp_path):
    """Whether it can be rendered is the download stage's to say."""
    members = v2_members()
    first = next(path for path in members if path.endswith("B01.tif"))
    (row,) = rows(scan(store, tmp_path, "ben", members | {first: b"torn"})).values()
    assert json.loads(row["extra"]) == {"acquisition_date": "2017-06-13T10:10:31"}


def test_labels_that_cannot_be_read_are_a_bad_row(store, tmp_path):
    members = v1_members() | {f"BigEarthNet-v1.0/{V1}/{V1}_labels_metadata.json": b"{"}
    assert "labels_metadata.json: is no JSON" in bad(scan(store, tmp_path, "ben", members))[0]


def test_attributes_go_before_what_the_source_says(store, tmp_path):
    url = f"fmow:{FRAME}.jpg"
    store.replace("who.parquet", table(url=[url], licence=["CC0"], credit=["Ann"], group=[None]))
    uri = pack(tmp_path, "set", "folder", fmow_members(1))
    told = rows(match(store, "fmow", uri, "who.parquet"))
    assert (told[url]["licence"], told[url]["credit"]) == ("CC0", "Ann")
    assert told[url]["group"] == "train/fountain/fountain_0"
    assert told[url.replace("_rgb", "_msrgb")]["licence"] == "fMoW challenge licence"


LISTED = table(patch_id=[[V2]], labels=[["Sea"]])


@pytest.mark.parametrize(
    ("kind", "members", "says"),
    [
        ("zip", {"readme.txt": b"x"}, "holds no image in the layout"),
        ("folder", {"holiday.jpg": b"x"}, "holds no image in the layout"),
        ("folder", v2_members() | {"metadata.parquet": b"torn"}, "metadata.parquet: cannot be read"),
        (
            "tar",
            v2_members() | {"metadata.parquet": LISTED},
            r"metadata.parquet: cannot be read \(column patch_id holds",
        ),
    ],
)
def test_what_is_no_archive_of_the_source_is_an_error(store, tmp_path, kind, members, says):
    source = "ben" if any("BigEarthNet" in path for path in members) else "fmow"
    with pytest.raises(MetadataError, match=says):
        scan(store, tmp_path, source, members, kind)


def test_a_damaged_archive_is_an_error(store, tmp_path):
    uri = pack(tmp_path, "set", "tar", fmow_members())
    (tmp_path / uri).write_bytes((tmp_path / uri).read_bytes()[:5000])
    with pytest.raises(MetadataError, match="fetch it again"):
        match(store, "fmow", uri)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
NAMES = st.sampled_from(
    "bounding_boxes box category raw_location timestamp img_width coordinates labels projection".split()
)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60) | st.dictionaries(NAMES, JSON | st.lists(st.dictionaries(NAMES, JSON))).map(
    lambda said: json.dumps(said).encode()))  # fmt: skip
def test_no_sidecar_is_too_odd(body):
    for reader in (read_fmow, read_bigearthnet):
        refused, extra = "", {}
        try:
            extra = reader(body).extra
        except ValueError as error:
            refused = str(error)
        assert not refused or "JSON" in refused or "nested" in refused
        json.dumps(extra, ensure_ascii=False, allow_nan=False).encode()


def test_v1_labels_are_bounded():
    assert read_bigearthnet(v1_labels(labels=["x"] * 1000 + [5])).tags == ("x",) * 64


@pytest.mark.skipif(not REAL, reason="RS5M_TEST_DATA is not set: it names a folder with real patches and a sidecar")
def test_real_patches_and_a_real_sidecar(store, tmp_path):
    done = match(store, "ben", str(Path(REAL, "bigearthnet")))
    assert done.table("candidates").height == 11
    assert done.result.ledger.is_empty()
    for row in rows(done).values():
        assert json.loads(row["extra"])["corners"].keys() == {"ulx", "uly", "lrx", "lry"}
        assert (row["width"], row["height"]) == (120, 120)
        assert row["taken_at"].startswith(f"{row['source_key'][11:15]}-{row['source_key'][15:17]}")
    (sidecar,) = Path(REAL, "fmow").glob("*.json")
    facts = read_fmow(sidecar.read_bytes())
    assert (facts.width, facts.height, facts.tags) == (977, 663, ("fountain",))
    assert facts.extra["bounding_boxes"][0]["raw_location"].startswith("POLYGON ((8.58")

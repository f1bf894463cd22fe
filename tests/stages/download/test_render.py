"""download.fetch over folders and archives: images taken as they are, or rendered from bands, each with a reason."""

import hashlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from manifests.fingerprint import Parts
from manifests.sources import load_sources
from manifests.store import Store
from pipeline.world.archive_files import band_tiff
from stages.archives import archive_digest
from stages.decode import decode
from stages.download import render
from stages.download.answers import Limits
from stages.download.fetch import Fetch
from stages.download.render import BANDS, WHITE_AT_LEAST, renderer_of, stretch
from stages.filter.match import Match
from stages.images import Place, read_images
from stages.members import ArchiveError
from tests.stages.archive_making import KINDS, V1, V2, fmow_members, jpeg, pack, v1_members, v2_members
from tests.stages.handing import NOTHING_BEFORE, Before, Handed, perform, rows_of

REAL = os.environ.get("RS5M_TEST_DATA")
LIMITS = Limits(1 << 20, frozenset({"jpeg"}), 3, allow_private=False)
PNG = io.BytesIO()
Image.new("RGB", (4, 4)).save(PNG, format="PNG")


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def candidates(store, source, uri):
    params = {"source": source, "uri": uri, "digest": archive_digest(store, uri)}
    return perform(Match(), Handed(store, {}), params=params).table("candidates").drop("locator")


def fetch(store, source, archives, rows, prior=NOTHING_BEFORE, final=True, **changed):
    settings = {name.replace("__", "."): value for name, value in changed.items()}
    tables = Handed(store, {("filter.pool", "candidates"): rows})
    params = {"source": source, "archives": archives}
    return perform(Fetch(), tables, settings, prior=prior, partition=f"{source}-0000", params=params, final=final)


def taken(store, tmp_path, source, members, kind="folder", **changed):
    uri = pack(tmp_path, "set", kind, members)
    return fetch(store, source, [uri], candidates(store, source, uri), **changed)


def bodies(store, done):
    """Bytes by url, read from where the rows say they are."""
    rows = done.table("fetched").to_dicts()
    places = [Place(row["tar"], row["offset"], row["length"], row["sha256"]) for row in rows]
    return {rows[index]["url"]: body for index, body in read_images(store, places)}


def reasons(done):
    """Reason by url."""
    return {row["url"]: row["reason"].removeprefix("download.") for row in done.left().values()}


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_taken_as_they_are(store, tmp_path, kind):
    members = fmow_members()
    done = taken(store, tmp_path, "fmow", members, kind)
    assert bodies(store, done) == {f"fmow:{path}": body for path, body in members.items() if path.endswith(".jpg")}
    row = done.table("fetched").row(0, named=True)
    assert (row["media_type"], row["hash_verdict"], row["rendered"]) == ("jpeg", "unknown", None)
    assert [row[name] for name in ("http_status", "final_url", "content_type", "etag")] == [None] * 4


def test_what_is_no_image_leaves_with_a_reason(store, tmp_path):
    members = {
        f"test/P000000{n}.jpg": body for n, body in enumerate([jpeg(), b"words", PNG.getvalue(), b"", jpeg(side=600)])
    }
    done = taken(store, tmp_path, "millionaid", members, "zip", download__media=["jpeg"], download__max_bytes=5000)
    assert reasons(done) == {
        "millionaid:test/P0000001.jpg": "not_image", "millionaid:test/P0000002.jpg": "not_image",
        "millionaid:test/P0000004.jpg": "too_large",
    }  # fmt: skip
    kept = {row["url"][-5]: row["media_type"] for row in done.table("fetched").to_dicts()}
    assert kept == {"0": "jpeg", "3": "empty"}
    large = next(row for row in done.left().values() if row["reason"] == "download.too_large")
    assert (large["value"], large["cut"]) == (float(len(jpeg(side=600))), 5000.0)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tgz"])
def test_a_member_that_is_gone(store, tmp_path, kind):
    members = fmow_members()
    rows = candidates(store, "fmow", pack(tmp_path, "set", kind, members))
    fewer = {path: body for path, body in members.items() if "fountain_1" not in path}
    uri = pack(tmp_path, "less", kind, fewer)
    done = fetch(store, "fmow", [uri], rows)
    assert set(done.reasons().values()) == {"download.no_member"}
    assert {row["class"] for row in done.left().values()} == {"failed"}
    assert done.books["fmow"].kept == 2


@pytest.mark.parametrize("gone", ["gone", "gone.zip", "parts/*.tar", "empty"])
def test_an_archive_that_is_not_there_is_no_answer_about_its_images(store, tmp_path, gone):
    """A disk that is not mounted says nothing of what is on it: the partition fails, and is tried again."""
    rows = candidates(store, "fmow", pack(tmp_path, "set", "folder", fmow_members()))
    (tmp_path / "empty").mkdir()
    for archives in ([gone], ["set", gone], [gone, "set"][:1]):
        urls = [*rows["url"], "fmow:train/x/x_1/x_1_0_rgb.jpg"]
        with pytest.raises(ArchiveError, match="is its disk mounted here"):
            list(render.take_from_archives(store, load_sources()["fmow"], archives, urls, LIMITS, 60.0))
    with pytest.raises(ArchiveError, match=gone.replace("*", r"\*")):
        fetch(store, "fmow", [gone], rows)


def test_several_archives_and_patterns(store, tmp_path):
    members = fmow_members(3)
    halves = [{p: b for p, b in members.items() if f"fountain_{n}/" in p} for n in range(3)]
    rows = candidates(store, "fmow", pack(tmp_path, "whole", "zip", members))
    for number, half in enumerate(halves):
        pack(tmp_path / "parts", f"{number}", "tar", half)
    done = fetch(store, "fmow", ["parts/0.tar", "parts/*.tar"], rows)
    assert len(bodies(store, done)) == 6
    assert fetch(store, "fmow", ["parts/[01].tar"], rows).books["fmow"].kept == 4


def test_a_member_damaged_in_one_archive_is_taken_from_the_next(store, tmp_path):
    members = {"test/P0000001.jpg": b"a body of its own, stored as it is"}
    members |= {"test/P0000002.jpg": jpeg()}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path, body in members.items():
            archive.writestr(path, body)
    raw = (tmp_path / "a.zip").read_bytes()
    rows = candidates(store, "millionaid", "a.zip")
    (tmp_path / "a.zip").write_bytes(raw.replace(b"of its own", b"of his own"))
    done = fetch(store, "millionaid", ["a.zip"], rows)
    assert reasons(done) == {"millionaid:test/P0000001.jpg": "no_member"}
    assert "CRC" in next(iter(done.left().values()))["detail"]
    pack(tmp_path, "b", "folder", {"test/P0000001.jpg": jpeg(1)})
    assert bodies(store, fetch(store, "millionaid", ["a.zip", "b"], rows))["millionaid:test/P0000001.jpg"] == jpeg(1)


BROKEN = band_tiff(np.zeros((12, 12), np.uint16), 32633, 0.0, 0.0)


@pytest.mark.parametrize(
    ("bands", "reason"),
    [({"B04": None}, "missing_band"), ({"B04": b"torn"}, "not_image"), ({"B04": b"x" * 9000}, "too_large"),
     (dict.fromkeys(BANDS, BROKEN), "no_data")],
)  # fmt: skip
def test_a_patch_refused_in_one_archive_is_taken_from_a_later_one(store, tmp_path, bands, reason):
    worse = {p: b for p, b in v1_members(**{n: b or b"" for n, b in bands.items()}).items() if b}
    for name, members in (("a", worse), ("b", v2_members()), ("c", v1_members())):
        pack(tmp_path, name, "folder", members)
    rows = candidates(store, "ben", "c")
    (url,) = rows["url"]
    limit = {"download__max_bytes": 8000}
    assert reasons(fetch(store, "ben", ["a"], rows, **limit)) == {url: reason}
    assert reasons(fetch(store, "ben", ["a", "b"], rows, **limit)) == {url: reason}
    assert reasons(fetch(store, "ben", ["b", "a"], rows, **limit)) == {url: reason}
    for archives in (["a", "b", "c"], ["c", "a"], ["a", "c", "b"]):
        assert bodies(store, fetch(store, "ben", archives, rows, **limit)) == rendered_apart(v1_members())


def test_what_is_said_of_an_image_goes_before_a_member_that_cannot_be_read(store, tmp_path):
    """The first refusal decides, but not being able to read is no judgement."""
    for name, body in (("a", b"words"), ("b", jpeg(side=600))):
        pack(tmp_path, name, "folder", {"test/P0000001.jpg": body})
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("test/P0000001.jpg", jpeg(), compress_type=zipfile.ZIP_LZMA)
    rows, url = candidates(store, "millionaid", "a"), "millionaid:test/P0000001.jpg"
    wanted = {("a", "b"): "not_image", ("b", "a"): "too_large", ("z.zip", "a", "b"): "not_image",
              ("b", "z.zip"): "too_large", ("z.zip",): "no_member"}  # fmt: skip
    for archives, reason in wanted.items():
        assert reasons(fetch(store, "millionaid", archives, rows, download__max_bytes=5000)) == {url: reason}


@pytest.mark.parametrize("patch", [V1, V2])
def test_an_entry_that_is_a_patch_folder_itself(store, tmp_path, patch):
    members = (v1_members if patch == V1 else v2_members)()
    pack(tmp_path / "all", patch, "folder", {path.rpartition("/")[2]: body for path, body in members.items()})
    done = fetch(store, "ben", ["all/*"], candidates(store, "ben", f"all/{patch}"))
    assert bodies(store, done) == rendered_apart(members)


def rendered_apart(members):
    """What comes out by url, by way of Pillow and the stretch alone."""
    found = {}
    for path in members:
        if path.endswith("_B04.tif"):
            bands = [np.asarray(Image.open(io.BytesIO(members[path.replace("B04", name)]))) for name in BANDS]
            out = io.BytesIO()
            Image.fromarray(stretch(*bands)).save(out, format="JPEG", quality=95, subsampling=0)
            found[f"ben:{path.rpartition('/')[0]}"] = out.getvalue()
    return found


@pytest.mark.parametrize("kind", ["folder", "tar", "tgz", "zip"])
def test_patches_are_rendered_alike_whatever_they_are_packed_in(store, tmp_path, kind):
    done = taken(store, tmp_path, "ben", v1_members() | v2_members(), kind)
    row = done.table("fetched").row(0, named=True)
    assert (row["media_type"], row["rendered"]) == ("jpeg", renderer_of("bigearthnet"))
    assert row["rendered"].startswith("ben-rgb-1 jpeg95-444 libjpeg ")
    found = bodies(store, done)
    assert len(found) == 2
    assert found == rendered_apart(v1_members() | v2_members())
    for body in found.values():
        shown = decode(body, 1_000_000)
        assert (shown.width, shown.height, shown.mode) == (12, 12, "RGB")
        with Image.open(io.BytesIO(body)) as image:
            assert image.layer == [(1, 1, 1, 0), (2, 1, 1, 1), (3, 1, 1, 1)]  # no chroma subsampling


def band(pixels):
    return band_tiff(np.asarray(pixels, np.uint16), 32633, 0.0, 0.0)


ZERO = band(np.zeros((12, 12)))
HALF = band(np.repeat([0, 900], 72).reshape(12, 12))
LESS = band(np.repeat([0, 900], [73, 71]).reshape(12, 12))


@pytest.mark.parametrize(
    ("bands", "reason", "says"),
    [
        ({"B04": ZERO, "B03": ZERO, "B02": ZERO}, "no_data", None),
        ({"B04": LESS, "B03": LESS, "B02": LESS}, "no_data", None),
        ({"B04": HALF, "B03": HALF, "B02": HALF}, None, None),
        ({"B04": ZERO, "B03": ZERO}, None, None),
        ({"B03": b"torn"}, "not_image", "B03: no TIFF header"), ({"B02": jpeg()}, "not_image", "B02: no TIFF header"),
        ({"B02": band(np.ones((10, 10)))}, "not_image", "bands of different sizes: 10 x 10, 12 x 12"),
        ({"B04": b"x" * 3000}, "too_large", None),
    ],
)  # fmt: skip
def test_a_patch_that_is_no_picture_leaves_with_a_reason(store, tmp_path, bands, reason, says):
    done = taken(store, tmp_path, "ben", v1_members(**bands), "tar", download__max_bytes=2500)
    if reason is None:
        assert done.books["ben"].kept == 1
        return
    (row,) = done.left().values()
    assert row["reason"] == f"download.{reason}"
    assert says is None or says in row["detail"]
    if reason == "no_data":
        assert row["value"] > row["cut"] == 0.5


def test_a_missing_band_is_named(store, tmp_path):
    members = {path: body for path, body in v1_members().items() if not path.endswith(("B03.tif", "B02.tif"))}
    (row,) = taken(store, tmp_path, "ben", members).left().values()
    assert (row["reason"], row["detail"]) == ("download.missing_band", "no B03, B02")


def test_recorded_rows_are_taken_over_without_opening_the_archive(store, tmp_path):
    uri = pack(tmp_path, "set", "zip", v1_members() | v2_members())
    rows = candidates(store, "ben", uri)
    first = fetch(store, "ben", [uri], rows)
    (tmp_path / uri).unlink()
    second = fetch(store, "ben", [uri], rows, Before([first.earlier()]))
    assert second.table("fetched").equals(first.table("fetched"))
    assert second.result.facts == {"fetched_urls": 0, "recorded_urls": 2}
    assert second.result.pointed == first.files("images")


def test_another_renderer_does_its_rows_anew(store, tmp_path, monkeypatch):
    uri = pack(tmp_path, "set", "zip", v1_members())
    rows = candidates(store, "ben", uri)
    first = fetch(store, "ben", [uri], rows)
    monkeypatch.setattr("stages.download.fetch.renderer_of", lambda _: "ben-rgb-2")
    second = fetch(store, "ben", [uri], rows, Before([first.earlier()]))
    assert second.table("fetched")["rendered"].to_list() == ["ben-rgb-2"]
    assert second.result.facts == {"fetched_urls": 1, "recorded_urls": 0}
    params = {"source": "ben", "archives": [uri]}
    assert Fetch().pins(first.settings, params) == {"renderer": "ben-rgb-2"}


def test_pinned_is_what_renders_and_what_the_archives_hold():
    assert Fetch().pins(None, {}) == {}
    assert Fetch().pins(None, {"source": "fmow", "archives": []}) == {}
    fmow = {"source": "fmow", "archives": ["a", "b"]}
    pinned = [
        Fetch().pins(None, fmow | {"archive_digests": digests}) for digests in (["1", "2"], ["1", "2"], ["1", "3"])
    ]
    assert pinned[0] == pinned[1]
    assert [list(pins) for pins in pinned] == [["archives fmow"]] * 3
    assert Fetch().pins(None, fmow | {"archives": ["moved"], "archive_digests": ["1", "2"]}) == pinned[0]
    of_rows = {Parts(inputs=[], recipe={}, code=1, pins=pins).row_fingerprint(recording=True) for pins in pinned}
    assert len(of_rows) == 2  # rows of other bytes are no prior
    assert set(Fetch().pins(None, {"source": "ben", "archives": ["a"], "archive_digests": ["1"]})) == {
        "renderer", "archives ben",
    }  # fmt: skip


def test_time_that_is_up_leaves_the_partition_open(store, tmp_path):
    done = taken(store, tmp_path, "fmow", fmow_members(), run__partition_deadline_s=1e-9)
    assert done.books["fmow"].kept == 1
    assert done.books["fmow"].deferred == {"download.timeout": 3}


def test_a_url_that_no_frame_has_and_no_rows(store, tmp_path):
    uri = pack(tmp_path, "set", "tar", fmow_members())
    stray = rows_of("candidates", {"sample_id": "0", "source": "fmow", "url": "fmow:train/x/x_1/x_1_0_rgb.jpg"})
    assert set(fetch(store, "fmow", [uri], stray).reasons().values()) == {"download.no_member"}
    assert fetch(store, "fmow", [uri], stray.clear()).books == {}


PIXELS = st.integers(0, 65535)


@given(st.lists(st.tuples(PIXELS, PIXELS, PIXELS), min_size=1, max_size=60))
def test_the_stretch(pixels):
    planes = np.array(pixels, np.uint16).T[:, None, :]
    out = stretch(*planes)[0]
    valid = sorted(value for pixel in pixels if any(pixel) for value in pixel)
    white = max([WHITE_AT_LEAST, *valid[: -(-995 * len(valid) // 1000)][-1:]])
    for pixel, shown in zip(pixels, out.tolist(), strict=True):
        exact = [min(255, 255 * value / white) for value in pixel]
        assert shown == pytest.approx(exact, abs=0.5 + 1e-9)


def test_open_water_stays_dark_and_snow_is_not_blown_out():
    water, snow = np.full((9, 9), 120, np.uint16), np.full((9, 9), 9000, np.uint16)
    assert stretch(water, water, water).max() == 61
    snow[:4] = 4500
    assert sorted(set(stretch(snow, snow, snow).ravel().tolist())) == [128, 255]


@pytest.mark.skipif(not REAL, reason="RS5M_TEST_DATA is not set: it names a folder with real patches")
def test_real_patches(store):
    rows = candidates(store, "ben", str(Path(REAL, "bigearthnet")))
    done = fetch(store, "ben", [str(Path(REAL, "bigearthnet"))], rows)
    assert done.books["ben"].kept == 11
    for body in bodies(store, done).values():
        with Image.open(io.BytesIO(body)) as image:
            pixels = np.asarray(image)
        assert pixels.shape == (120, 120, 3)
        assert (pixels == 255).mean() < 0.02
        assert pixels.max() > 200
    assert len({hashlib.sha256(body).hexdigest() for body in bodies(store, done).values()}) == 11


def test_the_bands_are_red_green_blue():
    assert BANDS == ("B04", "B03", "B02")
    assert render.renderer_of("millionaid") is None
    red, dark = np.full((3, 3), 1000, np.uint16), np.zeros((3, 3), np.uint16)
    assert stretch(red, dark, dark)[0, 0].tolist() == [255, 0, 0]

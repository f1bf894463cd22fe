import io
import sys
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image

from manifests.store import Store
from stages.archives import open_archive
from stages.dedup.guarded import Guarded
from stages.dedup.hash_lists import hash_images
from stages.dedup.inspect import Inspect
from stages.step import CorruptFileError
from tests.stages.handing import NOTHING_BEFORE, Before, Handed, perform, rows_of, settings_of, store_images


def picture(seed, width=40, height=30, kind="PNG"):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(out, kind)
    return out.getvalue()


ONE, TWO, JPEG = picture(1), picture(2), picture(3, kind="JPEG")


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def handed(store, bodies, tar="old.tar", sources=None):
    """Images by sample id, stored and handed as what was fetched."""
    places = store_images(store, tar, *bodies.values())
    fetched = [
        {"sample_id": key, "url": f"http://a.org/{key}", "tar": p.tar, "offset": p.offset, "length": p.length,
         "sha256": p.sha256}
        for key, p in zip(bodies, places, strict=True)
    ]  # fmt: skip
    candidates = [{"sample_id": key, "source": (sources or {}).get(key, "cc3m")} for key in (*bodies, "not fetched")]
    return Handed(store, {
        ("download.fetch", "fetched"): rows_of("fetched", *fetched),
        ("filter.pool", "candidates"): rows_of("candidates", *candidates),
    })  # fmt: skip


def inspect(tables, prior=NOTHING_BEFORE, **changed):
    return perform(Inspect(), tables, {f"dedup.{name}": value for name, value in changed.items()}, prior=prior)


def decoded(done):
    return done.result.facts["decoded_images"], done.result.facts["recorded_images"]


def test_what_is_kept_of_a_picture(store):
    done = inspect(handed(store, {"a": ONE, "b": JPEG}))
    row = done.row("inspected", "a")
    assert (row["width"], row["height"], row["mode"], row["frames"]) == (40, 30, "RGB", 1)
    assert (row["exif_orientation"], row["exif_lon"], row["exif_lat"]) == (0, None, None)
    with Image.open(io.BytesIO(ONE)) as image:
        assert f"{row['phash']:016x}" == str(imagehash.phash(image))
        small = np.asarray(image.convert("L").resize((16, 16), Image.Resampling.BOX))
    assert row["thumbnail"] == small.ravel().tolist()
    assert row["texture"] == pytest.approx(small.std(), abs=1e-4)
    assert row["phash_d4"][0] == row["phash"]
    assert row["hash_kind"] == "phash64-exact"
    assert done.result.ledger.is_empty()


def test_a_fast_hash_is_near_the_exact_one_and_of_another_kind(store):
    tables = handed(store, {f"{seed}": picture(seed, 300, 200, kind) for seed in range(6) for kind in ("JPEG",)})
    exact, fast = (inspect(tables, hash=kind).table("inspected").sort("sample_id") for kind in ("exact", "fast"))
    assert set(fast["hash_kind"]) == {"phash64-fast"}
    pairs = list(zip(exact["phash"], fast["phash"], strict=True))
    assert max((one ^ other).bit_count() for one, other in pairs) <= 6
    facts = ["sample_id", "sha256", "width", "height", "mode", "frames"]
    assert fast.select(facts).equals(exact.select(facts))


def test_why_pictures_leave(store):
    bodies = {
        "empty": b"",
        "text": b"no picture",
        "cut": JPEG[: len(JPEG) // 2],
        "large": picture(4, 41, 30),
        "fine": ONE,
    }
    done = inspect(handed(store, bodies, sources={"empty": "wit"}), max_pixels=1200)
    assert done.reasons() == {
        "empty": "dedup.empty", "text": "dedup.undecodable", "cut": "dedup.undecodable",
        "large": "dedup.too_many_pixels",
    }  # fmt: skip
    assert done.table("inspected")["sample_id"].to_list() == ["fine"]
    assert all(row["class"] == "dropped" and row["detail"] and row["sha256"] for row in done.left().values())
    assert "41 x 30" in done.left()["large"]["detail"]
    assert {source: (books.seen, books.kept) for source, books in done.books.items()} == {"cc3m": (4, 1), "wit": (1, 0)}


@pytest.fixture
def ailing(monkeypatch):
    """Images are decoded by a child that does what some bodies say."""
    with Guarded(command=[sys.executable, str(Path(__file__).with_name("ailing_child.py"))]) as guarded:
        monkeypatch.setattr("stages.dedup.guarded._SHARED", guarded)
        yield


@pytest.mark.usefixtures("ailing")
def test_a_crash_in_a_codec_costs_one_image_and_not_the_partition(store):
    bodies = {"a": ONE, "bad": b"ill:signal:SIGSEGV", "b": TWO, "worse": b"ill:signal:SIGABRT", "c": JPEG}
    done = inspect(handed(store, bodies))
    assert done.reasons() == {"bad": "dedup.undecodable", "worse": "dedup.undecodable"}
    assert done.left()["bad"]["detail"] == "the codec crashed (SIGSEGV)"
    assert sorted(done.table("inspected")["sample_id"]) == ["a", "b", "c"]
    sound = {key: bodies[key] for key in "abc"}
    assert done.table("inspected").equals(inspect(handed(store, sound, "new.tar")).table("inspected"))


@pytest.mark.usefixtures("ailing")
def test_a_crash_in_a_codec_costs_one_image_of_a_hash_list(store, tmp_path):
    files = {"a.png": ONE, "bad.jpg": b"ill:signal:SIGSEGV", "c.jpg": JPEG, "large.png": bytes(20_000)}
    for name, body in files.items():
        (tmp_path / name).write_bytes(body)
    told = []
    with open_archive(store, str(tmp_path)) as archive:
        hashed = hash_images(archive, "exact", 10_000, 10_000, lambda done, whole: told.append((done, whole)))
    assert hashed.frame["item"].to_list() == ["a.png", "c.jpg"]
    assert hashed.unread == [
        ("bad.jpg", "dedup.undecodable: the codec crashed (SIGSEGV)"),
        ("large.png", "too_large: 20000"),
    ]
    assert told == [(n, 4) for n in (1, 2, 3, 4)]


def test_equal_bytes_are_decoded_once(store):
    done = inspect(handed(store, {"a": ONE, "b": TWO, "c": ONE, "d": b"", "e": b""}))
    assert decoded(done) == (3, 0)
    rows = {key: done.row("inspected", key) for key in "abc"}
    assert rows["a"] | {"sample_id": "c"} == rows["c"]
    assert rows["a"]["phash"] != rows["b"]["phash"]
    assert set(done.reasons()) == {"d", "e"}


def test_what_was_inspected_before_is_taken_over_and_not_even_read(store):
    tables = handed(store, {"a": ONE, "b": TWO, "bad": b"no picture"})
    first = inspect(tables)
    store.remove("old.tar")
    second = inspect(tables, Before([first.earlier()]))
    assert (decoded(first), decoded(second)) == ((3, 0), (0, 3))
    assert second.table("inspected").equals(first.table("inspected"))
    assert second.result.ledger.equals(first.result.ledger)


def test_bytes_are_known_whoever_they_belong_to(store):
    first = inspect(handed(store, {"a": ONE, "bad": b"no picture"}))
    tables = handed(store, {"x": ONE, "y": TWO, "z": b"no picture"}, "new.tar", {"x": "wit"})
    second = inspect(tables, Before([first.earlier()]))
    assert decoded(second) == (1, 2)
    assert second.table("inspected").sort("sample_id").equals(inspect(tables).table("inspected").sort("sample_id"))
    assert second.left() == inspect(tables).left()


def test_a_row_whose_bytes_changed_is_done_anew(store):
    first = inspect(handed(store, {"a": ONE}))
    second = inspect(handed(store, {"a": TWO}, "new.tar"), Before([first.earlier()]))
    assert decoded(second) == (1, 0)
    assert second.row("inspected", "a")["phash"] != first.row("inspected", "a")["phash"]


def test_earlier_commits_are_read_until_all_is_known(store):
    tables = handed(store, {"a": ONE, "b": TWO})
    one, two = (inspect(handed(store, {"a": body}, "new.tar")).earlier() for body in (ONE, TWO))
    whole, unread = inspect(tables).earlier(), inspect(tables).earlier()
    assert decoded(inspect(tables, Before([one, two, unread]))) == (0, 2)
    assert decoded(inspect(tables, Before([whole, unread]))) == (0, 2)
    assert unread.reads == 0


def test_stored_bytes_that_changed_stop_the_partition(store):
    tables = handed(store, {"a": ONE, "b": TWO})
    raw = store.read("old.tar")
    store.replace("old.tar", raw.replace(b"IDAT", b"IDAX"))
    with pytest.raises(CorruptFileError, match=r"old\.tar"):
        inspect(tables)
    store.remove("old.tar")
    with pytest.raises(CorruptFileError, match="is not there"):
        inspect(tables)


def test_nothing_fetched(store):
    done = inspect(handed(store, {}))
    assert done.table("inspected").is_empty()
    assert (decoded(done), done.books) == ((0, 0), {})


def test_the_profile_names_every_codec_and_library():
    profile = Inspect().profile(settings_of(Inspect()))
    assert set(profile) == {"jpg", "libjpeg_turbo", "libtiff", "webp", "zlib", "numpy", "pillow", "scipy"}
    assert all(profile.values())

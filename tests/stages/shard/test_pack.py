import io
import tarfile

import pytest

from manifests.store import Store
from stages.shard.pack import Pack
from stages.step import CorruptFileError
from tests.stages.handing import Handed, perform, rows_of, store_images

STEM = "pub11-train-0003"
BODIES = {"0a": b"\xff\xd8 first", "0b": b"\x89PNG second" * 100, "0c": b""}


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def planned(places, captions=()):
    """The plan of one tar: a place by sample id."""
    return rows_of("plan", *(
        {"tar": STEM, "position": n, "sample_id": key, "source": "cc3m", "img_name": f"cc3m_{key}.jpg",
         "caption": dict(captions).get(key, f"about {key}"), "image_tar": place.tar, "offset": place.offset,
         "length": place.length, "sha256": place.sha256}
        for n, (key, place) in enumerate(places.items())
    ))  # fmt: skip


def stored(store, bodies, tar="i.tar"):
    return dict(zip(bodies, store_images(store, tar, *bodies.values()), strict=True))


def pack(store, plan, partition=STEM):
    return perform(Pack(), Handed(store, {("shard.plan", "plan"): plan}), partition=partition)


def members(store, done):
    (path,) = done.files("tar")
    with tarfile.open(fileobj=io.BytesIO(store.read(path)), mode="r:") as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar]


def test_three_members_a_sample_in_order_with_the_bytes_as_fetched(store):
    captions = {"0a": 'line one\nline two, "quoted"', "0b": "\u9ad8\u7a7a \u00e9\u0000"}
    done = pack(store, planned(stored(store, BODIES), captions))
    assert members(store, done) == [
        ("0a.img_name", b"cc3m_0a.jpg"), ("0a.img_content", BODIES["0a"]), ("0a.caption", captions["0a"].encode()),
        ("0b.img_name", b"cc3m_0b.jpg"), ("0b.img_content", BODIES["0b"]), ("0b.caption", captions["0b"].encode()),
        ("0c.img_name", b"cc3m_0c.jpg"), ("0c.img_content", b""), ("0c.caption", b"about 0c"),
    ]  # fmt: skip
    assert done.books["cc3m"].kept == 3


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_tar_goes_into_the_folder_of_its_split(store, split):
    stem = f"pub11-{split}-0012"
    assert pack(store, planned({}), stem).files("tar") == [f"release/{split}/{stem}.tar"]


def test_packed_rows_say_where_the_bytes_are(store):
    done = pack(store, planned(stored(store, BODIES)))
    raw = store.read(f"release/train/{STEM}.tar")
    for row in done.table("packed").iter_rows(named=True):
        assert raw[row["offset"] :][: row["length"]] == BODIES[row["sample_id"]]
        assert row["tar"] == STEM
    digests = {key: place.sha256 for key, place in stored(store, BODIES).items()}
    assert dict(done.table("packed").select("sample_id", "released_sha256").rows()) == digests
    (tar,) = [output for output in done.result.outputs if output.name == "tar"]
    assert tar.rows == len(BODIES)


def test_two_samples_may_share_an_image(store):
    (place,) = store_images(store, "i.tar", b"shared")
    done = pack(store, planned({"0a": place, "0b": place}))
    assert [body for name, body in members(store, done) if name.endswith("img_content")] == [b"shared", b"shared"]


def test_the_tar_does_not_depend_on_where_images_lie_nor_on_the_order_of_rows(store):
    pack(store, planned(stored(store, BODIES)))
    first = store.read(f"release/train/{STEM}.tar")
    elsewhere = stored(store, {"0b": BODIES["0b"], "x": b"other", "0c": b""}, "j.tar")
    places = {key: elsewhere.get(key) or place for key, place in stored(store, BODIES).items()}
    pack(store, planned(places).reverse())
    assert store.read(f"release/train/{STEM}.tar") == first


def test_a_tar_without_samples_is_valid_and_empty(store):
    done = pack(store, planned({}))
    assert members(store, done) == []
    assert store.size(f"release/train/{STEM}.tar") == 1024
    assert done.table("packed").is_empty()
    assert done.books == {}


def test_stored_bytes_that_changed_are_not_released(store):
    plan = planned(stored(store, BODIES))
    store.replace("i.tar", store.read("i.tar").replace(b"first", b"worst"))
    with pytest.raises(CorruptFileError, match=r"i\.tar"):
        pack(store, plan)
    assert store.size(f"release/train/{STEM}.tar") is None

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.store import Store
from stages.images import Place, Spool, read_images
from stages.step import CorruptFileError
from tests.stages.handing import store_images

KIB, MIB = 1 << 10, 1 << 20


class Counting(Store):
    """A local store that notes the ranges read."""

    def __init__(self, uri):
        super().__init__(uri)
        self.ranges = []

    def read_range(self, path, start, length):
        self.ranges.append((path, start, length))
        return super().read_range(path, start, length)


@pytest.fixture
def store(tmp_path):
    return Counting(str(tmp_path / "work"))


def body(letter, size_bytes):
    return letter.encode() * size_bytes


def digest(one):
    return hashlib.sha256(one).hexdigest()


def spooled(folder, *bodies):
    spool = Spool(folder)
    for one in bodies:
        spool.add(one, digest(one))
    return spool


def test_a_spool_gives_back_in_any_order(tmp_path):
    bodies = [b"two", b"one", body("x", 3 * MIB), b""]
    spool = spooled(tmp_path, *bodies, b"two")
    size_bytes = (tmp_path / "bodies.spool").stat().st_size
    assert [spool.read(digest(one)) for one in reversed(bodies)] == bodies[::-1]
    spool.add(b"last", digest(b"last"))
    assert spool.read(digest(b"last")) == b"last"
    assert max(size_bytes, (tmp_path / "bodies.spool").stat().st_size) == sum(map(len, bodies)) + len(b"last")
    with pytest.raises(KeyError):
        spool.read(digest(b"unknown"))
    spool.close()


def test_a_scratch_file_that_lost_bytes_is_named(tmp_path):
    spool = spooled(tmp_path, b"one", b"two")
    assert spool.read(digest(b"two")) == b"two"
    (tmp_path / "bodies.spool").write_bytes(b"one")
    with pytest.raises(OSError, match=r"bodies\.spool: 0 bytes at 3 of 3"):
        spool.read(digest(b"two"))
    spool.close()


def test_a_closed_spool_leaves_nothing(tmp_path):
    spooled(tmp_path, b"x").close()
    assert list(tmp_path.iterdir()) == []


def test_neighbours_are_read_in_one_range(store):
    places = store_images(store, "i.tar", *(body(letter, 1000) for letter in "abcdefgh"))
    assert dict(read_images(store, places)) == {n: body(letter, 1000) for n, letter in enumerate("abcdefgh")}
    assert len(store.ranges) == 1


def test_images_come_in_order_of_tar_and_offset(store):
    first, second = store_images(store, "b.tar", b"1", b"2"), store_images(store, "a.tar", b"3")
    places = [*first, *second]
    order = [index for index, _ in read_images(store, places)]
    assert order == sorted(range(3), key=lambda n: (places[n].tar, places[n].offset))
    assert [path for path, _, _ in store.ranges] == ["a.tar", "b.tar"]


@pytest.mark.parametrize(("gap_bytes", "ranges"), [(63 * KIB, 1), (128 * KIB, 2)])
def test_a_small_gap_is_read_over_and_a_large_one_is_not(store, gap_bytes, ranges):
    bodies = sorted([b"a" * gap_bytes, b"b" * gap_bytes, b"c" * gap_bytes], key=lambda b: hashlib.sha256(b).digest())
    ends = store_images(store, "i.tar", *bodies)
    read = dict(read_images(store, [ends[0], ends[2]]))
    assert read == {0: bodies[0], 1: bodies[2]}
    assert len(store.ranges) == ranges
    assert sum(length for _, _, length in store.ranges) < 3.1 * gap_bytes


def test_a_range_is_bounded(store):
    places = store_images(store, "i.tar", *(body(letter, 3 * MIB) for letter in "abcd"))
    assert len(list(read_images(store, places))) == 4
    assert len(store.ranges) == 2
    assert max(length for _, _, length in store.ranges) <= 8 * MIB


def test_an_image_over_the_bound_is_read_alone(store):
    places = store_images(store, "i.tar", body("a", 9 * MIB), b"b")
    assert dict(read_images(store, places)) == {0: body("a", 9 * MIB), 1: b"b"}


def test_rows_that_share_an_image_each_get_it(store):
    (place,) = store_images(store, "i.tar", b"shared")
    assert list(read_images(store, [place, place])) == [(0, b"shared"), (1, b"shared")]
    assert len(store.ranges) == 1


def test_nothing_asked_nothing_read(store):
    assert list(read_images(store, [])) == []
    assert store.ranges == []


@pytest.mark.parametrize("damage", ["flipped", "short", "gone"])
def test_damage_is_named(store, damage):
    places = store_images(store, "i.tar", body("a", 700), body("b", 700))
    raw, last = store.read("i.tar"), max(places, key=lambda place: place.offset)
    if damage == "gone":
        store.remove("i.tar")
    elif damage == "short":
        store.replace("i.tar", raw[: last.offset + 10])
    else:
        store.replace("i.tar", raw[: last.offset] + b"?" + raw[last.offset + 1 :])
    with pytest.raises(CorruptFileError, match=r"i\.tar") as caught:
        list(read_images(store, places))
    assert caught.value.path == "i.tar"


def test_a_place_that_is_off_is_damage(store):
    (place,) = store_images(store, "i.tar", b"body")
    with pytest.raises(CorruptFileError):
        list(read_images(store, [replace(place, offset=place.offset + 1)]))


def test_an_object_store_gives_the_same_in_the_same_order(tmp_path):
    bodies = [body(letter, 100 * KIB) for letter in "abcdefghijklmnopqrst"]
    local, remote = Store(str(tmp_path)), Store("memory://test-images")
    places = store_images(local, "i.tar", *bodies)
    remote.put(tmp_path / "i.tar", "i.tar")
    apart = sorted(places, key=lambda place: place.offset)[::2]  # ten ranges: more than are under way at a time
    assert list(read_images(remote, apart)) == list(read_images(local, apart))
    with pytest.raises(CorruptFileError, match="is not there"):
        list(read_images(remote, [replace(places[0], tar="other.tar")]))


@given(st.lists(st.binary(max_size=2000), max_size=12), st.data())
def test_any_bodies_come_back(bodies, data):
    asked = data.draw(st.lists(st.sampled_from(range(len(bodies))), max_size=20)) if bodies else []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        split = data.draw(st.integers(0, len(bodies)))
        places: list[Place] = [
            *store_images(store, "1.tar", *bodies[:split]), *store_images(store, "2.tar", *bodies[split:]),
        ]  # fmt: skip
        assert sorted(read_images(store, [places[n] for n in asked])) == [(i, bodies[n]) for i, n in enumerate(asked)]
        assert all((Path(folder) / tar).stat().st_size % 512 == 0 for tar in ("1.tar", "2.tar"))

import hashlib
import random

import pytest

from manifests.store import Store
from stages.outlier import bodies
from stages.outlier.bodies import bodies_by_digest
from stages.step import CorruptFileError
from tests.stages.handing import store_images

BODIES = [bytes([number]) * (100 + number) for number in range(40)]


def digest(body):
    return hashlib.sha256(body).hexdigest()


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


@pytest.mark.parametrize("block_bytes", [1, 300, 1 << 20])
def test_bodies_come_by_digest_wherever_they_lie(store, monkeypatch, block_bytes):
    monkeypatch.setattr(bodies, "_BLOCK_BYTES", block_bytes)
    places = [*store_images(store, "one.tar", *BODIES[::2]), *store_images(store, "two.tar", *BODIES[1::2])]
    random.Random(1).shuffle(places)
    assert list(bodies_by_digest(store, places)) == sorted((digest(body), body) for body in BODIES)


def test_few_blocks_are_held_at_a_time(store, monkeypatch):
    monkeypatch.setattr(bodies, "_BLOCK_BYTES", 500)
    read = []
    plain = bodies._read

    def counted(store, block):
        read.append(len(block))
        return plain(store, block)

    monkeypatch.setattr(bodies, "_read", counted)
    stream = bodies_by_digest(store, store_images(store, "one.tar", *BODIES))
    next(stream)
    assert 1 <= len(read) <= 2
    stream.close()
    assert len(read) <= 2


def test_no_places(store):
    assert list(bodies_by_digest(store, [])) == []


def test_a_body_that_changed_stops_the_reading(store):
    places = store_images(store, "one.tar", *BODIES)
    store.replace("one.tar", store.read("one.tar").replace(BODIES[20], b"x" * len(BODIES[20])))
    with pytest.raises(CorruptFileError, match=r"one\.tar"):
        list(bodies_by_digest(store, places))

"""A worker's poster: its file holds the newest values, and no store, slow or full, is ever in the way of the work."""

import errno
import json
import socket
import threading
import time

import pytest

from manifests.store import Store
from pipeline.poster import Poster, period_s
from tests.world_building import wait_for

PATH = "runs/x/live/download.fetch/web-0001.json"


class Slow(Store):
    """A store whose writes wait for ``go``."""

    def __init__(self, uri):
        super().__init__(uri)
        self.go = threading.Event()
        self.writes = 0

    def replace(self, path, data):
        self.go.wait(10)
        super().replace(path, data)
        self.writes += 1


class Full(Store):
    def replace(self, path, data):  # noqa: ARG002
        raise OSError(errno.ENOSPC, "no space left on device")


def _told(store):
    return json.loads(store.read(PATH))


@pytest.mark.parametrize("uri", ["file", "memory://rs5m-poster"])
def test_the_last_values_are_in_the_file_at_the_end(uri, tmp_path):
    store = Store(str(tmp_path) if uri == "file" else uri)
    with Poster(store, PATH, 3, 60.0) as poster:
        for number in range(5):
            poster.post({"images": number, "hosts": [{"host": "\u202e\ud800"}]})
    assert _told(store) == {
        "attempt": 3,
        "node": socket.gethostname(),
        "values": {"images": 4, "hosts": [{"host": "\u202e\ud800"}]},
    }
    assert poster.last == {"images": 4, "hosts": [{"host": "\u202e\ud800"}]}


def test_values_are_in_the_file_while_the_work_goes_on_but_not_more_often_than_asked(tmp_path):
    store = Slow(str(tmp_path))
    store.go.set()
    with Poster(store, PATH, 1, 0.1) as poster:
        poster.post({"images": 1})
        wait_for(lambda: store.writes == 1, 5)
        assert _told(store)["values"] == {"images": 1}
        begun_s = time.monotonic()
        while time.monotonic() < begun_s + 0.35:
            poster.post({"images": 2})
            time.sleep(0.002)
        wait_for(lambda: _told(store)["values"] == {"images": 2}, 5)
        assert 2 <= store.writes <= 6


def test_a_slow_store_holds_up_nobody(tmp_path):
    store = Slow(str(tmp_path))
    begun_s = time.monotonic()
    with Poster(store, PATH, 1, 0.0) as poster:
        for number in range(1000):
            poster.post({"images": number})
        assert time.monotonic() - begun_s < 5
        store.go.set()
    assert _told(store)["values"] == {"images": 999}
    assert store.writes <= 2


def test_what_cannot_be_written_is_left_out_and_the_values_still_come_home(tmp_path):
    with Poster(Full(str(tmp_path)), PATH, 1, 0.0) as poster:
        poster.post({"images": 1})
        time.sleep(0.05)
        poster.post({"images": 2})
    assert poster.last == {"images": 2}


def test_an_error_of_the_work_goes_up_and_the_values_until_then_stay(tmp_path):
    store = Store(str(tmp_path))

    def work():
        with Poster(store, PATH, 1, 60.0) as poster:
            poster.post({"images": 1})
            raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        work()
    assert _told(store)["values"] == {"images": 1}


def test_values_that_are_no_json_are_the_callers_error(tmp_path):
    with Poster(Store(str(tmp_path)), PATH, 1, 0.0) as poster, pytest.raises(TypeError):
        poster.post({"images": {1, 2}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("posts", [0, 1])
def test_without_a_place_or_without_posts_nothing_is_written_and_no_thread_started(posts, tmp_path):
    before = threading.active_count()
    with Poster(Store(str(tmp_path)), PATH if not posts else "", 1, 0.0) as poster:
        for _ in range(posts):
            poster.post({"images": 1})
        assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []


def test_object_stores_are_asked_less_often(tmp_path):
    assert period_s(Store(str(tmp_path))) == 2.0
    assert period_s(Store("memory://rs5m-poster")) == 10.0

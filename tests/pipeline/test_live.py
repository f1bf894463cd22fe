"""The driver's watch: reads what running tasks told, of this attempt alone, and nothing of tasks that ended."""

import json
import os

import pytest

from manifests.store import Store
from pipeline.live import Watch
from pipeline.poster import Poster
from pipeline.worker import TaskSpec
from tests.world_building import wait_for


class Counting(Store):
    """A store that remembers what was read."""

    def __init__(self, uri):
        super().__init__(uri)
        self.reads = []

    def read(self, path):
        self.reads.append(path)
        return super().read(path)

    def find(self, folder):  # noqa: ARG002
        raise AssertionError("nothing is listed")


class Watched:
    def __init__(self, store, every_s=60.0):
        self.heard, self.ended = [], []
        self.watch = Watch(
            store, "runs/x", self.heard.append, lambda name, values: self.ended.append((name, values)), every_s
        )


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    return Counting(str(tmp_path) if request.param == "file" else f"memory://rs5m-live-{os.getpid()}-{tmp_path.name}")


def _spec(partition="web-0001", step="download.fetch"):
    return TaskSpec(step, partition, {}, {}, final=False)


def _post(store, spec, values):
    with Poster(store, spec.live, spec.attempt, 60.0) as poster:
        poster.post(values)


def test_what_a_task_tells_is_heard_while_it_runs_and_not_afterwards(store):
    watched = Watched(store)
    spec = watched.watch.begun(_spec())
    assert spec.live == "runs/x/live/download.fetch/web-0001.json"
    watched.watch.look()
    _post(store, spec, {"images": 4})
    watched.watch.look()
    watched.watch.ended(spec, {"images": 5})
    watched.watch.look()
    assert watched.heard == [{}, {"web-0001": {"images": 4}}]
    assert watched.ended == [("web-0001", {"images": 5})]
    assert store.reads == [spec.live] * 2, "only files of running tasks are read"
    assert json.loads(store.read(spec.live))["values"] == {"images": 4}, "and they stay"


def test_values_of_an_earlier_attempt_are_not_taken_for_this_one(store):
    watched = Watched(store)
    first = watched.watch.begun(_spec())
    _post(store, first, {"images": 9})
    watched.watch.ended(first, None)
    second = watched.watch.begun(_spec())
    assert (first.attempt, second.attempt, first.live) == (1, 2, second.live)
    watched.watch.look()
    assert watched.heard == [{}]
    _post(store, second, {"images": 1})
    watched.watch.look()
    assert watched.heard[1:] == [{"web-0001": {"images": 1}}]
    assert watched.ended == [("web-0001", None)]


@pytest.mark.parametrize("spec", [_spec(step="dedup.inspect"), _spec("fmow-0000"), _spec("held-mine-0000")])
def test_other_steps_and_archives_tell_but_are_not_watched(store, spec):
    watched = Watched(store)
    told = watched.watch.begun(spec)
    assert told.live.startswith("runs/x/live/")
    watched.watch.look()
    watched.watch.ended(told, {"images": 1})
    assert (watched.heard, watched.ended, store.reads) == ([], [], [])


def test_a_file_that_cannot_be_read_is_passed_over(store):
    watched = Watched(store)
    broken, whole = watched.watch.begun(_spec("web-0001")), watched.watch.begun(_spec("web-0002"))
    store.replace(broken.live, b'{"attempt": 1, "val')
    _post(store, whole, {"images": 2})
    watched.watch.look()
    assert watched.heard == [{"web-0002": {"images": 2}}]


def test_many_tasks_are_read_by_themselves_every_so_often(tmp_path):
    store = Store(str(tmp_path))
    watched = Watched(store, every_s=0.02)
    specs = [watched.watch.begun(_spec(f"web-{number:04}")) for number in range(50)]
    for number, spec in enumerate(specs):
        _post(store, spec, {"images": number})
    with watched.watch:
        wait_for(lambda: len(watched.heard) >= 2, 10)
    assert watched.heard[-1] == {f"web-{number:04}": {"images": number} for number in range(50)}
    looks = len(watched.heard)
    assert not watched.watch._thread.is_alive()
    assert len(watched.heard) == looks

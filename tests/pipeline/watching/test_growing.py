"""Files that grow by lines: at once on a file system, in pieces of a bounded size on an object store."""

import os

import pytest

from manifests.store import Store
from pipeline.events import Events
from pipeline.runs import RunFolder, newest_events
from pipeline.watching.growing import GrowingFile


class Counting(Store):
    def __init__(self, uri):
        super().__init__(uri)
        self.sent = []

    def replace(self, path, data):
        self.sent.append((path, len(data)))
        super().replace(path, data)


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    return Counting(
        str(tmp_path) if request.param == "file" else f"memory://rs5m-growing-{os.getpid()}-{tmp_path.name}"
    )


def test_what_is_sent_stays_in_proportion_to_what_there_is(store):
    file = GrowingFile(store, "runs/x/metrics.jsonl", 0.0)
    line = b"x" * 99_999 + b"\n"
    for _ in range(60):
        file.append(line)
    file.close()
    assert sum(size for _, size in store.sent) <= 7 * 60 * len(line)
    assert max((size for _, size in store.sent), default=0) < 1_300_000
    found = b"".join(store.read(entry.path) for entry in store.find("runs/x"))
    assert found == line * 60


def test_all_events_of_the_newest_run_are_read_whatever_the_pieces(store, fresh):
    for run in range(2):
        folder, events = RunFolder(store, fresh.recipe(), []), Events()
        events.listen(folder.listen)
        for number in range(30):
            events("note", text=f"{run} {number} " + "x" * 100_000)
            if number % 3 == 0:
                folder.flush()
        folder.flush()
    lines = list(newest_events(store))
    assert len(lines) == 30
    assert all(f'"text": "1 {number} '.encode() in line for number, line in enumerate(lines))
    assert bool(store.local_path("")) == (len([e for e in store.find(folder.path) if "events" in e.path]) == 1)

"""A partition that cannot be made is tried again, named, and does not stop the others; a full disk stops the run."""

import errno
import shutil
import time

import pytest

from manifests.store import Store
from pipeline import line
from pipeline.line import LINE
from pipeline.runner import NoSpaceError
from stages.dedup.inspect import Inspect
from tests.world_building import Workdir


@pytest.fixture
def damaged(fresh):
    """A workdir in which one Parquet metadata file has a broken data page under a footer that is whole."""
    file = next((fresh.path / "world/metadata/laion2b").glob("part-00002*"))
    body = bytearray(file.read_bytes())
    body[4:200] = bytes(196)
    file.unlink()  # workdirs share files by hard links
    file.write_bytes(bytes(body))
    return fresh


def _of(workdir, kind):
    return [event for event in workdir.events() if event["event"] == kind]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_partition_is_named_and_leaves_the_others_alone(damaged, workers):
    done = damaged.cli("--executor", "local", "--workers", str(workers), "--set", "run.retries=2")
    assert done.returncode == 3
    assert "FAILED filter.match/laion2b-" in done.stderr
    assert "fetch it again" in done.stderr
    assert _of(damaged, "partition_retried") == []  # what is wrong with a file stays wrong
    assert len(_of(damaged, "partition_failed")) == 1
    settled = damaged.manifests()
    assert sum(key.startswith("filter.match/") for key in settled) == 17
    assert "filter.pool/all" not in settled


def test_a_skipped_partition_lets_the_rest_through(damaged):
    assert damaged.run().exit_code == 3
    bad = next(event for event in _of(damaged, "partition_failed"))
    skip = f'run.skip=["{bad["step"]}/{bad["partition"]}"]'
    ended = damaged.run(skip)
    assert "filter.pool/all" in damaged.manifests(skip)
    assert (damaged.path / "release/checksums.sha256").exists()
    assert ended.exit_code == 3  # it is skipped, not well


def test_a_download_ends_before_its_deadline_and_keeps_what_it_has(fresh):
    """A url that never ends must not cost the partition what it fetched: the rest stays deferred, never failed."""
    slow = ("download.network.total_s=60", "download.network.read_s=30", "download.network.connect_s=30")
    first = fresh.run(*slow, "run.partition_deadline_s=3", "run.rounds=1")
    assert first.exit_code == 3
    (name,) = first.summary.left_open
    assert name.startswith("download.fetch/")
    steps = [step.name for step in LINE]
    assert list(first.summary.skipped) == steps[steps.index("dedup.inspect") :]
    assert fresh.run().exit_code == 0
    fetched = [e for e in fresh.events() if e["event"] == "partition_done" and e["step"] == "download.fetch"]
    again = fetched[-1]
    assert again["partition"] == name.split("/")[1]
    assert fresh.facts("download.fetch", "fetched_urls") < fresh.facts("download.fetch", "recorded_urls") + 40


class _Stuck(Inspect):
    def process(self, task, tables, prior):
        if task.partition == "web-0001":
            time.sleep(60)
        return super().process(task, tables, prior)


def test_in_process_the_deadline_interrupts(settled, reference, monkeypatch):
    shutil.rmtree(settled.path / "commits/dedup.inspect")
    monkeypatch.setitem(line._BY_NAME, "dedup.inspect", _Stuck())
    ended = settled.run("run.partition_deadline_s=0.5", "run.retries=1")
    assert ended.exit_code == 3
    assert list(ended.summary.failed) == ["dedup.inspect/web-0001"]
    assert len(_of(settled, "partition_retried")) == 1
    monkeypatch.undo()
    assert settled.run().exit_code == 0
    assert settled.snapshot() == reference


class _FullDisk(Store):
    """Has room for a number of files."""

    def __init__(self, uri, room):
        super().__init__(uri)
        self._room = room

    def move(self, local, path):
        self._room -= 1
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        super().move(local, path)


@pytest.mark.parametrize("room", [3, 25, 40])
def test_a_full_disk_stops_the_run_and_it_resumes(fresh: Workdir, reference, room):
    with pytest.raises(NoSpaceError, match="free some space"):
        fresh.run(store=_FullDisk(str(fresh.path), room))
    assert not list((fresh.path / "locks").glob("*.json"))
    assert fresh.run().exit_code == 0
    assert fresh.snapshot() == reference

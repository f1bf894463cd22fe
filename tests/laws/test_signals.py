"""Ctrl-C stops with 130, SIGTERM and SIGUSR1 drain and exit with 143; all of them can be resumed."""

import os
import signal
import time

import pytest

from tests.world_building import wait_for

# Enough patience that the slow url holds download.fetch for a second or two: there the signal comes.
_SLOW = ("--set", "download.network.total_s=2", "--set", "download.network.read_s=2")


def _asks_the_web(workdir):
    """Whether a web partition is on its way: a worker has said so, and the quick parts of archives are behind."""
    return any(workdir.path.glob("runs/*/live/download.fetch/web-*.json"))


def _signalled(workdir, number, *arguments, to_group=False):
    """Send a signal when the download has begun; return the finished process and how long it took to end."""
    with workdir.start(*arguments, *_SLOW) as process:
        wait_for(lambda: _asks_the_web(workdir) or process.poll() is not None)
        start = time.monotonic()
        (os.killpg if to_group else os.kill)(process.pid, number)
        _, err = process.communicate(timeout=60)
    return process.returncode, err, time.monotonic() - start


@pytest.mark.parametrize(("executor", "workers"), [("local", 1), ("local", 2), ("ray", 2)])
def test_ctrl_c_stops_now(fresh, reference, executor, workers):
    way = ("--executor", executor, "--workers", str(workers))
    code, err, _ = _signalled(fresh, signal.SIGINT, *way, to_group=True)
    assert code == 130, err
    assert "run the same command again to resume" in err
    assert "Traceback" not in err
    assert "Exception" not in err, err
    assert not list((fresh.path / "locks").glob("*.json"))
    assert fresh.cli().returncode == 0
    assert fresh.snapshot() == reference


@pytest.mark.parametrize(
    ("number", "executor", "workers"),
    [(signal.SIGTERM, "local", 1), (signal.SIGUSR1, "local", 2), (signal.SIGTERM, "ray", 2)],
)
def test_a_drain_finishes_what_runs_and_starts_nothing_new(fresh, reference, number, executor, workers):
    code, err, _ = _signalled(fresh, number, "--executor", executor, "--workers", str(workers))
    assert code == 143, err
    assert "stopped before the end" in err
    started = {e["step"] for e in fresh.events() if e["event"] == "step_started"}
    assert "dedup.inspect" not in started
    done = [e["partition"] for e in fresh.events() if e["event"] == "partition_done" and e["step"] == "download.fetch"]
    parts_of_archives = 3  # done in no time, before the signal comes
    assert 1 <= len(done) <= workers + parts_of_archives
    assert not list((fresh.path / "locks").glob("*.json"))
    assert fresh.cli().returncode == 0
    assert fresh.snapshot() == reference


def test_a_drain_that_comes_to_the_whole_group_is_still_a_drain(fresh, reference):
    """A scheduler signals every process of a job, the workers too."""
    code, err, _ = _signalled(fresh, signal.SIGTERM, "--executor", "local", "--workers", "2", to_group=True)
    assert code == 143, err
    assert fresh.cli().returncode == 0
    assert fresh.snapshot() == reference

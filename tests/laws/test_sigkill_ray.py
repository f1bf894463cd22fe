"""Kill -9 the driver of a Ray build at three drawn moments; each resume ends in the bytes of an undisturbed build."""

import os
import random
import signal

import pytest

from tests.world_building import wait_for

_SEED = 20230611
_RAY = ("--executor", "ray", "--workers", "2")


def _done(workdir):
    return sum(event["event"] == "partition_done" for event in workdir.events())


def test_a_ray_build_survives_three_kills_of_its_driver(fresh, reference):
    partitions = len(reference.ledgers)
    moments = sorted(random.Random(_SEED).sample(range(partitions - 1), 3))
    for moment in moments:
        with fresh.start(*_RAY) as process:
            wait_for(lambda: _done(fresh) > moment or process.poll() is not None)  # noqa: B023
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert (fresh.path / "locks/run.json").exists()
    done = fresh.cli(*_RAY)
    assert done.returncode == 0, done.stderr
    assert fresh.snapshot() == reference


@pytest.mark.parametrize("executor", ["local"])
def test_so_does_a_build_of_local_processes(fresh, reference, executor):
    way = ("--executor", executor, "--workers", "2")
    with fresh.start(*way) as process:
        wait_for(lambda: _done(fresh) > 10 or process.poll() is not None)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    done = fresh.cli(*way)
    assert done.returncode == 0, done.stderr
    assert fresh.snapshot() == reference

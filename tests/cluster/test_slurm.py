"""A real Slurm builds the miniature, in both shapes, with a killed task and a met time limit: the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm_here import Slurm, missing, slurm_here

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600), pytest.mark.xdist_group("slurm")]

RECIPE = os.environ.get("RS5M_CLUSTER_RECIPE", "mini")
# The largest host of a partition is asked for 25 s so: there is time to change a job's limit while it downloads.
SLOW = ("download.network.spacing_s=0.4",)
DRAIN_S = 120  # cluster.drain_s


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    if reason := missing():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="rs5m-slurm-") as folder, slurm_here(Path(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """A build on this machine, without Slurm and without Ray."""
    workdir = tmp_path_factory.mktemp("reference") / "work"
    command = _cli("run", workdir, "--executor", "local", "--workers", "2")
    assert subprocess.run(command, cwd=workdir.parent, capture_output=True, check=False).returncode == 0
    return workdir


def test_a_chain_of_arrays_with_a_killed_task_and_a_met_time_limit(slurm, reference, tmp_path):
    workdir = _with_world(reference, tmp_path)
    _submit(slurm, workdir, *SLOW)
    _wait(lambda: (workdir / "locks/download.fetch.1of2.json").exists())
    _meet_limit(slurm, _task(slurm, "download.fetch", 1))
    killed = _task(slurm, "outlier.embed", 0)
    _kill_the_holder(workdir / "locks/outlier.embed.0of2.json")
    ended = slurm.wait(1800)

    mine = {id_: job for id_, job in ended.items() if job[0] != f"{RECIPE}.line"}
    assert mine.pop(killed)[1] == "FAILED"
    assert {state for _, state, _ in mine.values()} == {"COMPLETED"}
    assert len(mine) == 8 + 2 * 8 - 1
    assert [name for name, _, restarts in mine.values() if restarts] == [f"{RECIPE}.download.fetch"]
    assert "stopped before the end" in _logs(workdir, "download.fetch")
    assert "locks/outlier.embed.0of2.json is held by" in _logs(workdir, "outlier.cut")
    assert _release(workdir) == _release(reference)
    assert list((workdir / "locks").iterdir()) == []


def test_one_job_that_starts_ray_on_two_nodes_and_meets_its_time_limit(slurm, reference, tmp_path):
    workdir = _with_world(reference, tmp_path)
    _submit(slurm, workdir, 'cluster.shape="ray"', *SLOW)
    _wait(lambda: _committed(workdir, "download.fetch"))
    (job,) = [id_ for id_, (name, state, _) in slurm.jobs().items() if name.endswith("line") and state == "RUNNING"]
    _meet_limit(slurm, job)
    ended = slurm.wait(1800)

    assert ended[job] == (f"{RECIPE}.line", "COMPLETED", 1)
    log = _logs(workdir, "line")
    assert log.count("2 of 2 nodes") == 2
    assert "stopped before the end" in log
    assert _release(workdir) == _release(reference)


def _task(slurm: Slurm, step: str, number: int) -> str:
    return next(
        id_ for id_, (name, _, _) in slurm.jobs().items() if name == f"{RECIPE}.{step}" and id_.endswith(f"_{number}")
    )


def _meet_limit(slurm: Slurm, job: str) -> None:
    """Bring a running job to its limit: Slurm warns it as soon as it looks, every 30 s, and it comes back."""
    *more, minutes, seconds = map(int, slurm.call("squeue", "-h", "-j", job, "-o", "%M").strip().split(":"))
    ends_s = minutes * 60 + seconds + DRAIN_S
    assert not more
    slurm.call("scontrol", "update", f"JobId={job}", f"TimeLimit={-(-ends_s // 60)}")
    _wait(lambda: slurm.jobs()[job][2] == 1)
    slurm.call("scontrol", "update", f"JobId={job}", "TimeLimit=60")


def _kill_the_holder(lock: Path) -> None:
    """Kill -9 a run as soon as it holds its lock: scancel would let it finish its work and give the lock back."""
    _wait(lambda: lock.exists() and json.loads(lock.read_text())["beat"] > 0)
    os.kill(json.loads(lock.read_text())["pid"], signal.SIGKILL)


def _committed(workdir: Path, step: str) -> bool:
    return any(f"/{step}/" in str(path) for path in (workdir / "commits").rglob("*.json"))


def _cli(command: str, workdir: Path, *arguments: str) -> list[str]:
    here = ["--recipe", RECIPE, "--workdir", str(workdir)]
    return [sys.executable, "-m", "pipeline.cli", command, *here, *arguments]


def _with_world(reference: Path, tmp_path: Path) -> Path:
    """Return a workdir that holds the reference's world, which takes long to build, and nothing else."""
    workdir = tmp_path / "work"
    shutil.copytree(reference / "world", workdir / "world", copy_function=os.link)
    shutil.copyfile(reference / "workdir.json", workdir / "workdir.json")
    return workdir


def _submit(slurm: Slurm, workdir: Path, *overrides: str) -> None:
    settings = [part for override in overrides for part in ("--set", override)]
    slurm.call(*_cli("submit", workdir, "--to", "slurm", "--array", "2", *settings), cwd=workdir.parent)


def _logs(workdir: Path, job: str) -> str:
    logs = (workdir.parent / "jobs" / RECIPE / "logs").glob(f"{RECIPE}.{job}.*.log")
    return "\n".join(path.read_text() for path in sorted(logs))


def _release(workdir: Path) -> dict[str, str]:
    files = sorted(path for path in (workdir / "release").rglob("*") if path.is_file())
    assert files
    return {str(path.relative_to(workdir)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _wait(condition, timeout_s: float = 600) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)

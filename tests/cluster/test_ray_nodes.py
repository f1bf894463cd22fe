"""The miniature build on a Ray cluster of three nodes that loses two of them, and its driver once.

Nodes are real raylets with loopback addresses of their own, and are killed whole, workers included; the driver is the
command line. What is released is the bytes of a build on this machine alone, and the run's events say what happened.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.ray_nodes import RayNodes
from tests.world_building import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

# Recipe and seconds for a phase; RS5M_CLUSTER_RECIPE=nano is a quick try.
_RECIPE = os.environ.get("RS5M_CLUSTER_RECIPE", "mini")
_PHASE_S = 600.0
# Time in the middle of a step: many small partitions, few requests at a time, small batches.
_SETTINGS = (
    "filter.buckets=12", "download.network.per_host=4", "download.network.connections=16", "outlier.batch=2",
    "run.lock_beat_s=0.2",
)  # fmt: skip


class Build:
    """A build in a workdir, by the command line; its events are those of all its runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path.with_suffix(".log")

    def start(self, *arguments: str, cwd: Path | None = None, before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        settings = [part for setting in _SETTINGS for part in ("--set", setting)]
        place = ["--recipe", _RECIPE, "--workdir", str(self.path), *settings]
        with self.log.open("ab") as out:
            return subprocess.Popen(
                [*before, sys.executable, "-m", "pipeline.cli", "run", *place, *arguments],
                stdout=out, stderr=out, start_new_session=True, cwd=cwd,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            )  # fmt: skip

    def events(self, *names: str) -> list[dict[str, object]]:
        files = sorted((self.path / "runs").glob("*/events.jsonl"), key=lambda file: file.stat().st_mtime)
        lines = [json.loads(line) for file in files for line in file.read_bytes().splitlines() if line.endswith(b"}")]
        return [event for event in lines if not names or event["event"] in names]

    def under_way(self, step: str) -> int:
        """Return how many partitions of a step began and did not end."""
        began = len([e for e in self.events("partition_started") if e["step"] == step])
        ends = self.events("partition_done", "partition_retried", "partition_failed")
        return began - len([e for e in ends if e["step"] == step])

    def done(self, step: str) -> int:
        return len([e for e in self.events("partition_done") if e["step"] == step])

    def cli(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        asked = [sys.executable, "-m", "pipeline.cli", command, "--workdir", str(self.path), *arguments]
        return subprocess.run(asked, capture_output=True, text=True, check=False, timeout=_PHASE_S)

    def released(self) -> dict[str, str]:
        """Return the sha256 of every released file."""
        files = [f for f in sorted((self.path / "release").rglob("*")) if f.is_file()]
        return {str(f.relative_to(self.path)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def _wait(process: subprocess.Popen[bytes], log: Path, condition) -> None:
    """Wait until a condition holds, or say what the driver said if it ended before."""
    wait_for(lambda: condition() or process.poll() is not None, _PHASE_S)
    assert process.poll() is None, log.read_text()[-4000:]


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _renamed() -> tuple[str, ...]:
    """Return what runs a command under another host name, where that is allowed."""
    change = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh")
    allowed = shutil.which("unshare") and subprocess.run([*change, "true"], check=False, capture_output=True)
    return change if allowed and allowed.returncode == 0 else ()


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Build:
    """The same build on this machine alone."""
    build = Build(tmp_path_factory.mktemp("local") / "work")
    process = build.start("--executor", "local", "--workers", "2")
    assert process.wait(_PHASE_S) == 0, build.log.read_text()[-4000:]
    return build


def test_two_nodes_and_the_driver_are_lost_and_the_release_is_the_same_bytes(local, tmp_path) -> None:
    build, elsewhere = Build(tmp_path / "work"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    with RayNodes() as nodes:
        small, large = nodes.add(num_cpus=1, scorer=1), nodes.add(num_cpus=2)
        scoring = 'run.ray_resources={"outlier.embed" = {scorer = 1}}'
        joining = (
            "--executor", "ray", "--ray-address", nodes.address, "--set", scoring, "--set", "run.ray_wait_s=300",
        )  # fmt: skip
        driver = build.start(*joining, cwd=tmp_path)
        try:
            _wait(driver, build.log, lambda: build.done("download.fetch") > 0 and large.is_busy())
            large.kill()
            nodes.add(num_cpus=3)
            _wait(driver, build.log, lambda: build.under_way("outlier.embed") > 0 and small.is_busy())
            small.kill()  # no other node may score: the run waits until one comes
            _wait(driver, build.log, lambda: "waiting up to 300 s" in build.log.read_text())
            nodes.add(num_cpus=2, scorer=2)
            _wait(driver, build.log, lambda: build.done("outlier.embed") > 3)
        finally:
            _end(driver)
        assert (build.path / "locks/run.json").exists()
        second = build.start(*joining, cwd=elsewhere, before=_renamed())
        try:
            assert second.wait(_PHASE_S) == 0, build.log.read_text()[-4000:]
        finally:
            _end(second)
    assert build.released() == local.released()
    assert json.loads(build.cli("report", "--json").stdout) == json.loads(local.cli("report", "--json").stdout)
    verified = build.cli("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    lost = build.events("node_lost")
    assert [large.address in str(e["node"]) for e in lost[:1]] == [True], lost
    assert {small.address, large.address} <= {str(e["node"]).partition(":")[0] for e in lost}
    assert sum(int(str(e["tasks"])) for e in lost) > 0
    retried = [e for e in build.events("partition_retried") if e["kind"] == "node_lost"]
    assert len(retried) == sum(int(str(e["tasks"])) for e in lost)
    assert [set(e["has"].split(", ")) for e in build.events("node_joined")] == [{"3 CPU"}, {"2 CPU", "2 scorer"}]
    assert build.events("partition_failed") == []
    said = build.log.read_text()
    assert f"node {large.address}" in said
    assert "was lost" in said
    assert "Traceback" not in said


def test_a_lost_head_is_said_in_a_line_and_the_next_run_resumes(local, tmp_path) -> None:
    build = Build(tmp_path / "work")
    with RayNodes() as nodes:
        nodes.add(num_cpus=2)
        driver = build.start("--executor", "ray", "--ray-address", nodes.address)
        try:
            _wait(driver, build.log, lambda: build.done("download.fetch") > 0)
            began = time.monotonic()
            nodes.head.kill()
            assert driver.wait(90) == 3, build.log.read_text()[-4000:]
        finally:
            _end(driver)
        assert time.monotonic() - began < 55
    said = build.log.read_text()
    assert "rs5m-build: the head of the Ray cluster at 127.0.0.2:" in said
    assert "has not answered for 3" in said
    assert "run the same command to resume" in said
    assert "Traceback" not in said
    resumed = build.start("--executor", "local", "--workers", "2")
    assert resumed.wait(_PHASE_S) == 0
    assert build.released() == local.released()


def test_a_step_that_no_node_can_do_says_so_within_seconds(tmp_path) -> None:
    build = Build(tmp_path / "work")
    with RayNodes() as nodes:
        nodes.add(num_cpus=1, disk=2)
        asked = ("--set", 'run.ray_resources={"download.fetch" = {net = 1}, "*" = {disk = 0.5}}')
        driver = build.start("--executor", "ray", "--ray-address", nodes.address, *asked)
        try:
            assert driver.wait(_PHASE_S) == 2, build.log.read_text()[-4000:]
        finally:
            _end(driver)
    (started,) = [e for e in build.events("step_started") if e["step"] == "download.fetch"]
    assert build.done("filter.pool") == 1
    (stopped,) = build.events("run_stopped", "run_finished")[-1:]
    assert _seconds(str(stopped["t"])) - _seconds(str(started["t"])) < 15
    last = build.log.read_text().splitlines()[-1]
    assert "download.fetch asks for 1 CPU, 1 net on one node, and the cluster has 2 nodes with 1 CPU, 2 disk" in last


def _seconds(stamp: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(stamp).timestamp()

"""A build handed to a real Ray cluster by the script that `submit --to ray` writes: done, stopped, resumed."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from manifests.recipe_files import dump_recipe
from pipeline.submit.needs import job_needs
from pipeline.submit.order import RECIPE_FILE, Order
from pipeline.submit.ray_job import SCRIPT, render
from tests.world_building import Snapshot, Workdir, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
DASHBOARD = ("aiohttp_cors", "opencensus", "grpc")
# A slow url holds the download for longer than the 3 s that Ray itself would leave a stopped job.
SLOW = ("download.network.total_s=8", "download.network.read_s=8")


@dataclass(frozen=True)
class Cluster:
    """A head on loopback, with its dashboard."""

    dashboard: str
    environment: dict[str, str]

    def ray(self, *arguments: str) -> str:
        done = subprocess.run(
            ["ray", *arguments], env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, workdir: Workdir, folder: Path, *overrides: str) -> str:
        """Write the job's files, run its script; returns the job's id."""
        recipe = workdir.recipe(f'cluster.ray_dashboard="{self.dashboard}"', "cluster.drain_s=60", *overrides)
        order = Order(recipe, str(workdir.path), str(folder), str(folder), ("rs5m-build",), job_needs(recipe))
        folder.mkdir()
        for file in render(order):
            (folder / file.name).write_text(file.text)
        (folder / RECIPE_FILE).write_text(dump_recipe(recipe))
        (folder / "stages").mkdir()
        (folder / "stages" / "__init__.py").write_text("raise SystemExit('a foreign folder went along')\n")
        done = subprocess.run(
            ["bash", folder / SCRIPT], env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found = re.search(r"raysubmit_\w+", done.stdout)
        assert found, done.stdout
        return found[0]

    def ended(self, job: str) -> str:
        """Return how a job ended: SUCCEEDED, FAILED or STOPPED."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            found = re.search(r"\b(SUCCEEDED|FAILED|STOPPED)\b", self.ray("job", "status", *self.at, job).upper())
            if found:
                return found[1]
            time.sleep(1)
        raise TimeoutError(job)

    @property
    def at(self) -> tuple[str, str]:
        return ("--address", self.dashboard)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in held]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    if missing := [name for name in DASHBOARD if importlib.util.find_spec(name) is None]:
        pytest.skip(f"Ray's dashboard is not installed: no {', '.join(missing)} (pip install 'rs5m-build[cluster]')")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, module in (("ray", "ray.scripts.scripts"), ("rs5m-build", "pipeline.cli")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16),
    }  # fmt: skip
    port, dashboard = _free_ports(2)
    # Sockets lie below this folder, and their paths are at most 107 bytes.
    short = Path(f"/tmp/rs5m-{secrets.token_hex(4)}")
    head = [
        "ray", "start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--port", str(port), "--num-cpus", "2",
        "--dashboard-port", str(dashboard), "--object-store-memory", str(128 << 20), "--temp-dir", str(short),
        "--object-spilling-directory", str(tmp_path / "spill"),
    ]  # fmt: skip
    with (tmp_path / "head.log").open("wb") as log, subprocess.Popen(
        head, env=environment, stdout=log, stderr=log, start_new_session=True
    ) as process:  # fmt: skip
        made = Cluster(f"http://127.0.0.1:{dashboard}", environment)
        try:
            wait_for(lambda: _answers(made) or process.poll() is not None, 120)
            assert process.poll() is None, (tmp_path / "head.log").read_text()
            yield made
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            subprocess.run(["rm", "-rf", short], check=False)


def _answers(cluster: Cluster) -> bool:
    listed = subprocess.run(
        ["ray", "job", "list", *cluster.at], env=cluster.environment, capture_output=True, check=False, timeout=60
    )
    return listed.returncode == 0


def test_the_script_builds_what_a_laptop_builds(
    cluster: Cluster, fresh: Workdir, reference: Snapshot, tmp_path: Path
) -> None:
    job = cluster.submit(fresh, tmp_path / "job")
    assert cluster.ended(job) == "SUCCEEDED", cluster.ray("job", "logs", *cluster.at, job)
    assert fresh.snapshot() == reference


def test_a_stopped_job_drains_and_the_next_one_resumes(
    cluster: Cluster, fresh: Workdir, reference: Snapshot, tmp_path: Path
) -> None:
    job = cluster.submit(fresh, tmp_path / "job", *SLOW)
    wait_for(lambda: any(fresh.path.glob("runs/*/live/download.fetch/web-*.json")), 120)
    cluster.ray("job", "stop", *cluster.at, job)
    assert cluster.ended(job) == "STOPPED"
    log = cluster.ray("job", "logs", *cluster.at, job)
    assert "stopped before the end" in log, "it was drained, not killed"
    assert not list((fresh.path / "locks").glob("*.json"))
    again = cluster.submit(fresh, tmp_path / "again")
    assert cluster.ended(again) == "SUCCEEDED", cluster.ray("job", "logs", *cluster.at, again)
    assert fresh.snapshot() == reference

"""What a container starts: the words it hands on, and that signals reach the run, as pid 1 and otherwise."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docker.conftest import ENTRYPOINT
from tests.world_building import Snapshot, Workdir, wait_for

Programs = Callable[[str, str], dict[str, str]]
TELL = '#!/bin/sh\necho "$(basename "$0")" "$@"\necho "$RAY_USAGE_STATS_ENABLED" >&2\n'
SLOW = ("--set", "download.network.total_s=2", "--set", "download.network.read_s=2")


def entered(environment: dict[str, str], *arguments: str, timeout_s: float = 20) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ENTRYPOINT, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=timeout_s
    )


@pytest.fixture
def told(programs: Programs) -> dict[str, str]:
    """An environment with a ray and an rs5m-build that say what they were given."""
    programs("ray", TELL)
    return programs("rs5m-build", TELL)


@pytest.fixture
def head() -> Iterator[str]:
    """An address at which something answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("arguments", [("run", "--recipe", "nano"), ("--help",), (), ("run", "--set", 'a.b=["c d"]')])
def test_anything_else_is_rs5m_build(told: dict[str, str], arguments: tuple[str, ...]) -> None:
    done = entered(told, *arguments)
    assert (done.returncode, done.stdout.split()) == (0, ["rs5m-build", *" ".join(arguments).split()])
    assert done.stderr == "0\n", "Ray sends no statistics"


def test_the_head_runs_no_tasks_and_listens_on_the_known_port(told: dict[str, str]) -> None:
    words = entered(told, "head").stdout.split()
    assert words[:4] == ["ray", "start", "--head", "--block"]
    assert words[words.index("--num-cpus") + 1] == "0"
    assert words[words.index("--port") + 1] == "6379"


def test_what_follows_a_mode_is_rays_and_comes_last(told: dict[str, str], head: str) -> None:
    assert entered(told, "head", "--num-cpus", "4").stdout.split()[-2:] == ["--num-cpus", "4"]
    words = entered(told | {"RS5M_RAY_HEAD": head}, "worker", "--resources", '{"ssd":1}').stdout.split()
    assert words[:5] == ["ray", "start", "--block", "--address", head]
    assert words[-2:] == ["--resources", '{"ssd":1}']


def test_folders_and_sizes_are_the_environments(told: dict[str, str]) -> None:
    mine = {"RS5M_RAY_TMP": "/t", "RS5M_RAY_SPILL": "/mnt/big disk", "RS5M_OBJECT_STORE_BYTES": "1234567890"}
    line = entered(told | mine, "head").stdout
    assert "--temp-dir /t " in line
    assert "--object-spilling-directory /mnt/big disk" in line
    assert "--object-store-memory 1234567890" in line


def test_a_run_joins_the_cluster_as_a_node_without_cpus(told: dict[str, str], head: str) -> None:
    done = entered(told | {"RS5M_RAY_HEAD": head}, "run", "--ray-address", head)
    assert done.stdout == f"rs5m-build run --ray-address {head}\n", "stdout is the program's alone"
    assert f"ray start --address {head} --num-cpus 0 --num-gpus 0" in done.stderr


def test_a_command_that_only_reads_joins_nothing(told: dict[str, str], head: str) -> None:
    assert "ray start" not in entered(told | {"RS5M_RAY_HEAD": head}, "report").stderr


def test_a_worker_without_a_head_says_so(told: dict[str, str]) -> None:
    unnamed = entered(told, "worker")
    assert unnamed.returncode != 0
    assert "RS5M_RAY_HEAD" in unnamed.stderr
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    silent = entered(told | {"RS5M_RAY_HEAD": f"127.0.0.1:{closed}", "RS5M_RAY_WAIT_S": "1"}, "worker")
    assert silent.returncode == 2
    assert f"no Ray head answers at 127.0.0.1:{closed}" in silent.stderr


@pytest.mark.parametrize("code", [0, 3, 143])
def test_the_exit_code_is_the_commands(programs: Programs, namespaces: tuple[str, ...], code: int) -> None:
    environment = programs("rs5m-build", f"#!/bin/sh\nexit {code}\n")
    for before in ((), namespaces):
        done = subprocess.run([*before, ENTRYPOINT, "run"], env=environment, check=False, timeout=20)
        assert done.returncode == code, before


@contextmanager
def started(
    workdir: Workdir, environment: dict[str, str], before: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Start a real run through the entrypoint; the block begins when it asks the web."""
    words = workdir.command(*SLOW)
    arguments = words[words.index("run") :]
    with subprocess.Popen(
        [*before, ENTRYPOINT, *arguments],
        env=environment, cwd=workdir.path.parent, text=True, stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            wait_for(
                lambda: any(workdir.path.glob("runs/*/live/download.fetch/web-*.json")) or process.poll() is not None
            )
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def first_inside(process: subprocess.Popen[str]) -> int:
    """Return the id, as seen from here, of the process that is pid 1 in the namespace."""
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


def test_a_signal_drains_the_run_and_it_resumes(fresh: Workdir, reference: Snapshot, installed: dict[str, str]) -> None:
    with started(fresh, installed) as process:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert "stopped before the end" in said
    assert not list((fresh.path / "locks").glob("*.json"))
    assert fresh.run().exit_code == 0
    assert fresh.snapshot() == reference


def test_as_pid_1_it_hands_the_signal_on_and_waits(
    fresh: Workdir, installed: dict[str, str], namespaces: tuple[str, ...]
) -> None:
    with started(fresh, installed, namespaces) as process:
        os.kill(first_inside(process), signal.SIGUSR1)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert "stopped before the end" in said
    assert not list((fresh.path / "locks").glob("*.json"))


def test_a_signal_before_the_command_listens_ends_it_as_pid_1(
    programs: Programs, namespaces: tuple[str, ...], tmp_path: Path
) -> None:
    environment = programs("rs5m-build", f"#!/bin/sh\ntouch {tmp_path}/up\nexec sleep 60\n")
    with subprocess.Popen([*namespaces, ENTRYPOINT, "run"], env=environment, start_new_session=True) as process:
        wait_for((tmp_path / "up").exists)
        os.kill(first_inside(process), signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM


ORPHANS = """#!/bin/bash
for i in 1 2 3 4 5; do (sleep 0.1 & ); done
sleep 1
cat /proc/[0-9]*/stat 2>/dev/null | cut -d" " -f3 | grep -c Z
exit 0
"""


def test_as_pid_1_it_buries_the_orphans_of_others(programs: Programs, namespaces: tuple[str, ...]) -> None:
    environment = programs("rs5m-build", ORPHANS)
    done = subprocess.run(
        [*namespaces, ENTRYPOINT, "run"], env=environment, capture_output=True, text=True, check=False, timeout=20
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), "no zombie is left"


DRAINS = """#!/bin/bash
trap 'sleep 1; echo drained; exit 143' TERM
touch "$0.up"
while true; do sleep 0.1; done
"""


def test_drain_stops_a_run_of_the_container_and_waits_for_it(
    programs: Programs, namespaces: tuple[str, ...], tmp_path: Path
) -> None:
    """As where the container's pid 1 is not the entrypoint: KubeRay starts pods with a shell of its own."""
    environment = programs("rs5m-build", DRAINS)
    script = (
        "rs5m-build run --recipe nano & run=$!\n"
        f"until [ -e '{tmp_path}/bin/rs5m-build.up' ]; do sleep 0.05; done\n"
        f"'{ENTRYPOINT}' drain\n"
        "echo over\n"
        "wait $run\n"
    )
    done = subprocess.run(
        [*namespaces, "bash", "-c", script],
        env=environment, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (143, "drained\nover\n")
    nothing = subprocess.run([*namespaces, ENTRYPOINT, "drain"], env=environment, check=False, timeout=20)
    assert nothing.returncode == 0, "where nothing runs there is nothing to wait for"

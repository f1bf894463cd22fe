"""Head, worker and build by the entrypoint of the images: each pid 1 with its own address, as containers are."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.world_building import Snapshot, Workdir, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
ENTRYPOINT = ROOT / "docker" / "entrypoint.sh"
HOSTS = ("head", "worker", "build")
_NETWORK = "198.18.77"  # of the range that is kept for tests of networks


@dataclass(frozen=True)
class Host:
    """A network namespace with an address, and what is started in it."""

    name: str
    address: str
    folder: Path
    short: Path
    environment: dict[str, str]

    @contextmanager
    def entered(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Start the entrypoint as pid 1 of a pid namespace; the block's end kills it."""
        command = ["ip", "netns", "exec", self.name, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
        with (self.folder / "log").open("w") as log, subprocess.Popen(
            [*command, ENTRYPOINT, *arguments],
            env=self.environment, cwd=self.folder, stdout=log, stderr=log, text=True, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    def said(self) -> str:
        return (self.folder / "log").read_text()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[dict[str, Host]]:
    if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("network namespaces need root, ip (iproute2) and unshare")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, module in (("ray", "ray.scripts.scripts"), ("rs5m-build", "pipeline.cli")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    tag = secrets.token_hex(3)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    kept |= {
        "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "RS5M_OBJECT_STORE_BYTES": str(128 << 20),
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16),
    }  # fmt: skip
    with ExitStack() as stack:
        bridge = f"rs{tag}"
        try:
            _ip("link", "add", bridge, "type", "bridge")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no bridge can be made: {error.stderr.decode().strip()}")
        stack.callback(_ip, "link", "del", bridge)
        _ip("link", "set", bridge, "up")
        made = {}
        for number, name in enumerate(HOSTS, 2):
            namespace, address = f"{bridge}-{name}", f"{_NETWORK}.{number}"
            _ip("netns", "add", namespace)
            stack.callback(_ip, "netns", "del", namespace)
            _ip("link", "add", f"{bridge}{number}", "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("link", "set", f"{bridge}{number}", "master", bridge, "up")
            _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", namespace, "link", "set", "eth0", "up")
            _ip("-n", namespace, "link", "set", "lo", "up")
            # Ray finds its own address by asking for the way out.
            _ip("-n", namespace, "route", "add", "default", "dev", "eth0")
            folder, short = tmp_path / name, Path(f"/tmp/rs5m-{tag}-{number}")  # sockets: at most 107 bytes
            folder.mkdir()
            stack.callback(shutil.rmtree, short, ignore_errors=True)
            theirs = {"RS5M_RAY_TMP": str(short), "RS5M_RAY_HEAD": f"{_NETWORK}.2:6379"}
            made[name] = Host(namespace, address, folder, short, {**kept, **theirs})
        yield made


def test_three_containers_build_what_one_process_builds(
    hosts: dict[str, Host], fresh: Workdir, reference: Snapshot
) -> None:
    words = fresh.command("--executor", "ray", "--set", f'world.bind="{hosts["build"].address}"')
    run = words[words.index("run") :]
    with ExitStack() as stack:
        head = stack.enter_context(hosts["head"].entered("head"))
        worker = stack.enter_context(hosts["worker"].entered("worker", "--num-cpus", "2"))
        build = stack.enter_context(hosts["build"].entered(*run, "--ray-address", f"{_NETWORK}.2:6379"))
        assert build.wait(300) == 0, "\n".join(host.said() for host in hosts.values())
        assert fresh.snapshot() == reference
        for process in (worker, head):  # each ends by itself when pid 1 is told to stop
            (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(child), signal.SIGTERM)
            wait_for(lambda ended=process: ended.poll() is not None, 60)
    assert "done: " in hosts["build"].said()
    assert "finished draining" in hosts["worker"].said(), hosts["worker"].said()

"""A Ray cluster of several nodes on this machine, each with a loopback address of its own; nodes can be killed.

Run as a program it holds the cluster: it prints what it starts, one line of JSON each, and ends everything when its
input ends. So what a test started is gone when the test is, however that ends.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

_STORE_BYTES = 80 << 20


@dataclass(frozen=True)
class RayNode:
    """A node: its id in the cluster, its address, and the pids of its own processes (workers are their children)."""

    key: str
    address: str
    pids: list[int]

    def processes(self) -> list[int]:
        """Return all of its processes, workers included."""
        return [*self.pids, *(child for pid in self.pids for child in children(pid))]

    def is_busy(self) -> bool:
        """Whether one of its workers runs a task: Ray writes that into the process's name."""
        return any(b"ray::_" in line for line in map(command_of, self.processes()))

    def kill(self) -> None:
        """Kill all of it at once, as a power cut would."""
        for pid in self.processes():
            _kill(pid)


class RayNodes:
    """A cluster; used as a context manager."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="rn-", dir="/tmp")  # sockets below it: their paths must be short
        self.started: list[RayNode] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.ray_nodes"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "RAY_TMPDIR": self._folder, "RAY_USAGE_STATS_ENABLED": "0"},
        )  # fmt: skip
        self.head = self.add()
        return self

    def __exit__(self, *_: object) -> None:
        everything = [pid for node in self.started for pid in node.processes()]
        self._process.communicate("")
        for pid in everything:
            _kill(pid)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def address(self) -> str:
        """Of the head, HOST:PORT."""
        return self._address

    def add(self, *, num_cpus: int = 0, num_gpus: int = 0, path: str = "", **resources: float) -> RayNode:
        """Start a node, with a PYTHONPATH of its own if given; the first is the head."""
        asked = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": resources, "path": path}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        self._address = told.pop("head")
        self.started.append(RayNode(**told))
        return self.started[-1]


def children(pid: int) -> list[int]:
    """Return all descendants of a process."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        mine = parents.get(queue.pop(), [])
        found += mine
        queue += mine
    return found


def command_of(pid: int) -> bytes:
    """Return the command line of a process, in which Ray writes what it does; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _hold() -> None:
    """Start a node for every line read, until there are no more."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for number, line in enumerate(iter(sys.stdin.readline, ""), 1):
            asked: dict[str, Any] = json.loads(line)
            os.environ["PYTHONPATH"] = asked.pop("path")
            address = f"127.0.0.{number + 1}"
            node = cluster.add_node(
                node_ip_address=address, object_store_memory=_STORE_BYTES, include_dashboard=False, **asked
            )
            pids = [info.process.pid for infos in node.all_processes.values() for info in infos]
            told = {"key": node.node_id, "address": address, "pids": pids, "head": cluster.address}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
    finally:
        for node in [*cluster.worker_nodes, cluster.head_node]:
            node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)


if __name__ == "__main__":
    _hold()

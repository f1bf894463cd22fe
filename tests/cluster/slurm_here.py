"""A Slurm of this machine's own, for as long as a block runs: munged, slurmctld and two slurmds, on loopback alone.

Two nodes of one CPU each are two daemons on one machine, told apart by port. Everything they write lies in one folder.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel")
NODES = ("here1", "here2")
_SBIN = "/usr/sbin"
_CONF = """\
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits for its credential to expire: 120 s by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,batch_sched_delay=1,sched_min_interval=100000
ReturnToService=2
InactiveLimit=0
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
KillWait=5
OverTimeLimit=0
MinJobAge=3600
PlugStackConfig={folder}/plugstack.conf
{nodes}
PartitionName=all Nodes=here1,here2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Return what a Slurm of one's own lacks here, in words; empty if nothing."""
    absent = [tool for tool in TOOLS if not shutil.which(tool, path=f"{os.environ['PATH']}:{_SBIN}")]
    return f"not installed: {', '.join(absent)} (Debian: slurm-wlm, munge)" if absent else ""


@dataclass(frozen=True)
class Slurm:
    """A Slurm that runs.

    Attributes:
        folder: All that it keeps.
        environment: What its commands are started with.
    """

    folder: Path
    environment: dict[str, str]

    def call(self, *command: str, cwd: Path | None = None, timeout_s: float = 60) -> str:
        """Run a command and return what it prints."""
        done = subprocess.run(
            command, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def jobs(self) -> dict[str, tuple[str, str, int]]:
        """Return (name, state, restarts) of every job and array task by its id, ended ones included."""
        lines = self.call("squeue", "--all", "--array", "--states=all", "--noheader", "--Format=" + ",".join(
            f"{field}:64" for field in ("JobArrayID", "Name", "State", "RestartCnt")
        ))  # fmt: skip
        return {row[0]: (row[1], row[2], int(row[3])) for row in map(str.split, lines.splitlines())}

    def wait(self, timeout_s: float) -> dict[str, tuple[str, str, int]]:
        """Wait until no job is pending, running or ending; return how they ended."""
        deadline = time.monotonic() + timeout_s
        while True:
            jobs = self.jobs()
            if not [state for _, state, _ in jobs.values() if state in ("PENDING", "RUNNING", "COMPLETING")]:
                return jobs
            assert time.monotonic() < deadline, jobs
            time.sleep(0.5)


@contextmanager
def slurm_here(folder: Path) -> Iterator[Slurm]:
    """Start a Slurm that keeps its files in ``folder`` (a short path: it holds sockets); end what was started."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state").mkdir()
    user = pwd.getpwuid(os.getuid()).pw_name
    port, *node_ports = _free_ports(1 + len(NODES))
    (folder / "plugstack.conf").touch()
    nodes = [
        f"NodeName={node} NodeAddr=127.0.0.1 NodeHostname={socket.gethostname()} Port={node_port} CPUs=1 "
        "RealMemory=8000 State=UNKNOWN"
        for node, node_port in zip(NODES, node_ports, strict=True)
    ]
    conf = folder / "slurm.conf"
    host = socket.gethostname()
    conf.write_text(_CONF.format(folder=folder, user=user, port=port, host=host, nodes="\n".join(nodes)))
    environment = {**os.environ, "SLURM_CONF": str(conf), "PATH": f"{os.environ['PATH']}:{_SBIN}"}
    with ExitStack() as stack:
        _start(stack, ["munged", *_munge_options(folder)], folder / "munged.out", environment)
        _until(lambda: (folder / "munge.socket").exists(), "munged made no socket")
        _start(stack, ["slurmctld", "-D", "-i", "-f", str(conf)], folder / "slurmctld.out", environment)
        for node in NODES:
            _start(stack, ["slurmd", "-D", "-N", node, "-f", str(conf)], folder / f"{node}.out", environment)
        slurm = Slurm(folder, environment)
        stack.callback(_end_jobs, slurm)
        _until(lambda: _idle(slurm) == len(NODES), f"the nodes did not come up; logs are in {folder}")
        yield slurm


def _munge_options(folder: Path) -> Sequence[str]:
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    files = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munged.pid"}
    files |= {"log-file": folder / "munged.log", "seed-file": folder / "munged.seed"}
    return ["--foreground", "--force", *(f"--{name}={path}" for name, path in files.items())]


def _start(stack: ExitStack, command: list[str], log: Path, environment: dict[str, str]) -> None:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)
    stack.callback(_end, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_jobs(slurm: Slurm) -> None:
    """Cancel what still runs, so that no job outlives the daemons."""
    environment = slurm.environment
    subprocess.run(["scancel", "--user", str(os.getuid())], env=environment, timeout=60, check=False)
    deadline = time.monotonic() + 30
    while subprocess.run(["squeue", "-h"], env=environment, capture_output=True, timeout=60, check=False).stdout:
        if time.monotonic() > deadline:
            return
        time.sleep(0.5)


def _idle(slurm: Slurm) -> int:
    done = subprocess.run(
        ["sinfo", "-h", "-N", "-o", "%T"], env=slurm.environment, capture_output=True, text=True, check=False
    )
    return done.stdout.split().count("idle")


def _until(condition, what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    doors = [socket.socket() for _ in range(count)]
    for door in doors:
        door.bind(("127.0.0.1", 0))
    ports = [int(door.getsockname()[1]) for door in doors]
    for door in doors:
        door.close()
    return ports

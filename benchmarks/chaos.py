"""Kills a build at random moments until it is done, and compares its release with that of an undisturbed build.

`make chaos` kills the mini build 25 times, half of the builds on Ray and half on local processes; a quick try is
`python benchmarks/chaos.py --recipe nano --kills 5`. The moments are drawn from a seed, in seconds after a start, so
that kills fall into any place: starting, planning, working, committing, sweeping the release.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

EXECUTORS = ("ray", "local")
_TIMEOUT_S = 1800
_WORKERS = 2
_KILLS_PER_BUILD = 5


@dataclass
class Build:
    """One build that is killed again and again.

    Attributes:
        kills: Seconds after the start, and partitions committed by then, of every kill.
        seconds: Of the last run, which ended by itself.
        equal: Whether release and ledgers are those of the undisturbed build.
    """

    executor: str
    kills: list[tuple[float, int]] = field(default_factory=list)
    seconds: float = 0.0
    code: int | None = None
    equal: bool = False


def command(recipe: str, workdir: Path, executor: str, settings: list[str]) -> list[str]:
    overrides = [part for setting in ("run.lock_beat_s=0.2", *settings) for part in ("--set", setting)]
    place = ["--recipe", recipe, "--workdir", str(workdir), "--executor", executor, "--workers", str(_WORKERS)]
    return [sys.executable, "-m", "pipeline.cli", "run", *place, *overrides]


def start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(arguments, stdout=out, stderr=out, start_new_session=True)


def run_to_end(arguments: list[str], log: Path) -> tuple[int, float]:
    begun = time.monotonic()
    with start(arguments, log) as process:
        code = process.wait(_TIMEOUT_S)
    return code, time.monotonic() - begun


def committed(workdir: Path) -> int:
    return sum(1 for _ in (workdir / "commits").glob("*/*.json"))


def kill_once(arguments: list[str], workdir: Path, delay_s: float, log: Path) -> tuple[float, int] | None:
    """Start a run and kill its process group after a delay; None if it ended first."""
    with start(arguments, log) as process:
        try:
            process.wait(delay_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return delay_s, committed(workdir)
    return None


def digest(workdir: Path) -> dict[str, str]:
    """Digest every released file, and every ledger row of the commits the release stands on."""
    found = {
        str(path.relative_to(workdir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((workdir / "release").rglob("*"))
        if path.is_file()
    }
    for folder in sorted((workdir / "commits").iterdir()):
        newest: dict[str, Path] = {}
        # The last one of a partition stands. Fingerprints are not compared: that of shard.plan says where bodies lie.
        for path in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
            newest[path.name.rpartition("@")[0]] = path
        for name, path in newest.items():
            found[f"ledger {folder.name} {name}"] = json.loads(path.read_bytes())["ledger"]["sha256"]
    return found


def prepared(base: Path, workdir: Path) -> Path:
    """Lay out a workdir that has the world and nothing else."""
    shutil.copytree(base / "world", workdir / "world", copy_function=os.link)
    return workdir


def tortured(
    recipe: str, base: Path, folder: Path, executor: str, kills: int, usual_s: float, draw: random.Random,
    settings: list[str], log: Path,
) -> Build:  # fmt: skip
    """Kill a build ``kills`` times, in the part of its life that is still ahead, then let it end."""
    workdir, build = prepared(base, folder), Build(executor)
    arguments = command(recipe, workdir, executor, settings)
    for _ in range(kills):
        killed = kill_once(arguments, workdir, draw.uniform(0.3, 1.0) * usual_s, log)
        if killed is None:
            break
        build.kills.append(killed)
    build.code, build.seconds = run_to_end(arguments, log)
    build.equal = build.code == 0 and digest(workdir) == digest(base)
    return build


def table(builds: list[Build]) -> str:
    lines = [
        "build  executor  kills  killed after s (partitions committed)                       last run s  same bytes"
    ]
    for number, build in enumerate(builds, 1):
        moments = " ".join(f"{delay_s:.1f} ({count})" for delay_s, count in build.kills)
        same = "yes" if build.equal else f"NO (exit {build.code})"
        lines.append(
            f"{number:5}  {build.executor:8}  {len(build.kills):5}  {moments:58}  {build.seconds:10.1f}  {same}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="mini")
    parser.add_argument("--kills", type=int, default=25, help="in all, over as many builds as that takes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--executor", choices=EXECUTORS, help="only this one; else they take turns")
    parser.add_argument("--set", action="append", default=[], help="a setting, as in rs5m-build run")
    parser.add_argument("--keep", action="store_true", help="keep the workdirs")
    asked = parser.parse_args()
    draw, builds = random.Random(asked.seed), list[Build]()
    top = Path(tempfile.mkdtemp(prefix="rs5m-chaos-"))
    base, log = top / "undisturbed", top / "log.txt"
    print(f"undisturbed build of {asked.recipe} in {base}", flush=True)
    code, _ = run_to_end(command(asked.recipe, base, "local", asked.set), log)
    if code != 0:
        print(log.read_text(), f"the undisturbed build ended with exit code {code}", sep="\n")
        return 1
    usual_s = {}
    for executor in EXECUTORS:
        code, usual_s[executor] = run_to_end(
            command(asked.recipe, prepared(base, top / executor), executor, asked.set), log
        )
        same = digest(top / executor) == digest(base)
        print(f"undisturbed on {executor}: {usual_s[executor]:.1f} s, exit {code}, same bytes: {same}", flush=True)
    done = 0
    while done < asked.kills and len(builds) < asked.kills + 2:
        executor = asked.executor or EXECUTORS[len(builds) % len(EXECUTORS)]
        wanted, place = min(_KILLS_PER_BUILD, asked.kills - done), top / f"build-{len(builds) + 1}"
        builds.append(tortured(asked.recipe, base, place, executor, wanted, usual_s[executor], draw, asked.set, log))
        done += len(builds[-1].kills)
        print(table(builds).splitlines()[-1], flush=True)
    print(table(builds))
    wrong = sum(not build.equal for build in builds)
    print(f"{done} kills over {len(builds)} builds, {wrong} with other bytes than the undisturbed build")
    if wrong or asked.keep:
        print(f"workdirs and log are kept in {top}")
    else:
        shutil.rmtree(top)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""Speed of the download beside what bounds it and beside img2dataset, on a web of images on loopback, in one run.

    python benchmarks/download.py [--only floor|img2dataset|hosts] [--rounds N] [--images N] [--bytes 52000]

floor: the step download.fetch with every check, its tables and its tar, beside an aiohttp loop that reads bodies and
throws them away, both in fresh processes, in turn, at 0 and 20 ms of latency. "whole" is the task as a worker does it:
input read from the store, outputs put there and synced to disk. wrk's rate stands beside.

img2dataset: `rs5m-build run` on two local processes beside img2dataset 1.47.0 on two processes, 64 connections in each,
20 ms. "call" counts from the call to its end, planning, start of processes and commits included; of ours also the start
of Python. "active" is what both say themselves: from the start of the first part to the end of the last. Ours is raw
bytes against disable_all_reencoding, and download and dedup.inspect (whole decode, hashes of all rotations and flips,
thumbnail; with dedup.hash fast and exact) against resize_mode=no, which decodes and encodes.

hosts: 1,000 hosts with 10 images each, of which 30% time out (half never answer, half never connect), 10% refuse and 5%
send a byte a second: the healthy ones among them beside the healthy ones alone. connect_s 2, read_s 3 and total_s 6
instead of 5, 10 and 30, to keep it short.

Images have distinct bytes. What falls short is said; the exit code is 1 only for results that are wrong.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from image_server import Served, Site, body_of, jpegs, load, serving
from listed_web import command, even_hosts, must, write_list, write_recipe

ROOT = Path(__file__).resolve().parents[1]
POOL = 3000
HOSTS = 64
LATENCY_S = 0.020
FLOOR_WANTED = {64: 0.90, 256: 0.80}
RAW_WANTED, INSPECT_WANTED, HOSTS_WANTED = 4.0, 2.0, 0.8
PEER = "img2dataset==1.47.0"
FAST = ("--until", "dedup.inspect", "--set", "dedup.hash=fast")
EXACT = ("--until", "dedup.inspect", "--set", "dedup.hash=exact")
THROUGH: tuple[tuple[str, bool, dict[str, tuple[str, ...]]], ...] = (
    ("raw bytes", True, {"raw bytes": ("--until", "download")}),
    ("with decode", False, {"with decode, fast hash": FAST, "with decode, exact hash": EXACT}),
)
"""What the peer does, whether it keeps raw bytes, and what we do of the same, by the arguments of `run`."""
ENDS_S = 1200
CLIENTS = Path(__file__).with_name("download_clients.py")
_wrong: list[str] = []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(SECTIONS), action="append")
    parser.add_argument("--rounds", type=int, help="default: 5, and 3 of the long ones")
    parser.add_argument("--images", type=int, help="default: 10,000, and 12,000 for img2dataset")
    parser.add_argument("--bytes", type=int, default=52_000, help="mean size of an image, about")
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--peer-python", help=f"of an environment with {PEER}; default: one is made below build/")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rs5m-bench-") as name:
        for section in asked.only or SECTIONS:
            SECTIONS[section](asked, Path(name))
    for line in _wrong:
        print(f"WRONG: {line}")
    return bool(_wrong)


# -- what all sections use ---------------------------------------------------------------------------------------


def pool_of(asked: argparse.Namespace, images: int) -> Path:
    begun = time.monotonic()
    folder = jpegs(min(images, POOL), asked.bytes)
    sizes = [len(body) for body in load(folder, min(images, POOL))]
    made = f", made in {time.monotonic() - begun:.0f} s" if time.monotonic() - begun > 5 else ""
    print(f"\n{len(sizes):,} JPEGs of mean {statistics.mean(sizes) / 1000:.1f} kB in {folder}{made}")
    return folder


def client(name: str, python: str = sys.executable, **asked: Any) -> dict[str, Any]:
    called = [python, str(CLIENTS), name, json.dumps(asked)]
    try:
        done = subprocess.run(called, capture_output=True, text=True, check=False, cwd=ROOT, timeout=ENDS_S)
    except subprocess.TimeoutExpired:
        print(f"WRONG: {name} did not end by itself within {ENDS_S} s")
        sys.exit(1)
    if done.returncode:
        sys.exit(f"{name} ended with {done.returncode}: {done.stderr.strip()[-1500:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def check(right: bool, words: str) -> None:
    if not right:
        _wrong.append(words)


def three(values: Sequence[float], digits: int = 0) -> str:
    return " / ".join(f"{value:,.{digits}f}" for value in (min(values), statistics.median(values), max(values)))


def verdict(words: str, ratios: Sequence[float], wanted: float) -> None:
    """Print the median of the rounds' ratios, each of neighbours in time, and whether it is what is wanted."""
    middle = statistics.median(ratios)
    said = "pass" if middle >= wanted else "FALLS SHORT"
    print(f"  {words}: {middle:.2f} ({three(ratios, 2)}), {wanted} wanted: {said}", flush=True)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(ours, theirs, strict=True)]


# -- floor -------------------------------------------------------------------------------------------------------


def floor(asked: argparse.Namespace, top: Path) -> None:
    images, rounds = asked.images or 10_000, asked.rounds or 5
    folder = pool_of(asked, images)
    pool = load(folder, POOL)
    expected = sum(len(body_of(pool, number)) for number in range(images))
    for latency_s in (0.0, LATENCY_S):
        with serving(Site(str(folder), latency_s)) as served:
            print(f"\nfloor: {images:,} images, {latency_s * 1000:.0f} ms, server on {served.loop}, {rounds} rounds")
            for connections in FLOOR_WANTED:
                against_floor(served, connections, images, rounds, expected, top, judged=bool(latency_s))


def against_floor(
    served: Served, connections: int, images: int, rounds: int, expected: int, top: Path, *, judged: bool
) -> None:
    bare, step = [], []
    for _ in range(rounds):
        bare.append(client("bare", web=served.web, images=images, connections=connections))
        place = top / "step"
        step.append(
            client("step", web=served.web, images=images, connections=connections, hosts=HOSTS, folder=str(place))
        )
        shutil.rmtree(place)
    for name, runs in (("bare aiohttp", bare), ("download.fetch", step)):
        got = [run["bytes"] for run in runs]
        check(set(got) == {expected}, f"{name} at {connections} connections got {got} bytes, not {expected}")
    check(all(not run["left"] for run in step), f"download.fetch lost rows: {step[0]['left']}")
    print(f"  {connections} connections; wrk: {wrk(served, connections)}")
    whole = [run["whole"] for run in step]
    for name, runs in (("bare aiohttp", bare), ("download.fetch", step), ("  whole task", whole)):
        rates, cpu_us = [images / run["s"] for run in runs], [run["cpu_s"] / images * 1e6 for run in runs]
        print(f"  {name:16}{three(rates):>26} images/s{statistics.median(cpu_us):>7.0f} us of CPU each")
    print(f"  peak memory of download.fetch: {max(run['peak_mib'] for run in step):.0f} MiB")
    for name, runs in (("download.fetch", step), ("whole task", whole)):
        ratios = paired([1 / run["s"] for run in runs], [1 / run["s"] for run in bare])
        if judged:
            verdict(f"{name} / bare, {connections} connections", ratios, FLOOR_WANTED[connections])
        else:
            print(f"  {name} / bare, {connections} connections: {statistics.median(ratios):.2f}", flush=True)


def wrk(served: Served, connections: int) -> str:
    if not shutil.which("wrk"):
        return "not installed"
    arguments = ["wrk", "-t1", f"-c{connections}", "-d3s", f"http://{served.web}/ok/1.jpg"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    found = re.search(r"Requests/sec:\s*([\d.]+)", done.stdout)
    return f"{float(found[1]):,.0f} requests/s" if found else f"failed: {done.stderr.strip()[-200:]}"


# -- img2dataset -------------------------------------------------------------------------------------------------


def img2dataset(asked: argparse.Namespace, top: Path) -> None:
    python = peer_python(asked.peer_python)
    images, rounds = asked.images or 12_000, asked.rounds or 3
    if python is None:
        return
    folder = pool_of(asked, images)
    with serving(Site(str(folder), LATENCY_S)) as served:
        print(f"\nimg2dataset: {images:,} images, 20 ms, 2 processes of 64 connections, {rounds} rounds")
        prepared = prepare(top / "prepared", images, served)
        runs: dict[str, list[dict[str, Any]]] = {}
        for _ in range(rounds):
            for name, raw, ours in THROUGH:
                for words, asked_too in ours.items():
                    runs.setdefault(f"ours, {words}", []).append(build(prepared, top / "ours", images, *asked_too))
                place = top / "theirs"
                found = client("img2dataset", python, web=served.web, images=images, folder=str(place), raw=raw)
                shutil.rmtree(place)
                check(found["images"] == images, f"img2dataset got {found['images']} of {images} images")
                runs.setdefault(f"img2dataset, {name}", []).append(found)
    for name, done in runs.items():
        whole, active = ([images / run[key] for run in done] for key in ("s", "active_s"))
        print(f"  {name:30}call{three(whole):>24}   active{three(active):>24} images/s")
    for name, raw, ours in THROUGH:
        for words in ours:
            for part, key in (("active", "active_s"), ("call", "s")):
                mine, theirs = (
                    [1 / run[key] for run in runs[who]] for who in (f"ours, {words}", f"img2dataset, {name}")
                )
                wanted = RAW_WANTED if raw else INSPECT_WANTED
                verdict(f"{words}, {part}: ours / img2dataset", paired(mine, theirs), wanted)


def peer_python(given: str | None) -> str | None:
    """Return a Python that has the peer; make its environment if need be. None, said, if that fails."""
    if given:
        return given
    folder = ROOT / "build" / "bench-img2dataset"
    python = folder / "bin" / "python"
    has_it = [str(python), "-c", "import img2dataset"]
    if python.exists() and not subprocess.run(has_it, capture_output=True, check=False).returncode:
        return str(python)
    print(f"\nmaking an environment for {PEER} in {folder}", flush=True)
    for arguments in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PEER],
        has_it,
    ):
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            print(f"img2dataset: SKIPPED, {PEER} cannot be had ({last}); name another with --peer-python")
            return None
    return str(python)


def prepare(workdir: Path, images: int, served: Served) -> Path:
    """Lay out a workdir whose filter is done, so that only the download is left to measure."""
    hosts = even_hosts(2 * HOSTS, 2)
    write_list(workdir, [f"http://{hosts[number % len(hosts)]}/ok/{number}.jpg" for number in range(images)])
    network: dict[str, object] = {"connections": 64, "per_host": 4}
    write_recipe(
        workdir / "listed.toml", buckets=2, resolve={".bench.test": served.web}, network=network,
        run={"executor": "local", "workers": 2},
    )  # fmt: skip
    must(command("run", workdir / "listed.toml", workdir, "--stage", "filter"))
    return workdir


def build(prepared: Path, workdir: Path, images: int, *arguments: str) -> dict[str, Any]:
    shutil.copytree(prepared, workdir)
    begun = time.perf_counter()
    must(command("run", workdir / "listed.toml", workdir, *arguments))
    seconds = time.perf_counter() - begun
    steps = ("download.fetch", "dedup.inspect") if "dedup.inspect" in arguments else ("download.fetch",)
    newest = max(workdir.glob("runs/*/events.jsonl"), key=lambda path: path.stat().st_mtime)
    done = [e for e in map(json.loads, newest.read_text().splitlines()) if e["event"] == "partition_done"]
    active_s = 0.0
    for step in steps:
        ends = [(datetime.fromisoformat(e["t"]).timestamp(), e["seconds"]) for e in done if e["step"] == step]
        active_s += max(end for end, _ in ends) - min(end - took for end, took in ends)
        kept = sum(row["kept"] for e in done if e["step"] == step for row in e["rows"].values())
        check(kept == images, f"{step} kept {kept} of {images} images")
    shutil.rmtree(workdir)
    return {"s": seconds, "active_s": active_s}


# -- hosts -------------------------------------------------------------------------------------------------------


def hosts(asked: argparse.Namespace, _top: Path) -> None:
    rounds = asked.rounds or 3
    folder = pool_of(asked, asked.images or 3000)
    runs: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    with serving(Site(str(folder), LATENCY_S)) as served:
        print(f"\nhosts: {asked.hosts:,} with 10 images each, 64 connections, 4 a host, 20 ms, {rounds} rounds")
        places = {name: getattr(served, name) for name in ("web", "mute", "hang", "shut")}
        for _ in range(rounds):
            for alone, found in runs.items():
                found.append(client("hosts", hosts=asked.hosts, per_host=10, connections=64, alone=alone, **places))
    for alone, words in ((True, "healthy alone"), (False, "healthy among the ill")):
        rates = [run["healthy"] / run["last_s"] for run in runs[alone]]
        ends, peak = [run["s"] for run in runs[alone]], max(run["peak_mib"] for run in runs[alone])
        print(f"  {words:22}{three(rates):>24} images/s; ended after {three(ends, 1)} s; peak {peak:.0f} MiB")
        for run in runs[alone]:
            check(not run["wrong"], f"hosts: {run['wrong']}")
    print("  answers: " + ", ".join(f"{count:,} {name}" for name, count in runs[False][-1]["counts"].items()))
    speeds = {alone: [run["healthy"] / run["last_s"] for run in found] for alone, found in runs.items()}
    verdict("healthy among the ill / alone", paired(speeds[False], speeds[True]), HOSTS_WANTED)


SECTIONS: dict[str, Callable[[argparse.Namespace, Path], None]] = {
    "floor": floor,
    "img2dataset": img2dataset,
    "hosts": hosts,
}


if __name__ == "__main__":
    sys.exit(main())

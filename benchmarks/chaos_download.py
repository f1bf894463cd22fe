"""Kills a download at random moments until it is done, and compares what it holds with an undisturbed one.

    python benchmarks/chaos_download.py [--urls 5000] [--kills 20] [--executor ray|local] [--seed 1] [--keep]

5,000 urls on 300 hosts, all answered by a server of ours on loopback that always answers alike: images, 404, 500 the
first time, 503, slow answers, connections reset, half a body, pages, opt-outs by header and by robots.txt; some urls
are listed twice. Then, in turn on local processes and on Ray, `rs5m-build run --stage download` is killed (SIGKILL, the
whole process group) up to 5 times a build, at moments drawn from a seed, counted from a run's first request, and run
again until it ends by itself. After that must hold: rows of `fetched` and of the ledger, by partition, are those of the
undisturbed build, every column but where the bytes lie; the bytes there are those the server sends; every tar that any
commit names opens whole, with the recorded digest; what no commit names is named by `rs5m-build gc --dry-run`, and
nothing else is; and after gc all bytes can still be read. Nothing that robots.txt forbids was ever asked for.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from chaos import start
from image_server import Served, Site, body_of, jpegs, load, serving
from listed_web import command, even_hosts, must, write_list, write_recipe

from manifests.commits import CommitStore
from manifests.manifest import Manifest
from manifests.schemas import LEDGER, TABLES
from manifests.store import Store
from manifests.tables import read_table
from stages.images import Place, read_images
from stages.step import CorruptFileError

STEP = "download.fetch"
EXECUTORS = ("local", "ray")
ODD = ("gone", "once", "slow", "reset", "short", "busy", "noai", "text", "private")
ODD_EVERY = 34
"""Of so many urls one is of each odd kind. Of one host's at most one is reset: more in a row would trip its breaker."""
POOL, BUCKETS = 200, 16
MEAN_BYTES = 12_000
_TIMEOUT_S = 600
_KILLS_PER_BUILD = 5


@dataclass(frozen=True)
class Case:
    """What all builds have in common."""

    top: Path
    filtered: Path
    urls: list[str]
    jpegs: Path
    log: Path


@dataclass
class Build:
    """One build that is killed again and again.

    Attributes:
        kills: Seconds after a run's first request, and partitions committed by then, of every kill.
        requests: How many requests all its runs made.
        faults: What is not as in the undisturbed build; empty when all is.
    """

    executor: str
    kills: list[tuple[float, int]] = field(default_factory=list)
    requests: int = 0
    faults: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--urls", type=int, default=5000)
    parser.add_argument("--hosts", type=int, default=300)
    parser.add_argument("--kills", type=int, default=20, help="on each executor, over as many builds as that takes")
    parser.add_argument("--executor", choices=EXECUTORS, help="only this one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep the workdirs")
    asked = parser.parse_args()
    top = Path(tempfile.mkdtemp(prefix="rs5m-chaos-download-"))
    case = prepared(top, asked.urls, min(asked.hosts, asked.urls))
    # What a killed run leaves among the temporary files goes with the rest. Ray's sockets need a short path.
    os.environ.setdefault("RAY_TMPDIR", tempfile.gettempdir())
    os.environ["TMPDIR"] = str(top / "tmp")
    (top / "tmp").mkdir()
    print(f"{asked.urls:,} urls on {asked.hosts} hosts in {top}", flush=True)
    undisturbed, usual_s = reference(case, [asked.executor] if asked.executor else list(EXECUTORS))
    draw = random.Random(asked.seed)
    builds: list[Build] = []
    for executor in usual_s:
        left = asked.kills
        while left > 0 and len(builds) < 3 * asked.kills + 3:
            workdir = top / f"build-{len(builds) + 1}"
            build = tortured(case, workdir, executor, min(left, _KILLS_PER_BUILD), usual_s[executor], draw)
            build.faults += faults(case, workdir, undisturbed)
            builds.append(build)
            left -= len(build.kills)
            print(line(len(builds), build), flush=True)
            if not (build.faults or asked.keep):
                shutil.rmtree(workdir)
    wrong, kills = sum(bool(build.faults) for build in builds), sum(len(build.kills) for build in builds)
    print(f"{kills} kills over {len(builds)} builds, {wrong} of them not as the undisturbed one")
    if wrong or asked.keep:
        print(f"workdirs and log are kept in {top}")
    else:
        shutil.rmtree(top)
    enough = all(sum(len(b.kills) for b in builds if b.executor == one) >= asked.kills for one in usual_s)
    if not enough:
        print("too few runs could be killed: they end before they are")
    return 0 if enough and not wrong else 1


def prepared(top: Path, count: int, hosts: int) -> Case:
    """Write the list, and filter it once for all builds."""
    names, urls = even_hosts(hosts, BUCKETS), []
    for number in range(count):
        turn = (number % hosts + number // hosts) % ODD_EVERY
        kind = ODD[turn] if turn < len(ODD) else "ok"
        urls.append(f"http://{names[number % hosts]}/{kind}/{number}.jpg")
    case = Case(top, top / "filtered", urls, jpegs(POOL, MEAN_BYTES), top / "log.txt")
    write_list(case.filtered, [*urls, *urls[:: max(1, count // 100)]])
    with serving(Site(str(case.jpegs))) as served:
        must(command("run", recipe(case, served), case.filtered, "--stage", "filter", "--executor", "local"))
    return case


def recipe(case: Case, served: Served) -> Path:
    """Write the recipe of the next run: the server's address and the run's number are part of no fingerprint."""
    served.run.value += 1
    network: dict[str, object] = {"connections": 8, "per_host": 4, "attempts": 2, "backoff_s": 0.1}
    file, contact = case.top / "listed.toml", f"https://bench.test/run-{served.run.value}"
    resolve = {".bench.test": served.web}
    write_recipe(
        file, buckets=BUCKETS, resolve=resolve, network=network, run={"workers": 2, "rounds": 2}, contact=contact
    )
    return file


@contextmanager
def site(case: Case) -> Iterator[Served]:
    """Serve one build: what answers 500 the first time does so anew."""
    with serving(Site(str(case.jpegs), latency_s=0.02)) as served:
        yield served


def reference(case: Case, executors: list[str]) -> tuple[dict[str, dict[str, pl.DataFrame]], dict[str, float]]:
    """Build undisturbed on every executor; return the rows, and seconds from the first request to the end of each."""
    found: dict[str, dict[str, dict[str, pl.DataFrame]]] = {}
    usual_s = {}
    for executor in executors:
        workdir = case.top / f"undisturbed-{executor}"
        shutil.copytree(case.filtered, workdir)
        with site(case) as served:
            code, usual_s[executor] = run_to_end(case, workdir, executor, served)
            requests = served.asked.value
        if code:
            sys.exit(f"the undisturbed build on {executor} ended with {code}; see {case.log}")
        found[executor] = rows_of(Store(str(workdir)))
        wrong = faults(case, workdir, found[executors[0]])
        counts = Counter(row for ledger in found[executor]["ledger"].values() for row in ledger["reason"])
        kept = sum(frame.height for frame in found[executor]["fetched"].values())
        print(
            f"undisturbed on {executor}: {usual_s[executor]:.1f} s from its first request, {requests:,} requests, "
            f"{kept:,} kept, {', '.join(f'{n} {reason}' for reason, n in sorted(counts.items()))}"
        )
        if wrong:
            sys.exit("\n".join(["the undisturbed build is wrong:", *wrong]))
    return found[executors[0]], usual_s


def arguments(case: Case, workdir: Path, executor: str, served: Served) -> list[str]:
    return command("run", recipe(case, served), workdir, "--stage", "download", "--executor", executor)


def saw_first_request(process: subprocess.Popen[bytes], served: Served, before: int) -> bool:
    """Wait for the first request of a run, not of tasks left over from the one before; False if it ended without."""
    while process.poll() is None:
        if served.by_run.value > before:
            return True
        time.sleep(0.005)
    return False


def run_to_end(case: Case, workdir: Path, executor: str, served: Served) -> tuple[int, float]:
    """Run undisturbed; return the exit code, and the seconds since its first request."""
    called, before = arguments(case, workdir, executor, served), served.by_run.value
    with start(called, case.log) as process:
        saw_first_request(process, served, before)
        begun = time.monotonic()
        return process.wait(_TIMEOUT_S), time.monotonic() - begun


def kill_once(case: Case, workdir: Path, executor: str, served: Served, delay_s: float) -> tuple[float, int] | None:
    """Start a run and kill its process group ``delay_s`` after its first request; None if it ended first."""
    called, before = arguments(case, workdir, executor, served), served.by_run.value
    with start(called, case.log) as process:
        if saw_first_request(process, served, before):
            end = time.monotonic() + delay_s
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.005)
        if process.poll() is not None:
            return None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return delay_s, len(committed(workdir))


def committed(workdir: Path) -> set[str]:
    """Return the partitions that have a commit, settled or open."""
    return {path.name.partition("@")[0] for path in (workdir / "commits" / STEP).glob("*.json")}


def tortured(case: Case, workdir: Path, executor: str, kills: int, usual_s: float, draw: random.Random) -> Build:
    """Kill a build up to ``kills`` times, in the part of its life that is still ahead, then let it end."""
    shutil.copytree(case.filtered, workdir)
    build = Build(executor)
    with site(case) as served:
        for _ in range(kills):
            ahead = max(0.25, 1 - len(committed(workdir)) / BUCKETS)
            killed = kill_once(case, workdir, executor, served, draw.uniform(0.0, ahead * usual_s))
            if killed is None:
                break
            build.kills.append(killed)
        code, _ = run_to_end(case, workdir, executor, served)
        again, _ = run_to_end(case, workdir, executor, served)
        build.requests = served.asked.value
        if code or again:
            build.faults.append(f"the last runs ended with {code} and {again}")
        if served.forbidden.value:
            build.faults.append(f"{served.forbidden.value} requests for what robots.txt forbids")
    return build


# -- what must hold ----------------------------------------------------------------------------------------------


def standing(store: Store) -> dict[str, Manifest]:
    """Return the commit that counts of every partition: the highest pass."""
    commits = CommitStore(store)
    found = {}
    for partition, by_fingerprint in commits.step(STEP).names.items():
        (passes,) = by_fingerprint.values()  # nothing that a fingerprint is made of ever changed
        found[partition] = commits.read(passes[-1])
    return found


def rows_of(store: Store) -> dict[str, dict[str, pl.DataFrame]]:
    """Return the rows kept and the rows that left, by partition, in order of sample id."""
    found: dict[str, dict[str, pl.DataFrame]] = {"fetched": {}, "ledger": {}}
    for partition, manifest in sorted(standing(store).items()):
        receipt = next(output for output in manifest.outputs if output.name == "fetched")
        for name, spec, path in (
            ("fetched", TABLES["fetched"], receipt.path),
            ("ledger", LEDGER, manifest.ledger.path),
        ):
            file = store.local_path(path)
            assert file is not None
            found[name][partition] = read_table(spec, Path(file)).sort("sample_id")
    return found


def faults(case: Case, workdir: Path, undisturbed: dict[str, dict[str, pl.DataFrame]]) -> list[str]:
    """Say what is wrong in a workdir whose download is over."""
    store = Store(str(workdir))
    open_ = sorted(partition for partition, manifest in standing(store).items() if manifest.open)
    found = [f"{partition} is not settled" for partition in open_]
    rows = rows_of(store)
    for name, located in (("fetched", ["tar", "offset"]), ("ledger", [])):
        if rows[name].keys() != undisturbed[name].keys():
            found.append(f"{name}: other partitions: {sorted(rows[name].keys() ^ undisturbed[name].keys())}")
        for partition in rows[name].keys() & undisturbed[name].keys():
            ours, theirs = (side[name][partition].drop(located) for side in (rows, undisturbed))
            if not ours.equals(theirs):
                found.append(f"{name} of {partition} differs: {difference(ours, theirs)}")
    fetched = pl.concat(rows["fetched"].values())
    found += wrong_bytes(case, store, fetched)
    found += torn_tars(workdir, store)
    found += misjudged_garbage(case, workdir, store, fetched)
    return found or wrong_bytes(case, store, fetched)  # once more, after gc


def difference(ours: pl.DataFrame, theirs: pl.DataFrame) -> str:
    mine, other = ({tuple(map(str, row)) for row in frame.iter_rows()} for frame in (ours, theirs))
    return f"only here {sorted(mine - other)[:2]}, only there {sorted(other - mine)[:2]}"


def wrong_bytes(case: Case, store: Store, fetched: pl.DataFrame) -> list[str]:
    """Read every row's bytes from where the row says they are, and compare them with what the server sends."""
    pool = load(case.jpegs, POOL)
    rows = fetched.select("url", "tar", "offset", "length", "sha256").to_dicts()
    places = [Place(row["tar"], row["offset"], row["length"], row["sha256"]) for row in rows]
    read = 0
    try:
        for index, body in read_images(store, places):
            read += 1
            if body != body_of(pool, int(rows[index]["url"].rsplit("/", 1)[-1].removesuffix(".jpg"))):
                return [f"{rows[index]['url']}: the stored bytes are not those that were served"]
    except CorruptFileError as error:
        return [str(error)]
    return [] if read == len(rows) else [f"{read} of {len(rows)} bodies could be read"]


def torn_tars(workdir: Path, store: Store) -> list[str]:
    """Open every tar that any commit names, whichever its pass."""
    commits, found = CommitStore(store), []
    for manifest in map(commits.read, commits.step(STEP).all()):
        for output in (output for output in manifest.outputs if output.name == "images"):
            file = workdir / output.path
            if hashlib.sha256(file.read_bytes()).hexdigest() != output.sha256:
                found.append(f"{output.path} is not as its commit says")
                continue
            with tarfile.open(file) as tar:
                members = [(m.name.partition(".")[0], tar.extractfile(m)) for m in tar]
                digests = [hashlib.sha256(body.read()).hexdigest() for _, body in members if body]
            if digests != [name for name, _ in members] or len(members) != output.rows:
                found.append(f"{output.path} does not open whole")
    return found


def misjudged_garbage(case: Case, workdir: Path, store: Store, fetched: pl.DataFrame) -> list[str]:
    """Compare what no commit and no row points at with what gc would remove; then let it remove that."""
    commits = CommitStore(store)
    needed: set[str] = set(fetched["tar"])
    for step in commits.steps():
        for manifest in map(commits.read, commits.step(step).all()):
            needed |= {manifest.ledger.path, *(output.path for output in manifest.outputs)}
    files = {
        str(p.relative_to(workdir)) for top in ("data", "ledger") for p in (workdir / top).rglob("*") if p.is_file()
    }
    gc = command("gc", case.top / "listed.toml", workdir)
    said = {
        words[2] for words in map(str.split, must([*gc, "--dry-run"]).splitlines()) if words[:2] == ["would", "remove"]
    }
    named = {path for path in said if path.startswith(("data/", "ledger/"))}
    if named != files - needed:
        return [f"gc names {sorted(named)[:3]}.., unreferenced are {sorted(files - needed)[:3]}.."]
    must(gc)
    left = {path for path in named if (workdir / path).exists()}
    return [f"gc left {sorted(left)[:3]}"] if left else []


def line(number: int, build: Build) -> str:
    moments = " ".join(f"{delay_s:.1f} ({count})" for delay_s, count in build.kills)
    said = "as undisturbed" if not build.faults else "NOT AS UNDISTURBED: " + "; ".join(build.faults[:4])
    return (
        f"build {number} on {build.executor}: {len(build.kills)} kills at s after a first request (partitions "
        f"committed): {moments or 'none'}; {build.requests:,} requests; {said}"
    )


if __name__ == "__main__":
    sys.exit(main())

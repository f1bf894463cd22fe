"""What the driver itself costs: a simulated full build whose tasks do nothing, planned, committed and read for real.

`python benchmarks/runner.py [--sizes N,N,...] [--s3] [--scratch DIR] [--json FILE]` builds a workdir of about N
partitions a size (6,785 is the published build: 4.2 billion rows as 3,000 partitions of filter.match, 600 buckets of
the web, 40 parts of archives, 1,200 tars) and prints, for each:

- driver: milliseconds a partition of planner, runner and commit store together, an executor's time not counted; and
  how many partitions a second that is, where more workers stop helping. Median and worst are of the time between two
  commits.
- status: seconds and peak memory of `rs5m-build status` in a process of its own, first without the workdir's cache of
  what commits say (every manifest is read), then with it; and with `--files`.
- no-op: seconds of `rs5m-build run` on the settled workdir, and those of a processor a partition as a ratio to the
  smallest size.

Columns "cpu" are of a processor's time: they hold on a machine that does other things besides.

Everything but the executor is what a build runs: recipe, locks, planner, runner, events, commits with their flushes to
disk. The executor answers at once, with receipts of empty files that it makes. The filter keeps 3,000 partitions at any
size, because their number follows from the rows; buckets, at most 65,536, and tars make up the rest. With --s3 the
workdir is on an S3 server (moto) on loopback.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent.parent
FULL = (3_000, 600, 40, 1_200)
MOST_BUCKETS = 65_536
KEPT_ROWS = 5_500  # of 1.4 million a partition of the filter
SEEN_ROWS = 1_400_000
SOURCES = ("laion2b", "laion400m", "laioncoco", "coyo700m", "cc3m", "cc12m", "yfcc14m", "wit", "redcaps", "sbu", "vg")
RECIPE = """
[recipe]
name = "simulated"
seed = 1
[sources.cc3m]
metadata = ["metadata/*.tsv"]
[sources.millionaid]
metadata = ["millionaid.tar"]
[filter]
buckets = {buckets}
[outlier]
encoder = "nano"
detector = "nano"
[caption]
captioner = "compose"
rank = "nano"
rerank = "nano"
rotate = "nano"
[run]
executor = "local"
workers = 1
"""


@dataclass(frozen=True)
class Size:
    """How many partitions of each kind a build has."""

    files: int
    buckets: int
    parts: int
    tars: int

    @classmethod
    def of(cls, partitions: int) -> Size:
        files, buckets, parts, tars = FULL
        files = min(files, max(2, partitions * files // 6_785))
        scale = max(0.0, (partitions - files - 6) / (4 * buckets + 6 * parts + tars))
        many = max(1, min(MOST_BUCKETS, round(scale * buckets)))
        held = max(1, round(scale * parts))
        return cls(files, many, held, max(1, partitions - files - 6 - 4 * many - 6 * held))

    @property
    def web(self) -> list[str]:
        return [f"web-{number:04d}" for number in range(self.buckets)]

    @property
    def archives(self) -> list[str]:
        return [f"millionaid-{number:04d}" for number in range(self.parts)]

    @property
    def stems(self) -> list[str]:
        return [f"pub11-train-{number:04d}" for number in range(self.tars)]


# -- the build, in a process of its own --------------------------------------------------------------------------


class Answering:
    """An executor whose tasks are done when they are submitted: it makes their empty files and their receipts.

    Attributes:
        own_s: Time that was spent in here.
        own_cpu_s: Time of a processor that was.
    """

    gpu_capacity = capacity = 64

    def __init__(self, store, size: Size) -> None:
        from pipeline.line import step_named

        self._store, self._size, self._step_named = store, size, step_named
        self._finished: list = []
        self._folders: set[str] = set()
        self.own_s = self.own_cpu_s = 0.0

    def submit(self, spec) -> None:
        from pipeline.executors.base import Finished

        start, cpu = time.perf_counter(), time.thread_time()
        self._finished.append(Finished(spec, self._outcome(spec), 0.0))
        self.own_s += time.perf_counter() - start
        self.own_cpu_s += time.thread_time() - cpu

    def wait(self, timeout_s: float) -> list:  # noqa: ARG002
        finished, self._finished = self._finished, []
        return finished

    def close(self, *, kill: bool) -> None:
        pass

    def _outcome(self, spec):
        from manifests.manifest import LedgerReceipt
        from pipeline.worker import Outcome

        step = self._step_named(spec.step)
        wanted = {(given.step, given.table) for given in step.rows_in}
        rows = sum(f.file.rows for f in spec.inputs if (f.step, f.table) in wanted) if step.inputs else KEPT_ROWS
        kept = {source: rows // len(SOURCES) for source in SOURCES}
        kept[SOURCES[0]] += rows - sum(kept.values())
        counted = {}
        if not step.inputs:
            kept = {str(spec.params["source"]): rows}
            counted = {source: {"filter.no_keyword": SEEN_ROWS - rows} for source in kept}
        seen = {source: n + sum(counted.get(source, {}).values()) for source, n in kept.items()}
        digest = hashlib.sha256(spec.name.encode()).hexdigest()
        facts = {"keywords": {"satellite image": rows, "aerial view": 7}} if not step.inputs else {}
        if spec.step == "filter.pool":
            facts = {"layout": {"buckets": self._size.buckets, "spread": [f"images{n}.example.org" for n in range(20)]}}
        outputs = [self._receipt(step, spec, digest, *output) for output in self._outputs(step, rows)]
        ledger = LedgerReceipt(
            path=self._made(f"ledger/{spec.step}/{spec.partition}-{digest[:12]}.parquet"),
            sha256=digest, bytes=0, rows=0,
        )  # fmt: skip
        return Outcome(outputs, ledger, seen, kept, [], counted, facts, [])

    def _outputs(self, step, rows: int) -> Iterator[tuple[str, str | None, int]]:
        """Yield (output, downstream partition, rows)."""
        owners: list[str] = []
        if step.name in ("filter.pool", "dedup.cluster", "outlier.cut"):
            owners = [*self._size.web, *self._size.archives]
        if step.name == "shard.plan":
            owners = self._size.stems
        each = rows // max(1, len(owners))
        for name in step.outputs:
            if name == "leaks":
                continue
            if owners and name == step.keeps:
                yield name, owners[0], rows - each * (len(owners) - 1)
                yield from ((name, owner, each) for owner in owners[1:])
            else:
                yield name, None, rows

    def _receipt(self, step, spec, digest: str, name: str, owner: str | None, rows: int):
        from manifests.manifest import Receipt

        sha = hashlib.sha256(f"{digest}{name}{owner}".encode()).hexdigest()
        path = (
            f"data/{spec.step}/{spec.partition}/{name}-{sha[:12]}.{'tar' if name in ('images', 'tar') else 'parquet'}"
        )
        if step.releases and name != "packed":
            path = f"release/{name}/{spec.partition}"
        return Receipt(
            name=name, partition=owner, path=self._made(path), sha256=sha, rows_digest=sha[:32], bytes=0, rows=rows
        )

    def _made(self, path: str) -> str:
        """Make an empty file, as a worker would make a full one; returns its path."""
        local = self._store.local_path(path)
        if local is None:
            self._store.replace(path, b"")
            return path
        folder = str(local.parent)
        if folder not in self._folders:
            local.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(folder)
        local.touch()
        return path


def build_here(uri: str, recipe_file: str, size: Size) -> dict[str, float]:
    """Run the build and return what it took."""
    import pipeline.build as building
    from manifests.recipe_files import load_recipe
    from manifests.store import Store
    from pipeline.events import Events

    store, gaps = Store(uri), []
    executor = Answering(store, size)
    building.start_executor = lambda *_: executor
    building.download_lines = lambda _: []
    last = [0.0, 0.0]
    send = Events.__call__

    def timed(self, event, **fields):
        send(self, event, **fields)
        if event == "partition_done":
            now = time.perf_counter()
            if last[0]:
                gaps.append(now - last[0] - (executor.own_s - last[1]))
            last[:] = now, executor.own_s

    Events.__call__ = timed
    start, cpu = time.perf_counter(), time.process_time()
    ended = building.build(load_recipe(recipe_file), store, building.Options(), lambda _: None)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    if ended.exit_code:
        raise SystemExit(f"the simulated build ended with {ended.exit_code}: {ended.summary.broken or ended.waiting}")
    done = ended.summary.worked
    gaps = gaps or [0.0]
    return {
        "partitions": done,
        "wall_s": wall,
        "executor_s": executor.own_s,
        "driver_ms": 1e3 * (wall - executor.own_s) / max(1, done),
        "driver_cpu_ms": 1e3 * (cpu - executor.own_cpu_s) / max(1, done),
        "min_ms": 1e3 * min(gaps),
        "median_ms": 1e3 * median(gaps),
        "max_ms": 1e3 * max(gaps),
    }


# -- measuring ---------------------------------------------------------------------------------------------------


def child(arguments: list[str], environment: dict[str, str]) -> tuple[str, float, float, float]:
    """Run a command; returns its output, seconds, those of a processor, and peak memory in MB."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *arguments], stdout=out, stderr=err, env=environment, cwd=HERE)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(arguments)}: {err.read()[-2000:]}")
        return out.read(), seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def prepare(folder: Path, size: Size) -> Path:
    """Write the recipe and the metadata that it names; returns the recipe's file."""
    metadata = folder / "inputs/metadata"
    metadata.mkdir(parents=True)
    for number in range(size.files - 1):
        (metadata / f"part-{number:05d}.tsv").write_text(f"an aerial view {number}\thttp://a.test/{number}.jpg\n")
    image = folder / "P0000001.jpg"
    image.write_bytes(b"an image")
    with tarfile.open(folder / "inputs/millionaid.tar", "w") as tar:
        tar.add(image, "test/P0000001.jpg")
    recipe = folder / "recipe.toml"
    text = RECIPE.format(buckets=size.buckets)
    recipe.write_text(text.replace('["', f'["{folder}/inputs/'))
    return recipe


def measure(folder: Path, partitions: int, uri: str, environment: dict[str, str]) -> dict[str, float]:
    """Build a workdir of a size and return every figure."""
    size = Size.of(partitions)
    recipe = prepare(folder, size)
    where = uri or str(folder / "work")
    shape = ",".join(map(str, (size.files, size.buckets, size.parts, size.tars)))
    out, _, _, build_mb = child([__file__, "--child", f"{where}|{recipe}|{shape}"], environment)
    found: dict[str, float] = {**json.loads(out.splitlines()[-1]), "build_mb": build_mb}
    cli = ["-m", "pipeline.cli"]
    here = ["--recipe", str(recipe), "--workdir", where]
    forget_cache(where)
    for name, arguments in (
        ("status_cold", ["status", *here, "--json"]),
        ("status", ["status", *here, "--json"]),
        ("status_files", ["status", *here, "--json", "--files"]),
        ("noop", ["run", *here]),
    ):
        out, found[f"{name}_s"], found[f"{name}_cpu_s"], found[f"{name}_mb"] = child([*cli, *arguments], environment)
        if name != "noop":
            done = sum(step["done"] for step in json.loads(out)["steps"])
            if done != found["partitions"]:
                raise SystemExit(f"{name}: {done} partitions are done, {found['partitions']} were built")
    return found


def forget_cache(where: str) -> None:
    import fsspec

    fs, root = fsspec.core.url_to_fs(where)
    if fs.exists(f"{root}/cache/commits"):
        fs.rm(f"{root}/cache/commits", recursive=True)


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Serve S3 on loopback; yields what the environment needs to find it."""
    script = (
        "import sys, logging, time; from moto.server import ThreadedMotoServer as S; "
        "logging.getLogger('werkzeug').setLevel(logging.ERROR); s = S(ip_address='127.0.0.1', port=0, verbose=False); "
        "s.start(); print(s.get_host_and_port()[1], flush=True); sys.stdin.read(); s.stop()"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        told = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        os.environ.update(told)
        import boto3

        boto3.client("s3").create_bucket(Bucket="bucket")
        try:
            yield told
        finally:
            server.communicate("")


def table(rows: list[dict[str, float]]) -> Iterator[str]:
    yield (
        f"{'partitions':>10} {'driver ms':>9} {'cpu':>6} {'min':>6} {'median':>6} {'max':>8} {'a second':>8} "
        f"{'MB':>5} | {'status s':>8} {'cpu':>6} {'MB':>5} {'cold s':>7} {'cpu':>6} {'MB':>5} "
        f"{'--files':>7} {'cpu':>6} {'MB':>5} | "
        f"{'no-op s':>7} {'cpu':>6} {'MB':>5} {'ratio':>6}"
    )
    base = rows[0]["noop_cpu_s"] / rows[0]["partitions"]
    for row in rows:
        found = (
            f"{row[f'{name}_s']:>{width}.2f} {row[f'{name}_cpu_s']:>6.2f} {row[f'{name}_mb']:>5.0f}"
            for name, width in (("status", 8), ("status_cold", 7), ("status_files", 7))
        )
        yield (
            f"{row['partitions']:>10,.0f} {row['driver_ms']:>9.2f} {row['driver_cpu_ms']:>6.2f} {row['min_ms']:>6.2f} "
            f"{row['median_ms']:>6.2f} {row['max_ms']:>8.1f} {1e3 / row['driver_ms']:>8.0f} {row['build_mb']:>5.0f} | "
            f"{' '.join(found)} | {row['noop_s']:>7.2f} {row['noop_cpu_s']:>6.2f} {row['noop_mb']:>5.0f} "
            f"{row['noop_cpu_s'] / row['partitions'] / base:>6.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="", help="partitions, with commas between; 6785,20000,100000,500000")
    parser.add_argument("--s3", action="store_true", help="on an S3 server on loopback; sizes 3000,20000")
    parser.add_argument("--scratch", default="", help="a folder for the workdirs; 500,000 partitions are 2.5 M files")
    parser.add_argument("--json", default="", help="also write the figures to this file")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        uri, recipe, shape = options.child.split("|")
        print(json.dumps(build_here(uri, recipe, Size(*map(int, shape.split(","))))))
        return
    sizes = [int(n) for n in (options.sizes or ("3000,20000" if options.s3 else "6785,20000,100000,500000")).split(",")]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    rows = []
    for partitions in sizes:
        scratch = Path(tempfile.mkdtemp(prefix="rs5m-runner-", dir=options.scratch or None))
        try:
            if options.s3:
                with s3_server() as told:
                    row = measure(scratch, partitions, f"s3://bucket/{partitions}", {**environment, **told})
            else:
                row = measure(scratch, partitions, "", environment)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        rows.append(row)
        print("\n".join(table(rows) if len(rows) == 1 else list(table(rows))[-1:]), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

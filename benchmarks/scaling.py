"""What more workers give: strong scaling on Ray by measurement, and where the driver ends it by a model of it.

    python benchmarks/scaling.py [--partitions 8] [--rows 3000000] [--rounds 3] [--no-ops 3000] [--runner-ms 1.4]

measured, scaling: `filter.match` over LAION-like Parquet files, by the real runner on Ray with one worker and with two,
in turns; from the first partition's start to the last commit. Ray's start and the workers' own are stated apart.
measured, driver: partitions that do nothing, through the executor alone: partitions/s, and CPU seconds of the driver.
model: a driver is busy for so many CPU seconds a partition: Ray's share as measured here, and the runner's own (plan,
books, commit) as `benchmarks/runner.py` measures it, handed over by --runner-ms. Its inverse is the rate at which the
driver saturates; below it W workers do W partitions at a time, and the last ones of them wait for one another.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from laion_like import write_laion

from manifests.commits import CommitStore
from manifests.recipe_files import load_recipe
from manifests.store import Store
from pipeline.events import Event, Events
from pipeline.executors.ray import RayTasks
from pipeline.line import step_named
from pipeline.metadata import metadata_slices
from pipeline.planner import Planner
from pipeline.runner import Runner
from pipeline.workdir import open_workdir
from pipeline.worker import TaskSpec

WANTED = 1.8
RECIPE = '[recipe]\nname = "scaling"\n[sources.laion2b]\nmetadata = ["{glob}"]\n'
_DEADLINE_S = 3600.0


@dataclass(frozen=True)
class Scaled:
    """One run: seconds of the step, and before it those of Ray's start and of the workers'."""

    step_s: float
    ray_s: float
    workers_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--rows", type=int, default=3_000_000, help="of a partition")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-ops", type=int, default=3000)
    parser.add_argument("--runner-ms", type=float, default=1.4, help="the runner's own, by benchmarks/runner.py")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-scaling-") as name:
        ratio = scaling(Path(name), args.partitions, args.rows, args.rounds)
        driver_ms = driver(Path(name), args.no_ops)
    model(driver_ms, args.runner_ms)
    if ratio < WANTED:
        print(f"SHORT: 2 workers give {ratio:.2f} of 1, {WANTED} wanted")
    sys.exit(ratio < WANTED)


def scaling(folder: Path, partitions: int, rows: int, rounds: int) -> float:
    """Measure one worker and two in turns; return the median ratio."""
    files, recipe = folder / "metadata", folder / "recipe.toml"
    files.mkdir()
    write_laion(folder / "one.parquet", 1, rows, 0.0045, "snappy")
    table = pq.read_table(folder / "one.parquet")
    for number in range(partitions):  # a file's digest is over its footer: equal files would be taken for a mistake
        marked = table.replace_schema_metadata({"copy": str(number)})
        pq.write_table(marked, files / f"{number:04d}.parquet", row_group_size=100_000)
    recipe.write_text(RECIPE.format(glob=files / "*.parquet"))
    print(f"measured: filter.match, {partitions} partitions of {rows:,} rows, {rounds} rounds in turns")
    ratios = []
    for number in range(rounds):
        runs = {w: scaled(folder / f"work-{number}-{w}", recipe, w) for w in ((1, 2) if number % 2 else (2, 1))}
        ratios.append(runs[1].step_s / runs[2].step_s)
        told = "; ".join(
            f"{w} workers {r.step_s:.2f} s (Ray's start {r.ray_s:.1f} s, workers' {r.workers_s:.1f} s)"
            for w, r in sorted(runs.items())
        )
        print(f"  round {number + 1}: {told}; ratio {ratios[-1]:.2f}", flush=True)
    ratio = statistics.median(ratios)
    print(f"  2 workers give {ratio:.2f} of 1 ({min(ratios):.2f} to {max(ratios):.2f})")
    return ratio


def scaled(path: Path, recipe_file: Path, workers: int) -> Scaled:
    """Run the step once, with Ray and its workers started before."""
    recipe = load_recipe(str(recipe_file))
    store, events, seen = Store(str(path)), Events(), list[tuple[float, Event]]()
    open_workdir(store, recipe.name, create=True)
    events.listen(lambda event: seen.append((time.monotonic(), event)))
    begun = time.monotonic()
    executor = RayTasks(store, workers, _DEADLINE_S)
    started = time.monotonic()
    through(executor, 20 * workers, workers)
    warm = time.monotonic()
    commits = CommitStore(store)
    planner = Planner(recipe, store, commits, metadata_slices(recipe, store))
    runner = Runner(recipe, store, planner, commits, lambda: executor, events, lambda: False)
    summary = runner.run([step_named("filter.match")])
    if summary.failed:
        sys.exit(f"a partition failed: {summary.failed}")
    first = next(t for t, event in seen if event["event"] == "partition_started")
    last = max(t for t, event in seen if event["event"] == "partition_done")
    return Scaled(last - first, started - begun, warm - started)


def driver(folder: Path, count: int) -> float:
    """Measure partitions that do nothing, with few and with many in flight; return the driver's CPU ms for one."""
    print(f"measured: {count:,} partitions that do nothing, through Ray alone, 2 workers")
    executor = RayTasks(Store(str(folder)), 2, _DEADLINE_S)
    costs = []
    try:
        through(executor, 200, 2)
        for in_flight in (2, 64, 1000):
            wall, cpu = time.monotonic(), time.process_time()
            through(executor, count, in_flight)
            wall, cpu = time.monotonic() - wall, time.process_time() - cpu
            costs.append(1000 * cpu / count)
            print(
                f"  {in_flight:5} in flight: {count / wall:6.0f} partitions/s, driver {costs[-1]:.2f} ms CPU each",
                flush=True,
            )
    finally:
        executor.close(kill=False)
    return max(costs)


def through(executor: RayTasks, count: int, in_flight: int) -> None:
    """Put partitions through that fail at once, by a problem that planning saw."""
    sent = done = 0
    while done < count:
        while sent < count and sent - done < in_flight:
            spec = TaskSpec("filter.match", f"noop-{sent:06d}", {}, {"problem": "nothing to do"}, final=False)
            executor.submit(spec)
            sent += 1
        done += len(executor.wait(1.0))


def model(ray_ms: float, runner_ms: float) -> None:
    """Print what the driver can feed."""
    busy_s = (ray_ms + runner_ms) / 1000
    print(f"model: the driver is busy {1000 * busy_s:.2f} ms a partition, Ray's {ray_ms:.2f} measured here and the")
    print(f"runner's {runner_ms:.2f} handed over: it saturates at {1 / busy_s:.0f} partitions/s. Of 30,000 partitions:")
    print(f"  {'seconds a partition':>20}{'workers it can feed':>22}{'speed-up of 64':>17}{'of 1,000':>11}")
    for seconds in (0.5, 2.0, 10.0, 60.0, 600.0):
        gains = [30_000 * seconds / max(math.ceil(30_000 / w) * seconds, 30_000 * busy_s) for w in (64, 1000)]
        print(f"  {seconds:20g}{seconds / busy_s:22,.0f}{gains[0]:17.1f}{gains[1]:11.1f}")


if __name__ == "__main__":
    main()

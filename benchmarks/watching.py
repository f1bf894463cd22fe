"""What watching a run costs its driver: microseconds of CPU a partition, milliseconds a document, memory by partitions.

    python -m benchmarks.watching [--partitions 10000 100000 500000]

Events go where a run's go: into the run's folder, to the tally that progress shows, and to the metrics, which are
written every few seconds. No task runs.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from manifests.recipe_files import load_recipe
from manifests.store import Store
from pipeline.events import Events
from pipeline.live import Watch
from pipeline.picture import Picture
from pipeline.runs import RunFolder
from pipeline.watching.of_run import kept
from pipeline.watching.prometheus import Metrics
from pipeline.watching.snapshot import Snapshots
from pipeline.watching.tally import Tally

SOURCES = [f"source{number:02}" for number in range(14)]
STEP = "download.fetch"


def books(number: int) -> dict[str, object]:
    """Rows of one partition of every source, with six reasons, as a bucket of downloads has them."""
    failed = {f"download.{name}": number % 7 for name in ("http_404", "http_410", "dns", "timeout", "reset")}
    dropped = {"download.not_image": 3}
    one = {"in": 1000, "kept": 997 - sum(failed.values()), "dropped": dropped, "failed": failed, "deferred": {}}
    return dict.fromkeys(SOURCES, one)


def send(events: Events, first: int, last: int) -> float:
    """Send what a runner sends of partitions; return microseconds of CPU a partition."""
    begun_s = time.process_time()
    for number in range(first, last):
        name = f"web-{number:06}"
        events("partition_started", step=STEP, partition=name, attempt=1)
        told = {"rows": books(number), "bytes": 1_000_000, "seconds": 30.0, "commit_s": 0.004}
        events("partition_done", step=STEP, partition=name, **told)
    return (time.process_time() - begun_s) * 1e6 / (last - first)


def _unheard(*_: object) -> None:
    """No download is under way."""


def rss_bytes() -> int:
    """Return this process's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(partitions: int, folder: str) -> dict[str, object]:
    """Return what `partitions` partitions cost."""
    store, recipe = Store(folder), load_recipe("mini")
    bare, whole = Events(), Events()
    run, tally = RunFolder(store, recipe, []), Tally()
    whole.listen(run.listen)
    whole.listen(tally.take)
    watch = Watch(store, run.path, _unheard, _unheard)
    whole("run_started", recipe=recipe.name, steps=[STEP], folder=run.path)
    whole("step_started", step=STEP, partitions=partitions, done=0, round=0, device="cpu")
    bare_us = send(bare, 0, min(partitions, 20_000))
    early, part = rss_bytes(), partitions // 10
    with kept(recipe, store, run.path, "run", whole, tally, watch, Picture()):
        first_us = send(whole, 0, part)
        after_first = rss_bytes()
        rest_us = send(whole, part, partitions)
    late = rss_bytes()
    run.flush()
    snapshots, metrics = Snapshots(tally, "run", 10.0), Metrics()
    begun_s = time.process_time()
    for _ in range(20):
        metrics.update(snapshots.take(None))
    document_ms = (time.process_time() - begun_s) * 1e3 / 20
    begun_s = time.process_time()
    for _ in range(20):
        metrics.text()
    text_ms = (time.process_time() - begun_s) * 1e3 / 20
    events_bytes = store.size(f"{run.path}/events.jsonl") or 0
    return {
        "partitions": partitions,
        "stamping_us_a_partition": round(bare_us, 1),
        "all_us_a_partition_first_tenth": round(first_us, 1),
        "all_us_a_partition_rest": round(rest_us, 1),
        "document_ms": round(document_ms, 2),
        "prometheus_text_ms": round(text_ms, 2),
        "events_bytes_a_partition": round(events_bytes / partitions),
        "rss_mb": [round(size / 1e6) for size in (early, after_first, late)],
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", type=int, nargs="+", default=[10_000, 100_000])
    for partitions in parser.parse_args().partitions:
        with tempfile.TemporaryDirectory(prefix="rs5m-watching-") as folder:
            sys.stdout.write(json.dumps(measure(partitions, folder)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()

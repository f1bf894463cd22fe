"""A build whose only source is one's own list of urls, all leading to the image server: its metadata, its recipe."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from manifests.identity import bucket

ROOT = Path(__file__).resolve().parents[1]


def even_hosts(count: int, buckets: int) -> list[str]:
    """Return host names of which every bucket gets as many as any other, in turn."""
    found: list[list[str]] = [[] for _ in range(buckets)]
    number = 0
    while any(len(names) < -(-count // buckets) for names in found):
        name = f"h{number:05d}.bench.test"
        found[bucket(name, buckets)].append(name)
        number += 1
    return [names[turn] for turn in range(-(-count // buckets)) for names in found][:count]


def write_list(workdir: Path, urls: Sequence[str]) -> None:
    """Write the metadata of the source into a workdir, one row for every url given."""
    file = workdir / "listed" / "urls.parquet"
    file.parent.mkdir(parents=True)
    texts = [f"an aerial view, number {number}" for number in range(len(urls))]
    pq.write_table(pa.table({"url": list(urls), "caption": texts}), file)


def write_recipe(
    file: Path,
    *,
    buckets: int,
    resolve: dict[str, str],
    network: dict[str, object],
    run: dict[str, object],
    contact: str = "",
) -> None:
    """Write the recipe of such a build."""
    source = {
        "format": "parquet",
        "columns": {"url": "url", "text": "caption"},
        "keywords": "all",
        "metadata": ["listed/*.parquet"],
    }
    recipe = {
        "recipe": {"name": "listed"},
        "sources": {"listed": source},
        "filter": {"buckets": buckets, "host_cap": 10_000_000},
        "download": {"allow_private": True, "contact": contact, "network": {**network, "resolve": resolve}},
        "run": {"lock_beat_s": 0.2, **run},
    }
    file.write_text(tomli_w.dumps(recipe), "utf-8")


def command(verb: str, recipe: Path, workdir: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli", verb, "--recipe", str(recipe), "--workdir", str(workdir), *arguments]


def must(arguments: list[str]) -> str:
    """Run a command that has to succeed; return what it printed."""
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments[2:])} ended with {done.returncode}:\n{done.stderr[-2000:]}{done.stdout[-500:]}")
    return done.stdout + done.stderr

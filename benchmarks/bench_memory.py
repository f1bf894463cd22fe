"""Time and peak memory of the two reduce steps that hold most: dedup.cluster and shard.plan, over synthetic rows.

A quarter of the rows are near copies of others, as in the published set; one row in a thousand is one placeholder.
`python benchmarks/bench_memory.py [ROWS] [STEP ...]`; each step runs in a process of its own over tables on disk, cut
into partitions of 20,000 rows.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from manifests.recipe import Settings
from manifests.recipe_files import load_recipe
from manifests.schemas import TABLES
from manifests.store import Store
from manifests.tables import empty_frame, write_table
from pipeline.line import step_named
from pipeline.worker import InputFile, _Prior, _Tables
from stages.step import StoredFile, Task

PARTITION_ROWS = 20_000
STEPS = ("dedup.cluster", "shard.plan")
MADE = ("candidates", "fetched", "inspected", "survivors")


def make(folder: Path, rows: int) -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 1 << 63, rows, dtype=np.uint64)
    copies = random.random(rows) < 0.25
    shows = np.arange(rows, dtype=np.uint64)  # which picture a row shows
    shows[copies] = random.integers(0, rows, int(copies.sum()), dtype=np.uint64)
    shows[random.random(rows) < 0.001] = 0
    flips = (np.uint64(1) << random.integers(0, 63, rows).astype(np.uint64)) * random.integers(
        0, 2, rows, dtype=np.uint64
    )
    hashes = hashes[shows] ^ flips
    for number, start in enumerate(range(0, rows, PARTITION_ROWS)):
        mine = [f"{i:032x}" for i in range(start, min(rows, start + PARTITION_ROWS))]
        count = len(mine)
        digest = [f"{i}{i}" for i in mine]
        columns = {
            "sample_id": mine,
            "source": ["laion2b"] * count,
            "subset": ["pub11"] * count,
            "url": [f"http://host{i[:3]}.example.org/images/2023/{i}.jpg" for i in mine],
            "text": [f"satellite image of a place called {i}, seen from far above in the morning" for i in mine],
            "matched": [["satellite imag"]] * count,
            "extra": ['{"SAMPLE_ID":123456789,"hash":-123456789012345}'] * count,
            "tar": [f"data/download.fetch/web-{number:04d}/images-0123456789ab.tar"] * count,
            "offset": list(range(count)),
            "length": [100_000] * count,
            "sha256": digest,
            "media_type": ["jpeg"] * count,
            "hash_verdict": ["unknown"] * count,
            "etag": ['"5f0c-5e1d"'] * count,
            "width": [640] * count,
            "height": [480] * count,
            "mode": ["RGB"] * count,
            "frames": [1] * count,
            "exif_orientation": [0] * count,
            "hash_kind": ["phash64-exact"] * count,
            "phash": hashes[start : start + count],
            "phash_d4": random.integers(0, 1 << 63, (count, 8), dtype=np.uint64),
            "thumbnail": thumbnails(shows[start : start + count]),
            "texture": [40.0] * count,
            "split_group": mine,
        }
        for table in MADE:
            schema = empty_frame(TABLES[table]).schema
            data = {n: pl.Series(n, columns.get(n, [None] * count), dtype=d, strict=False) for n, d in schema.items()}
            write_table(TABLES[table], pl.DataFrame(data), folder / f"{table}-{number}.parquet")


def thumbnails(shows: np.ndarray) -> np.ndarray:
    """Sixteen blocks of their own for each picture."""
    mixed = shows[:, None] * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * (2 * np.arange(16, dtype=np.uint64) + np.uint64(0x94D049BB133111EB))
    blocks = (mixed >> np.uint64(56)).astype(np.uint8).reshape(-1, 4, 4)
    return np.repeat(np.repeat(blocks, 4, axis=1), 4, axis=2).reshape(-1, 256)


def run(name: str, folder: Path) -> None:
    step = step_named(name)
    parts = len([*folder.glob("inspected-*.parquet")])
    inputs = [
        InputFile(i.step, i.table, StoredFile(f"web-{n:04d}", f"{i.table}-{n}.parquet", "", 0, 0))
        for i in step.inputs
        if i.table in MADE and i.step != "outlier.cut"
        for n in range(parts)
    ]
    flat = load_recipe("rs5m").flat()
    settings = Settings({key: flat[key] for key in (*step.reads, *step.asks)})
    store = Store(str(folder))
    start = time.perf_counter()
    step.process(Task(name, "all", settings, {}, True, folder), _Tables(store, inputs), _Prior(store, step, "all", []))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name}: {time.perf_counter() - start:.1f} s, peak {peak_mb:,.0f} MB")


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "--step":
        run(sys.argv[2], Path(sys.argv[3]))
        return
    rows = int(float(sys.argv[1])) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), rows)
        print(f"{rows:,} rows in partitions of {PARTITION_ROWS:,}", flush=True)
        for name in sys.argv[2:] or STEPS:
            subprocess.run([sys.executable, __file__, "--step", name, folder], check=True)


if __name__ == "__main__":
    main()

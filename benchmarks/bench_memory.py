"""Peak memory of the two reduce steps that hold most: dedup.cluster and shard.plan, over synthetic rows.

`python benchmarks/bench_memory.py [ROWS]`; each step runs in a process of its own over tables on disk.
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

PARTITIONS = 16


def make(folder: Path, rows: int) -> None:
    random = np.random.default_rng(0)
    ids = [f"{i:032x}" for i in random.choice(1 << 60, rows, replace=False)]
    for number in range(PARTITIONS):
        mine = ids[number::PARTITIONS]
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
            "phash": random.integers(0, 1 << 63, count, dtype=np.uint64),
            "phash_d4": random.integers(0, 1 << 63, (count, 8), dtype=np.uint64),
            "thumbnail": random.integers(0, 256, (count, 256), dtype=np.uint8),
            "texture": [40.0] * count,
            "split_group": mine,
        }
        for table in ("candidates", "fetched", "inspected", "survivors"):
            schema = empty_frame(TABLES[table]).schema
            data = {n: pl.Series(n, columns.get(n, [None] * count), dtype=d, strict=False) for n, d in schema.items()}
            write_table(TABLES[table], pl.DataFrame(data), folder / f"{table}-{number}.parquet")


def run(name: str, folder: Path) -> None:
    step = step_named(name)
    inputs = [
        InputFile(i.step, i.table, StoredFile(f"web-{n:04d}", f"{i.table}-{n}.parquet", "", 0, 0))
        for i in step.inputs
        for n in range(PARTITIONS)
    ]
    flat = load_recipe("rs5m").flat()
    settings = Settings({key: flat[key] for key in step.reads})
    store = Store(str(folder))
    start = time.perf_counter()
    step.process(Task(name, "all", settings, {}, True, folder), _Tables(store, inputs), _Prior(store, step, "all", []))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name}: {time.perf_counter() - start:.1f} s, peak {peak_mb:,.0f} MB")


def main() -> None:
    if len(sys.argv) == 4:
        run(sys.argv[2], Path(sys.argv[3]))
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), rows)
        print(f"{rows:,} rows in {PARTITIONS} partitions")
        for name in ("dedup.cluster", "shard.plan"):
            subprocess.run([sys.executable, __file__, "--step", name, folder], check=True)


if __name__ == "__main__":
    main()

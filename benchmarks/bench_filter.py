"""Rows a second of the metadata scan, beside what bounds it.

Makes LAION-like rows in a temporary folder, then runs each engine in turn, round after round, and prints the medians:

    python benchmarks/bench_filter.py [--rows 400000] [--rounds 5]

The floor is pyarrow decoding URL and TEXT and doing nothing with them. pandas takes part where it is installed.
"""

import argparse
import importlib.util
import random
import re
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.lexicon import load_lexicon
from manifests.sources import load_sources
from stages.filter.matcher import Matcher
from stages.filter.parquet import BATCH_ROWS, row_groups, scan_parquet
from stages.filter.tsv import scan_tsv

HIT_RATE = 0.0025
GROUP_ROWS = 100_000
COMMON = (
    "the a of in for and with new old red blue garden house city street car dog beach sunset stock vector "
    "antenna dish plan river bridge drawing office station woman kitchen dress shirt shoes logo icon set free download "
    "airport satellite remote earth planet global control desk table chair wall art canvas print poster card wedding"
).split()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parquet, tsv = make_rows(Path(folder), args.rows)
        engines = {
            "floor: pyarrow decodes URL+TEXT": lambda: floor(parquet, ["URL", "TEXT"]),
            "floor: pyarrow decodes all columns": lambda: floor(parquet, None),
            "decode all + RE2 mask alone": lambda: mask_alone(parquet),
            "scan_parquet": lambda: ours_parquet(parquet),
            "scan_tsv": lambda: ours_tsv(tsv),
        }
        if importlib.util.find_spec("pandas"):
            engines["pandas str.contains"] = lambda: with_pandas(parquet)
        report(engines, args.rows, args.rounds)


def make_rows(folder, rows):
    """Captions of 5 to 14 words, a quarter of a percent with a keyword; columns as LAION's joined variant has them."""
    draw = random.Random(2023)
    lexicon = load_lexicon("rs5m-1")
    entries = lexicon.stems + lexicon.names
    texts = []
    for _ in range(rows):
        words = draw.choices(COMMON, k=draw.randint(5, 14))
        if draw.random() < HIT_RATE:
            words.insert(draw.randrange(len(words)), draw.choice(entries))
        texts.append(" ".join(words))
    urls = [f"https://img{draw.randrange(9999)}.example.com/{draw.getrandbits(64):x}/{row}.jpg" for row in range(rows)]
    table = pa.table(
        {
            "URL": urls,
            "TEXT": texts,
            "WIDTH": pa.array([draw.randrange(64, 4000) for _ in range(rows)], pa.int32()),
            "HEIGHT": pa.array([draw.randrange(64, 4000) for _ in range(rows)], pa.int32()),
            "similarity": [draw.random() for _ in range(rows)],
            "hash": [draw.getrandbits(62) for _ in range(rows)],
            "punsafe": pa.array([draw.random() for _ in range(rows)], pa.float32()),
            "pwatermark": pa.array([draw.random() for _ in range(rows)], pa.float32()),
        }
    )
    pq.write_table(table, folder / "part.parquet", compression="snappy", row_group_size=GROUP_ROWS)
    lines = "".join(f"{text}\t{url}\n" for text, url in zip(texts, urls, strict=True))
    (folder / "part.tsv").write_text(lines, encoding="utf-8")
    return folder / "part.parquet", folder / "part.tsv"


def floor(path, columns):
    parquet = pq.ParquetFile(path)
    for group in range(parquet.num_row_groups):
        for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
            assert batch.num_rows


def mask_alone(path):
    matcher = Matcher(load_lexicon("rs5m-1"), "stem")
    parquet = pq.ParquetFile(path)
    for group in range(parquet.num_row_groups):
        for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False):
            pc.sum(matcher.possible(batch.column("TEXT")))


def ours_parquet(path):
    matcher = Matcher(load_lexicon("rs5m-1"), "stem")
    with path.open("rb") as file:
        scans = scan_parquet(file, load_sources()["laion2b"], 0, len(row_groups(file)), matcher)
        return sum(scan.hits.num_rows for scan in scans)


def ours_tsv(path):
    matcher = Matcher(load_lexicon("rs5m-1"), "stem")
    with path.open("rb") as file:
        return sum(scan.hits.num_rows for scan in scan_tsv(file, load_sources()["cc3m"], matcher))


def with_pandas(path):
    import pandas as pd

    lexicon = load_lexicon("rs5m-1")
    stems, names = ("|".join(map(re.escape, entries)) for entries in (lexicon.stems, lexicon.names))
    frame = pd.read_parquet(path, columns=["URL", "TEXT"])
    return len(frame[frame.TEXT.str.contains(rf"\b(?:{stems}|(?:{names})\b)", case=False, regex=True)])


def report(engines, rows, rounds):
    seconds = {name: [] for name in engines}
    hits = {}
    for _ in range(rounds):
        for name, run in engines.items():
            start = time.perf_counter()
            hits[name] = run()
            seconds[name].append(time.perf_counter() - start)
    found = {count for count in hits.values() if count is not None}
    assert len(found) == 1, f"the engines disagree: {hits}"
    print(f"{rows} rows, {found.pop()} hits, one core, {rounds} rounds, median")
    least = statistics.median(next(iter(seconds.values())))
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        print(f"{name:36} {rows / middle / 1e6:7.2f} M rows/s   {least / middle:5.2f} of the floor")


if __name__ == "__main__":
    main()

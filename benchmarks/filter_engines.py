"""One engine over one set of Parquet files, in a process of its own: prints seconds, hits and a digest of their urls.

filter_engines.py ENGINE FILE... ; imports, compiled patterns and started workers are outside the seconds.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

WORKERS = 2
OURS = {"rs5m-build", "rs5m-build (RE2)"}
os.environ["POLARS_MAX_THREADS"] = "1" if sys.argv[1] in OURS else str(WORKERS)

import polars as pl  # noqa: E402  (the number of threads is read at import)
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from manifests.lexicon import load_lexicon  # noqa: E402
from manifests.sources import load_sources  # noqa: E402
from stages.filter.matcher import Matcher  # noqa: E402
from stages.filter.parquet import scan_parquet  # noqa: E402
from stages.filter.prefilter import Re2  # noqa: E402

LEXICON = load_lexicon("rs5m-1")
STEMS = "|".join(re.escape(entry).replace(r"\ ", " ") for entry in LEXICON.stems)
NAMES = "|".join(re.escape(entry).replace(r"\ ", " ") for entry in LEXICON.names)
PATTERN = rf"\b(?:{STEMS}|(?:{NAMES})\b)"


def texts_of(file: str) -> list[str]:
    """Return the text columns that are matched."""
    names = pq.read_schema(file).names
    return ["top_caption", "all_captions"] if "all_captions" in names else ["TEXT"]


def spec_of(file: str):
    return load_sources()["laioncoco" if "all_captions" in pq.read_schema(file).names else "laion2b"]


def floor(file: str) -> list[str]:
    """Decode the url and the matched text with pyarrow, a row group at a time, and do nothing with it."""
    parquet = pq.ParquetFile(file)
    for group in range(parquet.num_row_groups):
        parquet.read_row_group(group, columns=["URL", *texts_of(file)], use_threads=False)
    return []


_matchers: dict[bool, Matcher] = {}


def ours(file: str, re2: bool = False) -> list[str]:
    if re2 not in _matchers:
        entries = LEXICON.stems + LEXICON.names
        _matchers[re2] = Matcher(LEXICON, "stem", prefilter=Re2(entries) if re2 else None)
    pa.set_cpu_count(1)
    with Path(file).open("rb") as opened:
        scans = scan_parquet(opened, spec_of(file), 0, pq.ParquetFile(opened).num_row_groups, _matchers[re2])
        return [url for scan in scans for url in scan.hits["url"].to_pylist()]


def ours_re2(file: str) -> list[str]:
    return ours(file, re2=True)


def with_pyarrow(file: str) -> list[str]:
    """Mask every row group with RE2: the plain loop."""
    import pyarrow.compute as pc

    found, parquet, (text, *more) = [], pq.ParquetFile(file), texts_of(file)
    assert not more
    for group in range(parquet.num_row_groups):
        table = parquet.read_row_group(group, columns=["URL", text], use_threads=False)
        found += table.filter(pc.match_substring_regex(table[text], PATTERN, ignore_case=True))["URL"].to_pylist()
    return found


def with_polars(file: str) -> list[str]:
    texts = [pl.col(n).list.join(". ") if n == "all_captions" else pl.col(n) for n in texts_of(file)]
    hit = pl.any_horizontal(text.str.contains(f"(?i){PATTERN}") for text in texts)
    return pl.scan_parquet(file).filter(hit).select("URL").collect(engine="streaming")["URL"].to_list()


def with_pandas(file: str) -> list[str]:
    import pandas as pd

    (text,) = texts_of(file)
    frame = pd.read_parquet(file, columns=["URL", text])
    return frame[frame[text].str.contains(PATTERN, case=False, regex=True)]["URL"].to_list()


def with_duckdb(files: list[str]) -> list[str]:
    import duckdb

    db = duckdb.connect()
    db.execute(f"set threads={WORKERS}")
    joined = {"all_captions": "array_to_string(all_captions, '. ')"}
    hit = " or ".join(f"regexp_matches({joined.get(n, n)}, $2, 'i')" for n in texts_of(files[0]))
    rows = db.execute(f"select URL from read_parquet($1) where {hit}", [files, PATTERN])
    return [url for (url,) in rows.fetchall()]


def each(pool, one: Callable[[str], list[str]], files: list[str]) -> Iterable[str]:
    return [url for urls in pool.map(one, files) for url in urls]


BY_FILE: dict[str, tuple[str, Callable[[str], list[str]]]] = {
    "floor, threads": ("threads", floor),
    "floor, processes": ("processes", floor),
    "rs5m-build": ("processes", ours),
    "rs5m-build (RE2)": ("processes", ours_re2),
    "pyarrow RE2 loop": ("threads", with_pyarrow),
    "polars regex": ("none", with_polars),
    "pandas": ("none", with_pandas),
}


def main() -> None:
    engine, files = sys.argv[1], sys.argv[2:]
    if engine == "duckdb":
        import duckdb  # noqa: F401

        with_duckdb(files[:1])
        print(timed(lambda: with_duckdb(files)))
        return
    kind, one = BY_FILE[engine]
    if kind == "none":
        if engine == "pandas":
            import pandas as pd  # noqa: F401
        if engine != "pandas":
            one(files[0])
        print(timed(lambda: [url for file in files for url in one(file)]))
        return
    spawn = multiprocessing.get_context("spawn")
    made = ProcessPoolExecutor(WORKERS, mp_context=spawn) if kind == "processes" else ThreadPoolExecutor(WORKERS)
    with made as pool:
        list(pool.map(warm, [one] * (4 * WORKERS), files[:1] * (4 * WORKERS)))
        print(timed(lambda: each(pool, one, files)))


def warm(one: Callable[[str], list[str]], file: str) -> None:
    """Start a worker: its imports, its pattern and the first use of every library are no part of the rate."""
    one(file)
    time.sleep(0.2)


def timed(run: Callable[[], Iterable[str]]) -> str:
    start = time.perf_counter()
    urls = sorted(run())
    seconds = time.perf_counter() - start
    return json.dumps({"s": seconds, "hits": len(urls), "digest": hashlib.sha256("\n".join(urls).encode()).hexdigest()})


if __name__ == "__main__":
    main()

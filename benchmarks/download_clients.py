"""What benchmarks/download.py starts, each in a fresh process: python download_clients.py NAME '{"...": ...}'.

Prints one line of JSON. Imports stand in the functions: img2dataset runs in an environment that has none of ours.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

Asked = dict[str, Any]
SHARES = (("ok", 0.55), ("mute", 0.15), ("hang", 0.15), ("shut", 0.10), ("drip", 0.05))
"""Of 1,000 hosts: those that work, time out (no answer, no connection), refuse, and send a byte a second."""


class Meter:
    """Wall time and CPU time of this process and its children since it was made."""

    def __init__(self) -> None:
        self._cpu_s, self._begun = self._used_s(), time.perf_counter()

    @staticmethod
    def _used_s() -> float:
        kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))

    def read(self) -> dict[str, float]:
        return {"s": time.perf_counter() - self._begun, "cpu_s": self._used_s() - self._cpu_s}


def bare(asked: Asked) -> Asked:
    """The floor: read every body whole, look at nothing."""
    import aiohttp

    todo = iter(range(asked["images"]))
    found = 0

    async def main() -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

            async def work() -> None:
                nonlocal found
                for number in todo:
                    async with session.get(f"http://{asked['web']}/ok/{number}.jpg") as response:
                        found += len(await response.read())

            await asyncio.gather(*(work() for _ in range(asked["connections"])))

    meter = Meter()
    asyncio.run(main())
    return {**meter.read(), "bytes": found}


def step(asked: Asked) -> Asked:
    """The step as a worker does it: candidates out of their table; rows, ledger and tar into the store."""
    import polars as pl

    from manifests.recipe import Download, Network, Recipe
    from manifests.schemas import TABLES
    from manifests.store import Store
    from manifests.tables import empty_frame, read_table, write_table
    from pipeline.worker import InputFile, TaskSpec, run_task
    from stages.download.fetch import Fetch
    from stages.images import Place, read_images
    from stages.step import StoredFile

    folder, images, hosts = Path(asked["folder"]), asked["images"], asked["hosts"]
    Path(folder, "scratch").mkdir(parents=True)
    told: dict[str, list[Any]] = {
        "sample_id": [f"{number:032x}" for number in range(images)], "source": ["listed"] * images,
        "subset": ["pub11"] * images, "text": ["an aerial view"] * images, "matched": [["aerial view"]] * images,
        "url": [f"http://h{number % hosts:03d}.bench.test/ok/{number}.jpg" for number in range(images)],
    }  # fmt: skip
    schema = empty_frame(TABLES["candidates"]).schema
    frame = pl.DataFrame({n: pl.Series(n, told.get(n, [None] * images), dtype=d) for n, d in schema.items()})
    written = write_table(TABLES["candidates"], frame, folder / "candidates.parquet")
    stored = StoredFile("web-0000", "candidates.parquet", written.sha256, written.bytes, images)
    network = Network(
        connections=asked["connections"], per_host=asked["connections"], resolve={".bench.test": asked["web"]}
    )
    flat = Recipe(name="bench", download=Download(allow_private=True, network=network)).flat()
    settings = {key: flat[key] for key in (*Fetch.reads, *Fetch.asks)}
    given = [InputFile("filter.pool", "candidates", stored)]
    spec = TaskSpec(Fetch.name, "web-0000", settings, {}, True, given, scratch=str(folder / "scratch"))
    process, inside = Fetch.process, {"s": 0.0, "cpu_s": 0.0}

    def timed(*arguments: Any) -> Any:
        within = Meter()
        result = process(*arguments)
        inside.update(within.read())
        return result

    Fetch.process = timed  # type: ignore[method-assign, assignment]
    store, meter = Store(str(folder)), Meter()
    outcome = run_task(store, spec)
    whole = meter.read()
    receipt = next(output for output in outcome.outputs if output.name == "fetched")
    rows = read_table(TABLES["fetched"], folder / receipt.path, ["tar", "offset", "length", "sha256"]).to_dicts()
    sizes = [len(body) for _, body in read_images(store, [Place(**row) for row in rows])]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**inside, "whole": whole, "bytes": sum(sizes), "left": outcome.left, "peak_mib": peak}


def kinds_of(hosts: int) -> dict[str, str]:
    """Return the kind of every host; kinds are mixed over the names, the same way every time."""
    kinds = [kind for kind, share in SHARES for _ in range(round(hosts * share))]
    names = [f"h{number:04d}.bench.test" for number in range(len(kinds))]
    mixed = sorted(names, key=lambda name: hashlib.blake2b(name.encode(), digest_size=8).digest())
    return dict(sorted(zip(mixed, kinds, strict=True)))


def hosts(asked: Asked) -> Asked:
    """Many hosts, some of them ill: when the last image of a healthy one came, and when the call ended."""
    from stages.download.answers import TRANSIENT, Answer, Limits, Network
    from stages.download.client import fetch_all

    kinds = kinds_of(asked["hosts"])
    if asked["alone"]:
        kinds = {name: kind for name, kind in kinds.items() if kind == "ok"}
    urls = [
        f"http://{name}/{'drip' if kind == 'drip' else 'ok'}/{number * asked['per_host'] + nth}.jpg"
        for number, (name, kind) in enumerate(kinds.items())
        for nth in range(asked["per_host"])
    ]
    places = {"ok": asked["web"], "drip": asked["web"], **{kind: asked[kind] for kind in ("mute", "hang", "shut")}}
    network = Network(
        asked["connections"], 4, 2.0, 3.0, 6.0, 3, 1.0, {name: places[kind] for name, kind in kinds.items()}, "bench"
    )
    limits = Limits(26_214_400, frozenset({"jpeg"}), 5, allow_private=True)
    found: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    last_s = 0.0

    def deliver(answer: Answer) -> None:
        nonlocal last_s
        kind = kinds[answer.url.split("/")[2]]
        found[kind, str(answer.reason)] += 1
        if kind == "ok":
            last_s = time.perf_counter() - begun
        if (answer.reason is not None) if kind == "ok" else (answer.reason not in TRANSIENT):
            wrong.append(f"{kind}: {answer.url}: {answer.reason} ({answer.detail})")

    meter, begun = Meter(), time.perf_counter()
    asyncio.run(fetch_all(sorted(urls), limits, network, deliver))
    ended = meter.read()
    healthy = sum(count for (kind, _), count in found.items() if kind == "ok")
    if found.total() != len(urls):
        wrong.append(f"{found.total()} answers to {len(urls)} urls")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    counts = {f"{kind} {reason}": count for (kind, reason), count in sorted(found.items())}
    return {**ended, "last_s": last_s, "healthy": healthy, "peak_mib": peak, "counts": counts, "wrong": wrong[:5]}


def img2dataset(asked: Asked) -> Asked:
    """The peer, 64 threads in each of 2 processes; ``raw``: it keeps the bytes as they came and decodes nothing."""
    import pandas
    from img2dataset import download

    out = Path(asked["folder"], "img2dataset")
    out.mkdir(parents=True)
    urls = [f"http://{asked['web']}/ok/{number}.jpg" for number in range(asked["images"])]
    pandas.DataFrame({"url": urls, "caption": ["an aerial view"] * len(urls)}).to_parquet(f"{out}.parquet")
    meter = Meter()
    download(
        url_list=f"{out}.parquet", input_format="parquet", url_col="url", caption_col="caption", output_folder=str(out),
        output_format="webdataset", resize_mode="no", disable_all_reencoding=asked["raw"], processes_count=2,
        thread_count=64, number_sample_per_shard=1000, enable_wandb=False, retries=0, timeout=10,
    )  # fmt: skip
    whole = meter.read()
    stats = [json.loads(path.read_text()) for path in out.glob("*_stats.json")]
    active_s = max(one["end_time"] for one in stats) - min(one["start_time"] for one in stats)
    return {**whole, "active_s": active_s, "images": sum(one["successes"] for one in stats)}


if __name__ == "__main__":
    chosen = {call.__name__: call for call in (bare, step, hosts, img2dataset)}[sys.argv[1]]
    print(json.dumps(chosen(json.loads(sys.argv[2]))))

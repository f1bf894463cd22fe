"""Measures what the steps take, and writes it into pipeline/price/rates.toml: the table that prices are made of.

    python benchmarks/rates.py [--rows 200000] [--only PART] [--dry-run]

Real steps, one worker, CPU seconds of the task itself. The table is written after each part:

nano, mini the recipe is built twice, cut into few partitions and into many. What a task takes is fitted as
           start + rate * rows, and what it stores as bytes a file + bytes a row.
synthetic  steps that look at many rows run at a quarter of --rows and at --rows, each in a process of its own, over
           tables of `bench_memory.py` and Parquet of `laion_like.py`: seconds, stored bytes and peak memory a row.
processes  memory of a worker without rows, and the CPU seconds until it can work; hashing and writing of bytes.

Figures that no benchmark can measure here (GPUs, weights of the paper's size, the web) are left as the table has them:
their provenance says that they are assumed, and from what. Every figure measured here is marked with this run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import resource
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from bench_memory import make
from laion_like import write_laion, write_laion_coco

from manifests.recipe import Settings
from manifests.recipe_files import load_recipe
from manifests.schemas import LEDGER, TABLES
from manifests.store import Store
from manifests.tables import empty_frame, write_table
from pipeline.build import Options, build
from pipeline.line import LINE, step_named
from pipeline.price.rates import TABLE
from pipeline.workdir import open_workdir
from pipeline.worker import InputFile, _Prior, _Tables, table_of
from pipeline.worlds import ensure_world
from stages.step import StoredFile, Task

BY = "rates"
SYNTHETIC = ("filter.pool", "dedup.cluster", "outlier.cut", "geo.locate", "shard.plan", "shard.index")
IMAGES = ("download.fetch", "dedup.inspect", "outlier.embed", "caption.generate", "shard.pack")
FEW = ("filter.buckets=2",)
# Archives are left out: what captions take is seen well enough once.
MANY = ("filter.buckets=24", *(f"sources.{name}.enabled=false" for name in ("fmow", "ben", "millionaid")))
HEAD = f"""# What the steps take: read by `pipeline/price/rates.py`, which says what each figure is. Every figure is
# [value, provenance]. Those of provenance "{BY}" are written by `python benchmarks/rates.py`; the others by hand.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["processes", "synthetic", "filter", "nano", "mini"])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dry-run", action="store_true", help="print the table, write nothing")
    parser.add_argument("--inner", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inner:
        inner(*args.inner)
        return
    parts = {
        "processes": processes,
        "synthetic": lambda folder: synthetic(folder, args.rows),
        "filter": lambda folder: filtered(folder, args.rows),
        "nano": lambda folder: builds(folder, "nano", set()),
        "mini": lambda folder: builds(folder, "mini", owned_elsewhere()),
    }
    for part in [args.only] if args.only else parts:
        with tempfile.TemporaryDirectory(prefix="bench-rates-") as name:
            figures = parts[part](Path(name))
        table = updated(tomllib.loads(TABLE.read_text(encoding="utf-8")), figures)
        if args.dry_run:
            print(json.dumps(figures, indent=1))
        else:
            TABLE.write_text(HEAD + "".join(dumped(kind, body) for kind, body in table.items()), encoding="utf-8")


def owned_elsewhere() -> set[str]:
    """Return the figures that another part measures better than a build of some hundred rows."""
    named = ("cpu_s_per_row", "memory_bytes_per_row", "memory_bytes", "row_bytes")
    owned = {f"steps.{step}.{name}" for step in SYNTHETIC for name in named}
    owned |= {f"steps.{step.name}.ledger_row_bytes" for step in LINE}
    owned |= {f"steps.filter.match.{name}" for name in ("row_bytes", "memory_bytes")}
    return owned | {"steps.download.fetch.cpu_s_per_mb", "steps.shard.pack.cpu_s_per_mb"}


def inner(what: str, *rest: str) -> None:
    """Do one measurement in this process and print it as JSON."""
    done = {"step": one_step, "build": one_build, "bytes": bytes_rate}[what](*rest)
    done["peak_bytes"] = peak_bytes()
    print(json.dumps(done))


def measured(*arguments: str) -> dict[str, Any]:
    print("measuring", *arguments[:3], flush=True)
    command = [sys.executable, __file__, "--inner", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def cpu_s() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def peak_bytes() -> int:
    """Return this process's peak memory; ru_maxrss would count what the parent held when it started this one."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))


# processes


def processes(folder: Path) -> dict[str, float]:
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import pipeline.executors.processes, pipeline.line"], check=True)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    start_s = ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime
    hashed = measured("bytes", str(folder))["cpu_s_per_mb"]
    # Both hash the bodies and the tar that holds them, and write it.
    return {"run.worker_start_s": start_s, "steps.download.fetch.cpu_s_per_mb": hashed} | {
        "steps.shard.pack.cpu_s_per_mb": hashed
    }


def bytes_rate(folder: str) -> dict[str, Any]:
    """CPU seconds of a million bytes that are hashed twice, written and read."""
    body, begun = np.random.default_rng(0).bytes(128 << 20), cpu_s()
    hashlib.sha256(body).hexdigest()
    hashlib.sha256(body).hexdigest()
    file = Path(folder, "bytes")
    file.write_bytes(body)
    file.read_bytes()
    return {"cpu_s_per_mb": (cpu_s() - begun) / (len(body) / 1e6)}


# synthetic


def synthetic(folder: Path, rows: int) -> dict[str, float]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SYNTHETIC}
    for size in (rows // 4, rows):
        place = folder / f"rows-{size}"
        place.mkdir()
        make(place, size)
        more(place)
        for name in SYNTHETIC:
            found[name].append({"rows": size, **measured("step", name, str(place))})
    figures: dict[str, float] = {}
    for name, (small, large) in found.items():
        between = large["rows"] - small["rows"]
        slopes = {key: max(0.0, (large[key] - small[key]) / between) for key in ("cpu_s", "peak_bytes")}
        stored = max(0, large["bytes"] - large["empty_bytes"]) / max(1, large["kept"])
        figures |= {
            f"steps.{name}.cpu_s_per_row": slopes["cpu_s"],
            f"steps.{name}.memory_bytes_per_row": slopes["peak_bytes"],
            f"steps.{name}.memory_bytes": max(0.0, small["peak_bytes"] - small["rows"] * slopes["peak_bytes"]),
            f"steps.{name}.row_bytes": stored,
        }
        if name == "outlier.cut":
            figures |= {f"steps.{step.name}.ledger_row_bytes": large["ledger_bytes"] / large["left"] for step in LINE}
    # `bench_memory.py 1e7 dedup.cluster` measures these at the size that counts; they are written by hand.
    for key in ("cpu_s_per_row", "memory_bytes_per_row", "memory_bytes"):
        del figures[f"steps.dedup.cluster.{key}"]
    return figures


def more(folder: Path) -> None:
    """Give rows ids and digests as random as real ones, and write the tables that bench_memory leaves out."""
    draw = np.random.default_rng(1)
    for file in sorted(folder.glob("*.parquet")):
        rows, table = pl.read_parquet(file), file.stem.split("-")[0]
        for name, size in (("sample_id", 16), ("split_group", 16), ("sha256", 32)):
            if name in rows.columns:
                drawn = [hashlib.blake2b(v.encode(), digest_size=size).hexdigest() for v in rows[name]]
                rows = rows.with_columns(pl.Series(name, drawn))
        write_table(TABLES[table], rows.sort("sample_id"), file)
    for file in sorted(folder.glob("candidates-*.parquet")):
        rows, number = pl.read_parquet(file), file.stem.split("-")[1]
        matched = rows.with_columns(locator=pl.format("0123456789ab:{}", pl.int_range(pl.len())))
        scores = rows.select("sample_id", sha256=pl.col("sample_id") + pl.col("sample_id")).with_columns(
            vlm=pl.Series(draw.random(rows.height).round(4), dtype=pl.Float32),
            detector=pl.Series(draw.random(rows.height).round(4), dtype=pl.Float32),
        )
        for table, frame in (("matched", matched), ("scores", scores)):
            names = empty_frame(TABLES[table]).columns
            write_table(TABLES[table], frame.select(names), folder / f"{table}-{number}.parquet")


def one_step(name: str, place: str) -> dict[str, Any]:
    """Run a step over the tables of a folder."""
    step, folder = step_named(name), Path(place)
    inputs = []
    for given in step.inputs:
        table = step_named(given.step).schemas.get(given.table, given.table)
        files = [] if given.lane == "rs3" else sorted(folder.glob(f"{table}-*.parquet"))
        for file in files:
            stored = StoredFile(f"web-{int(file.stem.rpartition('-')[2]):04d}", file.name, "", 0, 0)
            inputs.append(InputFile(given.step, given.table, stored))
    if name == "shard.index":
        tars = [f"pub11-{split}-{n:04d}" for split in ("train", "val") for n in range(32)]
        inputs += [InputFile("shard.pack", "tar", StoredFile(tar, f"{tar}.tar", "0" * 64, 0, 0)) for tar in tars]
    flat, store = load_recipe("rs5m", ['geo.ner=["gazetteer"]']).flat(), Store(place)
    settings = Settings({key: flat[key] for key in (*step.reads, *step.asks)})
    scratch = Path(tempfile.mkdtemp(dir=place))
    task = Task(name, "all", settings, {}, True, scratch)
    begun = cpu_s()
    result = step.process(task, _Tables(store, inputs), _Prior(store, step, "all", []))
    kept = [output for output in result.outputs if output.frame is not None]
    sizes = [write_table(table_of(step, output.name), output.frame, scratch / "out").bytes for output in kept]
    sizes += [output.file.stat().st_size for output in result.outputs if output.file]
    ledger = write_table(LEDGER, result.ledger, scratch / "ledger").bytes
    took = cpu_s() - begun
    if name == "shard.plan":
        planned = next(output.frame for output in kept if output.name == "samples")
        write_table(TABLES["samples"], planned, folder / "samples-0.parquet")
        packed = planned.select("sample_id", "tar", offset=0, length=0, released_sha256="sha256")
        write_table(TABLES["packed"], packed, folder / "packed-0.parquet")
    return {
        "cpu_s": took,
        "bytes": sum(sizes),
        "empty_bytes": 2500 * len(sizes),
        "kept": sum(result.kept.values()),
        "left": result.ledger.height,
        "ledger_bytes": ledger,
    }


# the filter


def filtered(folder: Path, rows: int) -> dict[str, float]:
    """Measure filter.match over Parquet in the layouts of LAION2B and LAION-COCO."""
    figures: dict[str, float] = {}
    for key, name, write, size in (
        ("parquet", "laion2b", write_laion, 20 * rows),
        ("laioncoco", "laioncoco", write_laion_coco, 2 * rows),
    ):
        for number, part in enumerate((size // 8, size)):
            write(folder / f"{name}-{number}.parquet", number, part, 0.0009, "snappy")
        recipe = folder / f"{name}.toml"
        files = f'metadata = ["{folder}/{name}-*.parquet"]'
        recipe.write_text(f'[recipe]\nname = "bench"\n[sources.{name}]\n{files}\n')
        done = measured("build", str(recipe), str(folder / f"work-{name}"), "filter.match")
        tasks = done["tasks"]["filter.match"]
        _, figures[f"metadata.{key}.cpu_s_per_row"] = line([t["rows"] for t in tasks], [t["cpu_s"] for t in tasks])
        if key == "parquet":
            _, row_bytes = line([t["kept"] for t in tasks], [t["bytes"] for t in tasks])
            figures |= {
                "steps.filter.match.row_bytes": row_bytes,
                "steps.filter.pool.row_bytes": row_bytes,  # the same table, but for one column
                "steps.filter.match.memory_bytes": done["peak_bytes"],
            }
    return figures


# builds


def builds(folder: Path, recipe: str, known: set[str]) -> dict[str, float]:
    """Build a recipe cut into few partitions and into many, and fit what a task takes and stores."""
    runs = []
    for name, stage, cut in (("few", "each", FEW), ("many", "", MANY)):
        runs.append(measured("build", recipe, str(folder / f"{recipe}-{name}"), stage, *cut))
    figures: dict[str, float] = {}
    image_bytes = runs[0]["image_bytes"]
    for step, share in runs[0]["shares"].items():
        figures[f"worlds.{recipe}.{step}"] = share
    figures[f"worlds.{recipe}.image_bytes"] = image_bytes
    if recipe == "nano":
        return figures | model_rates("nano", runs, 0.0, image_bytes)
    figures["run.driver_s_per_partition"] = runs[1]["driver_s"] / runs[1]["partitions"]
    for step in LINE:
        tasks = [task for run in runs for task in run["tasks"].get(step.name, [])]
        figures |= {key: value for key, value in of_step(step.name, tasks, image_bytes).items() if key not in known}
        # By then torch is loaded, which these two have no use for.
        alike = "download.fetch" if step.name in ("caption.choose", "shard.pack") else step.name
        if f"steps.{step.name}.memory_bytes" not in known:
            figures[f"steps.{step.name}.memory_bytes"] = runs[0]["peaks"][alike]
    # A reduce step is one task a build: its files without rows are as large as those of map steps.
    file_bytes = np.mean([figures[f"steps.{step.name}.file_bytes"] for step in LINE if step.kind == "map"])
    figures |= {f"steps.{step.name}.file_bytes": float(file_bytes) for step in LINE if step.kind == "reduce"}
    embedding = tomllib.loads(TABLE.read_text(encoding="utf-8"))["models"]["mini"]["embedding_bytes"][0]
    place = "steps.outlier.embed.row_bytes"
    figures[place] = max(0.0, figures[place] - embedding)
    decoding = figures["steps.dedup.inspect.cpu_s_per_mb"]
    figures["web.tar_row_bytes"] = runs[0]["tar_row_bytes"]
    return figures | model_rates("mini", runs, decoding, image_bytes)


def of_step(name: str, tasks: list[dict[str, Any]], image_bytes: float) -> dict[str, float]:
    start_s, per_row = line([t["rows"] for t in tasks], [t["cpu_s"] for t in tasks])
    file_bytes, row_bytes = line([t["kept"] for t in tasks], [t["bytes"] - t["image_bytes"] for t in tasks])
    files = np.mean([t["files"] for t in tasks])
    parts = np.mean([t["parts"] for t in tasks])
    found = {
        "cpu_s_per_row": per_row,
        "cpu_s_per_mb": 0.0,
        "row_bytes": row_bytes,
        "file_bytes": file_bytes / (files + parts),
        "files_per_task": files,
        "files_per_part": 1.0 if parts else 0.0,
        "memory_bytes_per_row": 0.0,
        "start_s": min(start_s, *(t["cpu_s"] for t in tasks)),  # whoever came first loaded the model
    }
    if name in ("dedup.inspect", "outlier.embed", "caption.generate"):  # what decoding takes goes by bytes
        found["cpu_s_per_mb"] = per_row / image_bytes * 1e6
        found["cpu_s_per_row"] = 0.0
    elif name == "filter.match":  # what rows take goes by their format
        found["cpu_s_per_row"] = 0.0
    elif name in IMAGES:
        rates = tomllib.loads(TABLE.read_text(encoding="utf-8"))["steps"][name]
        hashed = rates["cpu_s_per_mb"][0] * image_bytes / 1e6
        found["cpu_s_per_row"] = max(0.0, per_row - hashed)
    return {f"steps.{name}.{key}": float(value) for key, value in found.items()}


def model_rates(name: str, runs: list[dict[str, Any]], decoding: float, image_bytes: float) -> dict[str, float]:
    """Return what the models of a staged recipe take, less decoding: an encoder, and the captioner that composes."""
    rates = {}
    for step in ("outlier.embed", "caption.generate"):
        tasks = [task for run in runs for task in run["tasks"][step]]
        rates[step] = line([t["rows"] for t in tasks], [t["cpu_s"] for t in tasks])[1] - decoding * image_bytes / 1e6
    encoder = max(0.0, rates["outlier.embed"])
    found = {f"models.{name}.cpu_s_per_image": encoder, "steps.outlier.embed.cpu_s_per_mb": decoding}
    if name == "mini":
        found["steps.caption.generate.cpu_s_per_mb"] = decoding
        found["models.compose.cpu_s_per_image"] = max(0.0, rates["caption.generate"] - 14 * encoder)
    return found


def one_build(recipe: str, workdir: str, stage: str, *overrides: str) -> dict[str, Any]:
    """Build in this process with one worker; return what every task took, kept and stored."""
    settings = load_recipe(recipe, ["run.executor=local", "run.workers=1", *overrides])
    store = Store(workdir)
    tasks: dict[str, list[dict[str, Any]]] = {step.name: [] for step in LINE}
    peaks = {}
    open_workdir(store, settings.name, create=True)
    ensure_world(settings, store, lambda _: None)
    for name in [step.name for step in LINE] if stage == "each" else [stage]:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
        ended = build(settings, store, Options(stage=name), lambda _: None)
        assert ended.exit_code == 0, ended
        peaks[name] = peak_bytes()
    events = sorted(Path(workdir, "runs").glob("*/events.jsonl"))
    told = [json.loads(line) for file in events for line in file.read_text().splitlines()]
    for event in told:
        if event["event"] == "partition_done":
            tasks[event["step"]].append(of_task(event, workdir))
    fetched = [task for task in tasks.get("download.fetch", []) if task["images"]]
    packed = tasks.get("shard.pack", [])
    return {
        "tasks": tasks,
        "peaks": peaks,
        "driver_s": sum(task["commit_s"] for steps in tasks.values() for task in steps),
        "partitions": sum(len(steps) for steps in tasks.values()),
        "image_bytes": sum(t["image_bytes"] for t in fetched) / max(1, sum(t["images"] for t in fetched)),
        "tar_row_bytes": tar_overhead(workdir, packed) if packed else 0.0,
        "shares": shares(workdir),
    }


def of_task(event: dict[str, Any], workdir: str) -> dict[str, Any]:
    step, partition = event["step"], event["partition"]
    files = sorted(Path(workdir, "commits", step).glob(f"{partition}@*.json"))
    manifest = json.loads(files[-1].read_bytes())
    outputs = manifest["outputs"]
    tars = [o for o in outputs if o["name"] in ("images", "tar")]
    parts = [o for o in outputs if o["partition"]]
    size = sum(o["bytes"] for o in outputs) + manifest["ledger"]["bytes"] + files[-1].stat().st_size
    return {
        "rows": sum(counts["in"] for counts in event["rows"].values()),
        "kept": sum(counts["kept"] for counts in event["rows"].values()),
        "cpu_s": event["cpu_s"],
        "bytes": size,
        "image_bytes": sum(o["bytes"] for o in tars),
        "images": sum(o["rows"] for o in tars),
        "commit_s": event["commit_s"],
        "files": len(outputs) - len(parts) + 2,
        "parts": len(parts),
    }


def tar_overhead(workdir: str, packed: list[dict[str, Any]]) -> float:
    """Bytes of released tars beyond those of the pictures, a picture."""
    index = pl.read_parquet(Path(workdir, "release/metafile/samples.parquet")).height
    bodies = sum(pl.read_parquet(f)["length"].sum() for f in Path(workdir, "data/shard.pack").rglob("packed-*.parquet"))
    return (sum(task["image_bytes"] for task in packed) - bodies) / max(1, index)


def shares(workdir: str) -> dict[str, float]:
    """The share of the web's rows that each step of a settled build kept."""
    found = {}
    for step in ("filter.match", "download.fetch", "dedup.inspect", "dedup.cluster", "outlier.cut"):
        seen = kept = 0
        newest = {f.name.split("@")[0]: f for f in sorted(Path(workdir, "commits", step).glob("*.json"))}
        for file in newest.values():
            for source, counts in json.loads(file.read_bytes())["rows"].items():
                if source not in ("fmow", "ben", "millionaid"):
                    seen, kept = seen + counts["in"], kept + counts["kept"]
        found[step] = kept / max(1, seen)
    return found


def line(x: Iterable[float], y: Iterable[float]) -> tuple[float, float]:
    """Fit y = start + slope * x, neither below 0."""
    x, y = np.array(list(x), float), np.array(list(y), float)
    if len(x) < 2 or np.ptp(x) == 0:
        return 0.0, float(y.sum() / max(1.0, x.sum()))
    slope, start = np.polyfit(x, y, 1)
    if slope < 0:
        return float(y.mean()), 0.0
    return (float(start), float(slope)) if start >= 0 else (0.0, float(y.sum() / max(1.0, x.sum())))


# the table


def updated(table: dict[str, Any], figures: dict[str, float]) -> dict[str, Any]:
    table["by"][BY] = {
        "kind": "measured",
        "how": "python benchmarks/rates.py",
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    for place, value in figures.items():
        kind, _, rest = place.partition(".")
        if kind in ("web", "run"):
            table[kind][rest] = [value, BY]
        elif kind == "worlds":
            world, _, key = rest.partition(".")
            table[kind].setdefault(world, {})[key] = [value, BY]
        else:
            name, _, key = rest.rpartition(".")
            table[kind].setdefault(name, {})[key] = [value, BY]
    return table


def machine() -> str:
    model = next((li.split(": ")[1] for li in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in li), "")
    memory = round(int(Path("/proc/meminfo").read_text().split()[1]) / 1e6)
    cores = len([li for li in Path("/proc/cpuinfo").read_text().splitlines() if li.startswith("processor")])
    return f"{cores} cores of {model or platform.machine()}, {memory} GB, shared with other work"


def dumped(kind: str, body: dict[str, Any]) -> str:
    if kind in ("web", "run"):
        return f"[{kind}]\n{lines(body)}\n"
    return "".join(f"[{kind}.{json.dumps(name)}]\n{lines(rows)}\n" for name, rows in body.items())


def lines(rows: dict[str, Any]) -> str:
    return "".join(f"{key if '.' not in key else json.dumps(key)} = {shown(value)}\n" for key, value in rows.items())


def shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{value[0]:.4g}, {json.dumps(value[1])}]"
    return json.dumps(value)


if __name__ == "__main__":
    main()

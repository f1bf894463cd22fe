"""Speed of the filter stage beside what bounds it and beside its peers, in one run.

    python benchmarks/filter.py [--rows 5000000] [--command-rows 40000000] [--rounds 3] [--only kernel|command]

kernel: from Parquet files to the rows kept, 2 workers. LAION-like rows at the keyword rates of LAION2B-en (0.09 %) and
LAION-COCO (0.45 %), snappy and zstd, and a file in LAION-COCO's layout. The floor is pyarrow decoding url and matched
text and doing nothing with them, two threads or two processes, whichever is faster. Engines take turns in every round;
all must keep the same rows. pandas runs over the first file alone.

command: `rs5m-build run --stage filter` over eight files, ledger, manifests and candidates included. What the same
command takes over eight tiny files is taken off as start-up. Beside it: peak memory of the largest worker, and a run
again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from laion_like import FILE_ROWS, write_laion, write_laion_coco

KERNEL_FLOOR, KERNEL_WANTED, COMMAND_FLOOR, WORKER_MIB = 0.80, 0.85, 0.70, 1024
ENGINES = (
    "floor, threads",
    "floor, processes",
    "rs5m-build",
    "rs5m-build (RE2)",
    "pyarrow RE2 loop",
    "duckdb",
    "polars regex",
    "pandas",
)
RECIPE = '[recipe]\nname = "bench"\n[sources.laion2b]\nmetadata = ["{glob}"]\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--command-rows", type=int, default=40_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["kernel", "command"])
    args = parser.parse_args()
    short = []
    with tempfile.TemporaryDirectory(prefix="bench-filter-") as name:
        folder = Path(name)
        if args.only != "command":
            short += kernel(folder, args.rows, args.rounds)
        if args.only != "kernel":
            short += command(folder, args.command_rows, args.rounds)
    for line in short:
        print(f"SHORT: {line}")
    sys.exit(bool(short))


def kernel(folder: Path, rows: int, rounds: int) -> list[str]:
    """Measure all engines over all sets of files; return what fell short."""
    sets = [
        (f"LAION-like, {rate:.2%} hits, {codec}", write_laion, rate, codec, rows)
        for rate in (0.0009, 0.0045)
        for codec in ("snappy", "zstd")
    ]
    sets.append(("LAION-COCO-like, 0.45% hits, snappy", write_laion_coco, 0.0045, "snappy", rows // 5))
    short = []
    for title, write, rate, codec, size in sets:
        files = [folder / f"kernel-{number}.parquet" for number in range(max(2, size // FILE_ROWS))]
        for number, file in enumerate(files):
            write(file, number, size // len(files), rate, codec)
        ratio = measured(title, [str(file) for file in files], size, rounds)
        if ratio < KERNEL_FLOOR:
            short.append(f"kernel, {title}: {ratio:.2f} of the floor, {KERNEL_FLOOR} asked, {KERNEL_WANTED} wanted")
        for file in files:
            file.unlink()
    return short


def measured(title: str, files: list[str], rows: int, rounds: int) -> float:
    """Print the table of one set of files; return our share of the floor."""
    lists = "COCO" in title
    names = [name for name in ENGINES if not (lists and name in ("pyarrow RE2 loop", "pandas"))]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            runs[name].append(engine(name, files[:1] if name == "pandas" else files))
    rates = {}
    for name, done in runs.items():
        size = rows / len(files) if name == "pandas" else rows
        rates[name] = [size / one["s"] / 1e6 for one in done]
    floor = max(("floor, threads", "floor, processes"), key=lambda name: statistics.median(rates[name]))
    found = {
        (one["hits"], one["digest"]) for name in names if "floor" not in name and name != "pandas" for one in runs[name]
    }
    assert len(found) == 1, f"the engines keep different rows: {found}"
    print(f"\n{title}: {rows:,} rows, {next(iter(found))[0]:,} kept by every engine, {rounds} rounds")
    print(f"{'engine':22}{'M rows/s min/median/max':>28}{'share of the floor':>22}")
    for name in names:
        # Round by round, so that a machine that slows down slows both.
        shares = [ours / base for ours, base in zip(rates[name], rates[floor], strict=True)]
        low, middle, high = min(rates[name]), statistics.median(rates[name]), max(rates[name])
        print(f"{name:22}{f'{low:.2f} / {middle:.2f} / {high:.2f}':>28}{statistics.median(shares):>22.2f}", flush=True)
    return statistics.median(ours / base for ours, base in zip(rates["rs5m-build"], rates[floor], strict=True))


def engine(name: str, files: list[str]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("filter_engines.py")), name, *files],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{name}: {done.stderr.strip()[-800:]}")
    return json.loads(done.stdout.splitlines()[-1])


def command(folder: Path, rows: int, rounds: int) -> list[str]:
    """Measure the whole command beside the floor over the same files; return what fell short."""
    for name, size in (("tiny", 8_000), ("large", rows)):
        (folder / name).mkdir()
        for number in range(8):
            write_laion(folder / name / f"{number}.parquet", 100 + number, size // 8, 0.0009, "snappy")
    files = [str(folder / "large" / f"{number}.parquet") for number in range(8)]
    shares, took, peaks, again = [], [], [], 0.0
    for number in range(rounds):
        floor_s = min(engine("floor, threads", files)["s"], engine("floor, processes", files)["s"])
        start_s, _ = run(folder, "tiny", number)
        whole_s, peak_mib = run(folder, "large", number)
        again, _ = run(folder, "large", number)
        took.append(whole_s - start_s)
        shares.append(floor_s / took[-1])
        peaks.append(peak_mib)
        less = f"command {whole_s:.1f} s less start-up {start_s:.1f} s"
        print(f"round {number + 1}: floor {floor_s:.1f} s, {less}, share {shares[-1]:.2f}", flush=True)
    share, seconds = statistics.median(shares), statistics.median(took)
    print(f"\nrs5m-build run --stage filter: {rows:,} rows in {seconds:.1f} s on 2 cores, {share:.2f} of the floor")
    print(f"{rows / seconds / 1e6:.2f} M rows/s, {rows / seconds / 2e6:.2f} a core")
    print(f"peak of the largest worker {max(peaks):.0f} MiB; again, nothing to do: {again:.1f} s with start-up")
    short = [] if share >= COMMAND_FLOOR else [f"command: {share:.2f} of the floor, {COMMAND_FLOOR} asked"]
    return short + ([] if max(peaks) < WORKER_MIB else [f"a worker took {max(peaks):.0f} MiB, {WORKER_MIB} allowed"])


def run(folder: Path, name: str, number: int) -> tuple[float, float]:
    """Run the stage; return seconds and the peak MiB of its largest process but the command itself."""
    recipe = folder / f"{name}.toml"
    recipe.write_text(RECIPE.format(glob=folder / name / "*.parquet"))
    arguments = [
        "run",
        "--recipe",
        str(recipe),
        "--workdir",
        str(folder / f"work-{name}-{number}"),
        "--stage",
        "filter",
    ]
    start = time.perf_counter()
    with subprocess.Popen(
        [str(Path(sys.executable).with_name("rs5m-build")), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as started:
        watch = PeakMemory(started.pid)
        out, _ = started.communicate()
        seconds = time.perf_counter() - start
        peak = watch.stop()
    if started.returncode:
        sys.exit(out.decode()[-2000:])
    return seconds, peak


class PeakMemory:
    """Watches the resident memory of a process's descendants."""

    def __init__(self, pid: int) -> None:
        self._pid, self._peak_kib, self._over = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> float:
        """Return the peak of the largest that ran Python, MiB."""
        self._over.set()
        self._thread.join()
        return self._peak_kib / 1024

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            for pid in descendants(self._pid):
                self._peak_kib = max(self._peak_kib, peak_kib(pid))


def descendants(pid: int) -> list[int]:
    """Return the process ids below a process."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            below = [int(child) for child in children.read_text().split()]
        except OSError:  # it has just ended
            continue
        found += [one for child in below for one in (child, *descendants(child))]
    return found


def peak_kib(pid: int) -> int:
    """Return a process's highest resident memory, 0 for one that has ended or is no Python."""
    try:
        if (
            b"python" not in Path(f"/proc/{pid}/cmdline").read_bytes()
            and b"ray::" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        ):
            return 0
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


if __name__ == "__main__":
    main()

"""Images a second on one core: our hash and our whole inspection beside imagehash.phash on a full decode, in one run.

    python benchmarks/hash.py [--images N] [--rounds N] [--no-peer] [--peer-python PYTHON]

Sets: real overhead tiles of 150 px (AID), real photographs of about 256 px and of about 1,000 px, all from the folder
that RS5M_TEST_DATA names, and generated JPEGs of 256 to 640 px. Without RS5M_TEST_DATA only the generated ones.

Ways, in turn over each set in every round, so that a busy machine hurts them alike: imagehash.phash on Pillow's full
decode (1.00); "kernel": decode and one hash, exact (equal to imagehash's bit for bit) and fast (`dedup.hash`);
"inspect": all that dedup.inspect does with a body (decode to the end, sha256, hashes of all eight rotations and flips,
thumbnail, EXIF), in this process, and guarded, as it runs for real: decoded in a process of its own while this one
computes digests; and imagededup's PHash, from files, in an environment of its own below build/.

Images a second of a core are images by CPU seconds, of both processes together where there are two: what counts where
every core has a worker, and little moved by what else the machine does. Ratios are the medians of the rounds' ratios.
"together" is the time of one image of each set. What guarding costs or gains by the clock is said beside.

Then how the fast hash differs from the exact one. What falls short is said; nothing depends on the exit code.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stages.decode import decode
from stages.dedup.guarded import Guarded
from stages.dedup.one_image import inspected
from stages.phash import phash

ROOT = Path(__file__).resolve().parents[1]
MAX_PIXELS = 100_000_000
PEER = ("imagededup==0.3.3.post2", "torch==2.13.0", "torchvision==0.28.0")
PEER_LIMIT_S = 1200
BASE = "Pillow + imagehash.phash"
GUARDED = "inspect, fast, guarded"
WANTED = {"kernel, fast": 2.2, "inspect, fast": 1.7, GUARDED: 1.7}
REAL = {
    "AID tiles": ("rs-pairs/*/*.jpg", 300),
    "photographs": ("photos/*.[jJ]*", 200),
    "large photographs": ("cc-photos/*.jpg", 18),
}
# One line in: a set. One line out: CPU seconds for hashing its files.
PEER_CLIENT = """
import json, sys, time
from pathlib import Path
from stages import torchvision_shim
torchvision_shim.declare()
from imagededup.methods import PHash
hasher = PHash(verbose=False)
sets = {name: sorted(Path(folder).iterdir()) for name, folder in json.loads(sys.argv[1]).items()}
print("ready", flush=True)
for line in sys.stdin:
    begun = time.process_time()
    for path in sets[line.strip()]:
        hasher.encode_image(image_file=path)
    print(time.process_time() - begun, flush=True)
"""
# The child of `stages.dedup.guarded`, which says as well how much CPU time it has used.
CHILD = """
import time
from stages.dedup.guarded_child import serve
from stages.dedup.one_image import inspected
def look(body, kind, max_pixels):
    if body == b"cpu?":
        return {"reason": "cpu", "detail": repr(time.process_time())}
    return inspected(body, kind, max_pixels)
serve(look)
"""
Sets = dict[str, list[bytes]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300, help="at most, of a set")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peer", action="store_true", help="leave imagededup out")
    parser.add_argument("--peer-python", help=f"of an environment with {PEER[0]}; default: one is made below build/")
    asked = parser.parse_args()
    sets = real_sets(asked.images) | {"generated": [photo_like(number) for number in range(min(asked.images, 150))]}
    python = None if asked.no_peer else peer_python(asked.peer_python)
    seconds: dict[str, dict[str, list[float]]] = {name: {} for name in sets}
    clock: dict[str, list[float]] = {}
    with Guarded(command=[sys.executable, "-P", "-c", CHILD]) as guarded, peer(python, sets) as dedup:
        cpu_apart_s(guarded)  # its start is not measured
        for _ in range(asked.rounds):
            for name, bodies in sets.items():
                by_clock = {}
                for way, work in ways(guarded, dedup, name).items():
                    begun = time.perf_counter()
                    seconds[name].setdefault(way, []).append(work(bodies) / len(bodies))
                    by_clock[way] = time.perf_counter() - begun
                for kind in ("exact", "fast"):
                    alone, apart = f"inspect, {kind}", f"inspect, {kind}, guarded"
                    clock.setdefault(f"{name}, {kind}", []).append(by_clock[alone] / by_clock[apart])
    for name, bodies in sets.items():
        side = statistics.median(min(Image.open(io.BytesIO(body)).size) for body in bodies)
        kb = statistics.mean(map(len, bodies)) / 1000
        show(f"{name}: {len(bodies)} JPEGs of {kb:.0f} kB, shorter side {side:.0f} px", seconds[name])
    show("together", {way: together(way, seconds) for way in seconds["generated"]})
    print("\nguarded / in process by the clock:")
    for name, ratios in clock.items():
        print(f"  {name:30}x{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    agreement(sets)


# -- the ways ----------------------------------------------------------------------------------------------------


def ways(guarded: Guarded, dedup: Callable[[str], float] | None, name: str) -> dict[str, Callable]:
    """Each goes over all bodies and returns the CPU seconds that took."""
    each = {
        BASE: theirs,
        "kernel, exact": lambda body: phash(decode(body, MAX_PIXELS).luma32),
        "kernel, fast": lambda body: phash(decode(body, MAX_PIXELS, fast=True).luma32),
        "inspect, exact": lambda body: (hashlib.sha256(body).digest(), inspected(body, "exact", MAX_PIXELS)),
        "inspect, fast": lambda body: (hashlib.sha256(body).digest(), inspected(body, "fast", MAX_PIXELS)),
    }
    found: dict[str, Callable] = {way: partial(over, work) for way, work in each.items()}
    for kind in ("exact", "fast"):
        found[f"inspect, {kind}, guarded"] = partial(through, guarded, kind)
    if dedup:
        found["imagededup PHash, from files"] = lambda bodies: dedup(name) if bodies else 0.0
    return found


def theirs(body: bytes) -> int:
    with Image.open(io.BytesIO(body)) as image:
        return int(str(imagehash.phash(image)), 16)


def over(work: Callable[[bytes], object], bodies: list[bytes]) -> float:
    begun = time.process_time()
    for body in bodies:
        work(body)
    return time.process_time() - begun


def through(guarded: Guarded, kind: str, bodies: list[bytes]) -> float:
    begun, apart_s = time.process_time(), cpu_apart_s(guarded)
    images = ((hashlib.sha256(body).digest(), body) for body in bodies)
    if sum("reason" in found for _, found in guarded.inspect(images, kind, MAX_PIXELS)):
        sys.exit("WRONG: an image did not decode")
    return time.process_time() - begun + cpu_apart_s(guarded) - apart_s


def cpu_apart_s(guarded: Guarded) -> float:
    ((_, found),) = guarded.inspect([("", b"cpu?")], "fast", MAX_PIXELS)
    return float(found["detail"])


@contextmanager
def peer(python: str | None, sets: Sets) -> Iterator[Callable[[str], float] | None]:
    if python is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="rs5m-bench-") as top:
        folders = {name: str(written(Path(top, str(n)), bodies)) for n, (name, bodies) in enumerate(sets.items())}
        process = subprocess.Popen(
            [python, "-P", "-W", "ignore", "-c", PEER_CLIENT, json.dumps(folders)], stdin=subprocess.PIPE, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        with process:
            if process.stdout.readline() != "ready\n":
                last = (process.stderr.read().strip().splitlines() or ["no reason given"])[-1]
                print(f"imagededup: SKIPPED, it does not start ({last})")
                yield None
                return

            def ask(name: str) -> float:
                process.stdin.write(f"{name}\n")
                process.stdin.flush()
                return float(process.stdout.readline())

            yield ask


def written(folder: Path, bodies: list[bytes]) -> Path:
    folder.mkdir()
    for number, body in enumerate(bodies):
        (folder / f"{number:05}.jpg").write_bytes(body)
    return folder


def peer_python(given: str | None) -> str | None:
    """Return a Python that has the peer; make its environment if need be. None, said, if that fails."""
    if given:
        return given
    folder = ROOT / "build" / "bench-imagededup"
    python = folder / "bin" / "python"
    has_it = [str(python), "-c", "import importlib.metadata as m; m.version('imagededup'); m.version('torchvision')"]
    if python.exists() and not subprocess.run(has_it, capture_output=True, check=False).returncode:
        return str(python)
    print(f"making an environment for {PEER[0]} in {folder}", flush=True)
    for arguments in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEER],
        has_it,
    ):
        try:
            done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=PEER_LIMIT_S)
        except subprocess.TimeoutExpired:
            print(
                f"imagededup: SKIPPED, it could not be installed within {PEER_LIMIT_S} s; name one with --peer-python"
            )
            return None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            print(f"imagededup: SKIPPED, {PEER[0]} cannot be had ({last}); name one with --peer-python")
            return None
    return str(python)


# -- the pictures ------------------------------------------------------------------------------------------------


def real_sets(images: int) -> Sets:
    place = os.environ.get("RS5M_TEST_DATA")
    if not place:
        print("RS5M_TEST_DATA is not set: no real pictures, generated ones only")
        return {}
    found: Sets = {}
    for name, (pattern, most) in REAL.items():
        paths = sorted(Path(place).glob(pattern))
        step = max(1, len(paths) // min(images, most))
        found[name] = [path.read_bytes() for path in paths[::step][: min(images, most)]]
        if not found[name]:
            sys.exit(f"nothing at {Path(place, pattern)}; is RS5M_TEST_DATA right?")
    return found


def photo_like(number: int) -> bytes:
    """A picture with detail at every scale, as photographs have."""
    draw = np.random.default_rng(number)
    width, height = int(draw.integers(256, 640)), int(draw.integers(256, 640))
    total = np.zeros((height, width, 3))
    for cells in (4, 8, 16, 32, 64, 128):
        coarse = Image.fromarray(draw.integers(0, 256, (cells, cells, 3)).astype(np.uint8))
        total += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64) * 4 / cells
    total = (total - total.min()) / (total.max() - total.min()) * 255
    out = io.BytesIO()
    Image.fromarray(total.astype(np.uint8)).save(out, "JPEG", quality=int(draw.integers(70, 96)))
    return out.getvalue()


# -- what is said ------------------------------------------------------------------------------------------------


def together(way: str, seconds: dict[str, dict[str, list[float]]]) -> list[float]:
    return [statistics.mean(round_) for round_ in zip(*(found[way] for found in seconds.values()), strict=True)]


def show(title: str, seconds: dict[str, list[float]]) -> None:
    print(f"\n{title}; images/s/core (least / median / most), and times {BASE}")
    for way, took in seconds.items():
        rates = sorted(1 / one for one in took)
        ratio = statistics.median(base / one for base, one in zip(seconds[BASE], took, strict=True))
        said = "" if way not in WANTED else f", {WANTED[way]} wanted: {'pass' if ratio >= WANTED[way] else 'SHORT'}"
        line = f"{rates[0]:7,.0f} /{statistics.median(rates):7,.0f} /{rates[-1]:7,.0f}   x{ratio:.2f}{said}"
        print(f"  {way:30}{line}", flush=True)


def agreement(sets: Sets) -> None:
    print("\nhashes against imagehash.phash: exact ones that differ; of fast ones equal hashes, equal bits, bits off")
    wide = max(map(len, sets))
    for name, bodies in sets.items():
        right = [theirs(body) for body in bodies]
        wrong = sum(one != phash(decode(body, MAX_PIXELS).luma32) for one, body in zip(right, bodies, strict=True))
        fast = [phash(decode(body, MAX_PIXELS, fast=True).luma32) for body in bodies]
        off = np.array([(one ^ other).bit_count() for one, other in zip(right, fast, strict=True)])
        print(
            f"  {name:{wide}} exact: {wrong} differ; fast: {np.mean(off == 0):.1%} equal, {1 - off.mean() / 64:.2%} of "
            f"bits, off: mean {off.mean():.2f}, p99 {np.percentile(off, 99):.0f}, most {off.max()}"
        )


if __name__ == "__main__":
    main()

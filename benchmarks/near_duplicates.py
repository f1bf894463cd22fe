"""All near pairs of N 64-bit hashes: pairs_within beside faiss (IndexBinaryMultiHash and IndexBinaryFlat) on the same.

usage: near_duplicates.py [--sizes 1e6,5e6] [--radii 2,4,6] [--set uniform,skewed] [--rounds 3] [--peers]

uniform: even bits; 1 % copies of others with 0 to 8 bits flipped.
skewed: each bit says whether a Gaussian coefficient is above the median of its 64, as in a perceptual hash, the first
always; the coefficients are correlated, the more the lower their frequency. 25 % of all rows are copies with 0 to 8
bits flipped, 5 hashes are placeholders of up to 100,000 rows each, 5 % of the rows repeat others after Zipf's law, and
100 families have 200 look-alikes each. Where RS5M_TEST_DATA names a folder with rs-pairs/ and photos/, how even the
hashes of its pictures and of their quarters are is printed beside the model's.

Measured is collapsing the hashes to distinct ones (said apart) and finding the pairs, in a process of its
own for each line; peak memory is that of the whole process, hashes and libraries included. The planted pairs must all
be found; those that are not make the exit code 1. With --peers faiss answers a sample of the distinct hashes, with as
many threads, and its time is scaled up; it gets an environment of its own below build/, or --peer-python.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PEER = "faiss-cpu==1.15.1"
PLANTED = 100_000
CHUNK = 250_000

PEER_CODE = """
import json, sys, time
import faiss, numpy as np
path, radius, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
faiss.omp_set_num_threads(threads)
codes = np.load(path).view(np.uint8).reshape(-1, 8)
draw = np.random.default_rng(1)
def scaled(index, queries):
    taken = codes[draw.choice(len(codes), min(queries, len(codes)), replace=False)]
    start = time.perf_counter()
    index.range_search(taken, radius + 1)  # faiss: less than
    return (time.perf_counter() - start) * len(codes) / len(taken)
found = {}
for bands, bits in ((4, 16), (3, 21)):
    index = faiss.IndexBinaryMultiHash(64, bands, bits)
    index.nflip = radius // bands  # the fewest flips of a band that miss nothing
    start = time.perf_counter()
    index.add(codes)
    built = time.perf_counter() - start
    found[f"multihash {bands} x {bits}"] = built + scaled(index, 2000)
    del index
index = faiss.IndexBinaryFlat(64)
index.add(codes)
found["flat"] = scaled(index, 200)
print(json.dumps(found))
"""


# -- the hashes --------------------------------------------------------------------------------------------------


def uniform(count, draw):
    copies = count // 100
    hashes = draw.integers(0, 1 << 64, count, dtype=np.uint64)
    planted = flipped(hashes[:copies], draw)
    hashes[count - copies :] = planted
    return hashes, np.stack([hashes[:copies], planted])


def skewed(count, draw):
    copies, repeats = count // 4, count // 20
    placeholder = min(100_000, count // 100)
    family = 200
    families = min(100, count // 10_000)
    own = count - copies - repeats - 5 * placeholder - families * family
    base = phash_like(own, draw)
    originals = base[draw.integers(0, own, copies)]
    planted = flipped(originals, draw)
    repeated = base[np.minimum(draw.zipf(1.3, repeats) - 1, own - 1)]
    crowd = flipped(np.repeat(base[:families], family), draw, most=4)
    hashes = np.concatenate([base, planted, repeated, np.repeat(base[-5:], placeholder), crowd])
    return draw.permutation(hashes), np.stack([originals, planted])


def phash_like(count, draw):
    """Bits above the median of 64 correlated Gaussian coefficients, packed."""
    frequency = np.add.outer(np.arange(8), np.arange(8)).ravel()
    shared = draw.normal(size=(6, 64)) * (0.5 / np.sqrt(1 + frequency))
    hashes = np.empty(count, np.uint64)
    for start in range(0, count, CHUNK):
        rows = min(CHUNK, count - start)
        levels = draw.standard_normal((rows, 64), np.float32)
        levels += draw.standard_normal((rows, 6), np.float32) @ shared.astype(np.float32)
        levels[:, 0] = 100
        middle = np.partition(levels, 32, axis=1)[:, 32:33]  # 32 of 64 are above
        hashes[start : start + rows] = np.packbits(levels >= middle, axis=1).view(">u8").ravel()
    return hashes


def flipped(hashes, draw, most=8):
    """Copies with 0 to `most` bits flipped; the same bit twice is flipped back."""
    count = draw.integers(0, most + 1, len(hashes))
    out = hashes.copy()
    for flip in range(most):
        bit = np.uint64(1) << draw.integers(0, 64, len(hashes), dtype=np.uint64)
        out[count > flip] ^= bit[count > flip]
    return out


SETS = {"uniform": uniform, "skewed": skewed}


def evenness(name, hashes):
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)[:, 1:].astype(np.float32)
    squared = np.corrcoef(bits.T) ** 2
    apart = squared[~np.eye(63, dtype=bool)]
    share = bits.mean(axis=0)
    print(
        f"{name}: {len(hashes):,} distinct; bits set in {share.min():.2f} to {share.max():.2f} of them (the first "
        f"apart); squared correlation of two bits: mean {apart.mean():.4f}, largest {apart.max():.3f}"
    )


def real_hashes():
    from PIL import Image

    from stages.phash import phash

    found = []
    top = Path(os.environ["RS5M_TEST_DATA"])
    for path in sorted([*top.glob("rs-pairs/**/*.jp*g"), *top.glob("photos/**/*.jp*g")]):
        with Image.open(path) as opened:
            grey = opened.convert("L")
        across, down = grey.width // 2, grey.height // 2
        boxes = [(x, y, x + across, y + down) for x in (0, across) for y in (0, down)]
        for box in [(0, 0, grey.width, grey.height), *boxes]:
            found.append(phash(np.asarray(grey.crop(box).resize((32, 32), Image.Resampling.LANCZOS))))
    return np.unique(np.array(found, np.uint64))


# -- measuring ---------------------------------------------------------------------------------------------------


def measure(path, radius, rounds, threads):
    """Runs in a process of its own."""
    from stages.dedup.pigeonhole import collapsed, pairs_within

    hashes, planted = np.load(path / "hashes.npy"), np.load(path / "planted.npy")
    peaks, collapse_s, total_s = [], [], []
    for _ in range(rounds):
        start = time.perf_counter()
        distinct, _ = collapsed(hashes)
        collapse_s.append(time.perf_counter() - start)
        first, second, _ = pairs_within(distinct, radius, threads=threads)
        total_s.append(time.perf_counter() - start)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    one, other = (np.searchsorted(distinct, side) for side in planted)
    wanted = (np.bitwise_count(planted[0] ^ planted[1]) <= radius) & (one != other)
    asked = np.minimum(one, other)[wanted] << 32 | np.maximum(one, other)[wanted]
    packed = first.astype(np.int64) << 32 | second
    at = np.minimum(np.searchsorted(packed, asked), max(0, len(packed) - 1))
    hit = float((packed[at] == asked).mean()) if len(asked) else 1.0
    return {
        "distinct": len(distinct), "pairs": len(first), "s": total_s, "collapse_s": collapse_s, "peak_mb": max(peaks),
        "recall": hit, "planted": len(asked),
    }  # fmt: skip


def peer_python(given):
    if given:
        return given
    folder = ROOT / "build" / "bench-faiss"
    python = folder / "bin" / "python"
    has_it = [str(python), "-c", "import faiss"]
    if python.exists() and not subprocess.run(has_it, capture_output=True, check=False).returncode:
        return str(python)
    print(f"making an environment for {PEER} in {folder}", flush=True)
    for arguments in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PEER, "numpy"],
        has_it,
    ):
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            print(f"faiss: SKIPPED, {PEER} cannot be had ({last}); name another with --peer-python")
            return None
    return str(python)


def child(arguments, words):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{words} ended with {done.returncode}: {done.stderr.strip()[-1500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def table(asked, top):
    peer = peer_python(asked.peer_python) if asked.peers else None
    wrong = False
    header = (
        f"{'hashes':>11} {'set':8} {'r':>2} {'distinct':>11} {'pairs':>11} {'median s of ' + str(asked.rounds):>24}"
    )
    print(f"{header} {'collapse':>9} {'peak MB':>8} {'recall':>7}   {asked.threads} threads")
    for kind in asked.set.split(","):
        for size in asked.sizes.split(","):
            hashes, planted = SETS[kind](int(float(size)), np.random.default_rng(0))
            np.save(top / "hashes.npy", hashes)
            np.save(top / "planted.npy", planted[:, :PLANTED])
            if peer:
                np.save(top / "distinct.npy", np.unique(hashes))
            count = len(hashes)
            del hashes, planted
            for radius in map(int, asked.radii.split(",")):
                own = [sys.executable, __file__, "--child", str(top), "--radii", str(radius)]
                own += ["--rounds", str(asked.rounds), "--threads", str(asked.threads)]
                found = child(own, "pairs_within")
                middle = statistics.median(found["s"])
                spread = f"{middle:.2f} ({min(found['s']):.2f}..{max(found['s']):.2f})"
                wrong |= found["recall"] < 1
                print(
                    f"{count:>11,} {kind:8} {radius:>2} {found['distinct']:>11,} {found['pairs']:>11,} {spread:>24} "
                    f"{statistics.median(found['collapse_s']):>9.2f} {found['peak_mb']:>8.0f} {found['recall']:>7.4f}",
                    flush=True,
                )
                if peer:
                    arguments = [peer, "-c", PEER_CODE, str(top / "distinct.npy"), str(radius), str(asked.threads)]
                    for name, seconds in child(arguments, "faiss").items():
                        line = f"faiss {name}: {seconds:,.0f} s, scaled from a sample; x {seconds / middle:,.0f}"
                        print(f"{'':14}{line}", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1e6,5e6")
    parser.add_argument("--radii", default="2,4,6")
    parser.add_argument("--set", default="uniform,skewed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=min(4, len(os.sched_getaffinity(0))))
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--peer-python", help=f"of an environment with {PEER}; default: one is made below build/")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(measure(asked.child, int(asked.radii), asked.rounds, asked.threads)))
        return 0
    evenness("model", np.unique(phash_like(10_000, np.random.default_rng(0))))
    if "RS5M_TEST_DATA" in os.environ:
        evenness("real ", real_hashes())
    else:
        print("real : RS5M_TEST_DATA is not set, so the model is not set beside real pictures")
    with tempfile.TemporaryDirectory(prefix="rs5m-bench-") as name:
        return int(table(asked, Path(name)))


if __name__ == "__main__":
    sys.exit(main())

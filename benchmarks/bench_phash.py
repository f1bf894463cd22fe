"""Decode and hash, one core: ours (decode.decode + phash) beside Pillow + imagehash.phash, on generated JPEGs.

Both get the same bytes; the ways take turns in every round, so that a busy machine hurts them alike. Ours also makes
the thumbnail, reads EXIF and guards against damage; the exact way and the fast one (dedup.hash). "inspect" is all that
dedup.inspect does with a body, its sha256 included. usage: bench_phash.py [pictures] [rounds]
"""

import hashlib
import io
import statistics
import sys
import time

import imagehash
import numpy as np
from PIL import Image

from stages.decode import decode
from stages.dedup.inspect import inspected
from stages.phash import phash


def photo_like(number):
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


def theirs(body):
    with Image.open(io.BytesIO(body)) as image:
        return int(str(imagehash.phash(image)), 16)


def ours(body):
    return phash(decode(body, 100_000_000).luma32)


def fast(body):
    return phash(decode(body, 100_000_000, fast=True).luma32)


def inspect_exact(body):
    return hashlib.sha256(body).digest() and inspected(body, "exact", 100_000_000)["phash"]


def inspect_fast(body):
    return hashlib.sha256(body).digest() and inspected(body, "fast", 100_000_000)["phash"]


def main():
    count, rounds = (int(value) for value in (sys.argv[1:] or ("300", "3")))
    bodies = [photo_like(number) for number in range(count)]
    differ = sum(theirs(body) != ours(body) for body in bodies)
    size = sum(map(len, bodies)) / count / 1000
    print(f"{count} JPEGs, mean {size:.0f} kB; hashes that differ from imagehash: {differ}")
    off = sorted((theirs(body) ^ fast(body)).bit_count() for body in bodies)
    print(f"fast: {off.count(0) / count:.0%} equal, bits off: mean {sum(off) / count:.2f}, most {off[-1]}")
    ways = {
        "Pillow + imagehash.phash": theirs, "exact, one hash": ours, "fast, one hash": fast,
        "inspect, exact": inspect_exact, "inspect, fast": inspect_fast,
    }  # fmt: skip
    rates = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            for body in bodies:
                way(body)
            rates[name].append(count / (time.perf_counter() - start))
    base = statistics.median(rates["Pillow + imagehash.phash"])
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"{name:<30} {min(values):7.0f} /{middle:6.0f} /{max(values):6.0f} images/s   x{middle / base:.2f}")


if __name__ == "__main__":
    main()

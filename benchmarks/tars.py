"""Writing tars, one core: ours (stages.tars.TarWriter) beside webdataset's ShardWriter, in one process.

    python benchmarks/tars.py [--samples 12000] [--rounds 5]

A sample is a jpg of about 52 kB, a txt and a json; 4,000 samples a tar. The two take turns in every round, and neither
is asked to sync. Then ours are checked: the same bytes as in the round before, opened by tarfile and by webdataset, the
members of one sample side by side, the bytes those that went in. Beside it: what a body of 52 kB costs in the image
store, where body and tar are hashed and a thread writes. Exits with 1 where a figure falls short.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import webdataset

from stages.tars import TarWriter

WANTED, PER_TAR, MEMBERS = 5.0, 4000, ("jpg", "txt", "json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=12_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    samples = made(args.samples)
    with tempfile.TemporaryDirectory(prefix="bench-tars-") as name:
        rates = measured(samples, args.rounds, Path(name))
        kept_us = kept(Path(name))
    middle = {way: statistics.median(values) for way, values in rates.items()}
    for way, values in rates.items():
        print(f"{way:<12} {min(values):8.0f} /{middle[way]:8.0f} /{max(values):8.0f} samples/s")
    ratio = middle["ours"] / middle["ShardWriter"]
    print(f"ours / ShardWriter (webdataset {webdataset.__version__}): {ratio:.1f}, wanted {WANTED}")
    print(f"image store: {kept_us:.0f} us a body, hashed, in a hashed tar")
    if ratio < WANTED:
        print(f"SHORT: {ratio:.1f} times ShardWriter, {WANTED} wanted")
        sys.exit(1)


def made(count):
    """Return samples (key, bodies by extension): 300 distinct pictures that no file system can compress."""
    draw = random.Random(5)
    pictures = [b"\xff\xd8" + draw.randbytes(draw.randint(20_000, 84_000)) + b"\xff\xd9" for _ in range(300)]
    facts = {"url": "https://example.org/picture.jpg", "sha256": "0" * 64, "width": 512, "height": 400}
    return [
        (
            f"{number:032x}",
            {
                "jpg": pictures[number % len(pictures)],
                "txt": f"an aerial view of field {number}".encode(),
                "json": json.dumps(facts | {"number": number}).encode(),
            },
        )
        for number in range(count)
    ]


def ours(samples, folder):
    for start in range(0, len(samples), PER_TAR):
        with TarWriter(folder / f"{start // PER_TAR:05d}.tar") as tar:
            for key, bodies in samples[start : start + PER_TAR]:
                for extension in MEMBERS:
                    tar.add(f"{key}.{extension}", bodies[extension])


def theirs(samples, folder):
    with webdataset.ShardWriter(f"{folder}/%05d.tar", maxcount=PER_TAR, maxsize=1e12, verbose=0) as tar:
        for key, bodies in samples:
            tar.write({"__key__": key, **bodies})


def measured(samples, rounds, folder):
    """Return samples/s of every round; check what ours wrote."""
    ways, digest = {"ours": ours, "ShardWriter": theirs}, None
    rates = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, write in sorted(ways.items(), reverse=bool(number % 2)):
            into = folder / way
            into.mkdir()
            start = time.perf_counter()
            write(samples, into)
            if number:  # the first round warms up
                rates[way].append(len(samples) / (time.perf_counter() - start))
            if way == "ours":
                again = [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(into.iterdir())]
                same(digest or again, again, "digests of the tars of two rounds")
                digest = again
                if number == rounds:
                    check(samples, sorted(into.iterdir()))
            for file in into.iterdir():
                file.unlink()
            into.rmdir()
    return rates


def check(samples, files):
    """Check that others read what went in."""
    names = []
    for file in files:
        with tarfile.open(file) as tar:
            names += tar.getnames()
    same([f"{key}.{extension}" for key, _ in samples for extension in MEMBERS], names, "names read by tarfile")
    read = webdataset.WebDataset([str(file) for file in files], shardshuffle=False)
    count = 0
    for sample, (key, bodies) in itertools.zip_longest(read, samples):
        same({"__key__": key, **bodies}, {name: sample[name] for name in ("__key__", *MEMBERS)}, f"sample {key}")
        count += 1
    print(f"{len(files)} tars, the same bytes in every round; {count} samples read back by tarfile and webdataset")


def kept(folder):
    """Return microseconds a body: the best of five passes over bodies of 52 kB, each distinct."""
    count, best = 2000, float("inf")
    bodies = [bytes(52_000 - 8) + number.to_bytes(8) for number in range(count)]
    for _ in range(5):
        tar = folder / "images.tar"
        start = time.perf_counter()
        with TarWriter(tar, hashed=True) as file:
            for body in bodies:
                file.add(f"{hashlib.sha256(body).hexdigest()}.jpg", body)
        best = min(best, time.perf_counter() - start)
        tar.unlink()
    return best / count * 1e6


def same(wanted, found, what):
    if wanted != found:
        sys.exit(f"SHORT: {what}: not what they should be")


if __name__ == "__main__":
    main()

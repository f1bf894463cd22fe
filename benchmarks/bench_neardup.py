"""All near pairs of N 64-bit hashes: pairs_within beside comparing all with all, and imagededup where it is installed.

Uniform hashes with 1 % planted copies, 0 to 8 bits flipped; one process. The slow ways answer a sample of the hashes
and their time is scaled up, which is said. usage: bench_neardup.py [hashes] [radius ...]
"""

import sys
import time

import numpy as np

from stages.dedup.pigeonhole import choose_bands, pairs_within

SAMPLE = 300


def planted(count, seed=0):
    draw = np.random.default_rng(seed)
    hashes = draw.integers(0, 1 << 64, count, dtype=np.uint64)
    copies = count // 100
    flips = draw.integers(0, 9, copies)
    for copy, flip in enumerate(flips.tolist()):
        bits = sum(1 << int(bit) for bit in draw.choice(64, flip, replace=False))
        hashes[count - 1 - copy] = hashes[copy] ^ np.uint64(bits)
    return hashes, flips


def compare_all_seconds(hashes, radius):
    start = time.perf_counter()
    for value in hashes[:SAMPLE]:
        np.flatnonzero(np.bitwise_count(hashes ^ value) <= radius)
    return (time.perf_counter() - start) * len(hashes) / SAMPLE / 2


def imagededup_seconds(hashes, radius):
    try:
        from imagededup.handlers.search.brute_force_cython import BruteForceCython
    except ImportError:
        return None
    table = {str(row): f"{int(value):016x}" for row, value in enumerate(hashes)}
    search = BruteForceCython(table, None)
    start = time.perf_counter()
    for row in range(SAMPLE):
        search.search(query=table[str(row)], tol=radius)
    return (time.perf_counter() - start) * len(hashes) / SAMPLE


def main():
    count = int(float(sys.argv[1])) if len(sys.argv) > 1 else 1_000_000
    hashes, flips = planted(count)
    for radius in map(int, sys.argv[2:] or (4, 6)):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            first, second, _ = pairs_within(hashes, radius)
            times.append(time.perf_counter() - start)
        pairs = set(zip(first.tolist(), second.tolist(), strict=True))
        wanted = np.flatnonzero(flips <= radius).tolist()
        recall = sum((copy, count - 1 - copy) in pairs for copy in wanted) / max(1, len(wanted))
        ours = sorted(times)[1]
        print(f"{count} hashes, radius {radius}: {len(pairs)} pairs, planted copies found {recall:.4f}")
        spread = f"of 3: {min(times):.2f} to {max(times):.2f}; {choose_bands(count, radius)} bands"
        print(f"  pairs_within     {ours:10.2f} s  ({spread})")
        rivals = {"all with all": compare_all_seconds, "imagededup brute": imagededup_seconds}
        for name, way in rivals.items():
            seconds = way(hashes, radius)
            line = (
                "not installed"
                if seconds is None
                else f"{seconds:10.0f} s  scaled from {SAMPLE} queries, x{seconds / ours:.0f}"
            )
            print(f"  {name:<16} {line}")


if __name__ == "__main__":
    main()

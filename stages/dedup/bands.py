"""Which bits of 64-bit hashes to group by, so that no pair within a radius is missed and few others are compared.

The bits are dealt out to bands, and the bands to groups. Two hashes at most r bits apart differ in at most r bands.
With r + (c - 1) g + 1 bands in g groups, more than (c - 1) g bands are equal, so some group has c equal ones: every
choice of c bands of one group is a key, and hashes are compared only where they have a key in common. Few keys mean few
sorts, many bits in a key mean few comparisons; what is cheapest is estimated on a sample of the hashes themselves.
They need not be even: bits that say little or repeat each other are spread over the bands.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

BITS = 64
_SAMPLE_ROWS = 1 << 14
_TRIED_KEYS = 20
_MAX_KEYS = 2_000
_MAX_GROUPS = 3
_MAX_BANDS = 32
_BLOCK_ROWS = 1 << 15  # 256 KiB: bits are moved within the cache
# Costs measured on a 2-core server with numpy 2.4 and polars 2.1; only their ratios matter.
_SORT_NS = 24.0
_CANDIDATE_NS = 3.0
_FIRST_CANDIDATE_NS = 12.0  # where candidates are few they are gathered one by one
_KEY_NS = 100_000.0
_DENSE_NS = 2.0
_PLAN_NS = 3e7


@dataclass(frozen=True, slots=True)
class BitOrder:
    """An order of the 64 bits: moving bits about keeps Hamming distances.

    Attributes:
        moves: mask of bits and how far they move to the left (to the right where negative), one for each distance.
    """

    moves: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, sources: list[int]) -> "BitOrder":
        """Make the order whose highest bit is bit sources[0], the next lower one sources[1] and so on."""
        masks: dict[int, int] = {}
        for place, source in enumerate(sources):
            distance = BITS - 1 - place - source
            masks[distance] = masks.get(distance, 0) | 1 << source
        return cls(tuple((mask, distance) for distance, mask in sorted(masks.items())))

    def undone(self) -> "BitOrder":
        """Return the order that puts the bits back."""
        moved = ((mask << distance if distance > 0 else mask >> -distance, -distance) for mask, distance in self.moves)
        return BitOrder(tuple(moved))

    def apply(self, values: Hashes) -> Hashes:
        """Return the values with their bits in this order, uint64 [N]."""
        ordered = np.empty_like(values)
        spare = np.empty(min(len(values), _BLOCK_ROWS), np.uint64)
        for start in range(0, len(values), _BLOCK_ROWS):
            block, into = values[start : start + _BLOCK_ROWS], ordered[start : start + _BLOCK_ROWS]
            moved = into
            for mask, distance in self.moves:
                np.bitwise_and(block, np.uint64(mask), out=moved)
                shift = np.left_shift if distance > 0 else np.right_shift
                shift(moved, np.uint64(abs(distance)), out=moved)
                if moved is not into:
                    np.bitwise_or(into, moved, out=into)
                moved = spare[: len(block)]
        return ordered


@dataclass(frozen=True, slots=True)
class Bands:
    """Bands of bits and the keys made of them.

    Attributes:
        order: brings the bits of each band together, the first band on top.
        sizes: bits of each band, from the top.
        keys: the bands of each key.
    """

    order: BitOrder
    sizes: tuple[int, ...]
    keys: tuple[tuple[int, ...], ...]

    def key_bits(self, key: tuple[int, ...]) -> int:
        """Return how many bits a key has."""
        return sum(self.sizes[band] for band in key)

    def key_mask(self, key: tuple[int, ...]) -> np.uint64:
        """Return where the bits of a key stand in ordered values."""
        edges = list(itertools.accumulate(self.sizes, initial=0))
        return np.uint64(sum((1 << BITS - edges[band]) - (1 << BITS - edges[band + 1]) for band in key))

    def key_first(self, key: tuple[int, ...]) -> BitOrder:
        """Return the order that moves the bands of a key to the top of ordered values."""
        edges = list(itertools.accumulate(self.sizes, initial=0))
        others = (band for band in range(len(self.sizes)) if band not in key)
        places = (place for band in (*key, *others) for place in range(edges[band], edges[band + 1]))
        return BitOrder.of([BITS - 1 - place for place in places])


def choose_bands(hashes: Hashes, radius: int, threads: int = 1) -> Bands | None:
    """Chooses the bands that should be fastest for these hashes.

    The same hashes give the same bands. Whatever is chosen finds every pair: a bad estimate costs time alone.

    Args:
        hashes: distinct, uint64 [N].
        radius: greatest Hamming distance in bits, at least 1.
        threads: how many keys are worked on at once.

    Returns:
        The bands, or None where comparing all with all should be faster.
    """
    rows = len(hashes)
    best, best_ns = None, rows * rows / 2 * _DENSE_NS
    if best_ns < _PLAN_NS:
        return best
    # Seeded, as the choice must repeat; drawn at random, as every n-th of sorted hashes would never agree on a prefix.
    size = min(_SAMPLE_ROWS, max(1024, rows // 8))
    sample = hashes[np.random.default_rng(0).choice(rows, size, replace=False, shuffle=False)]
    pairs = (rows / len(sample)) ** 2
    weights, overlaps = _statistics(sample)
    for bands, chosen, groups in _designs(radius):
        keys = _keys(bands, chosen, groups)
        turns = math.ceil(len(keys) / threads)
        sorting_ns = turns * (rows * _SORT_NS + _KEY_NS)
        if sorting_ns >= best_ns:
            continue
        dealt = _deal(weights, overlaps, bands)
        order = BitOrder.of(list(itertools.chain.from_iterable(dealt)))
        tried = Bands(order, tuple(len(band) for band in dealt), keys)
        candidates = pairs * _mean_candidates(tried, sample)
        comparing_ns = candidates * _CANDIDATE_NS + min(rows, candidates) * _FIRST_CANDIDATE_NS
        cost_ns = sorting_ns + turns * comparing_ns
        if cost_ns < best_ns:
            best, best_ns = tried, cost_ns
    return best


def _designs(radius: int) -> list[tuple[int, int, int]]:
    """Numbers of bands, of bands in a key and of groups, those with the fewest keys first."""
    designs = []
    for groups in range(1, _MAX_GROUPS + 1):
        for chosen in range(2 if groups > 1 else 1, _MAX_BANDS):
            bands = radius + (chosen - 1) * groups + 1
            keys = sum(math.comb(len(range(group, bands, groups)), chosen) for group in range(groups))
            if bands <= _MAX_BANDS and keys <= _MAX_KEYS:
                designs.append((keys, bands, chosen, groups))
    return [design[1:] for design in sorted(designs)]


def _keys(bands: int, chosen: int, groups: int) -> tuple[tuple[int, ...], ...]:
    members = [range(group, bands, groups) for group in range(groups)]
    return tuple(key for group in members for key in itertools.combinations(group, chosen))


def _statistics(sample: Hashes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each bit tells, in bits of collision entropy [64], and squared correlations [64, 64]; bit 0 is lowest."""
    bits = np.unpackbits(sample.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    ones = bits.astype(np.float32)
    share = ones.mean(axis=0, dtype=np.float64)
    together = (ones.T @ ones).astype(np.float64) / len(sample)
    spread = np.maximum(share * (1 - share), 1e-9)
    squared = (together - np.outer(share, share)) ** 2 / np.outer(spread, spread)
    return -np.log2(share**2 + (1 - share) ** 2), np.minimum(squared, 1.0)


def _deal(weights: NDArray[np.float64], overlaps: NDArray[np.float64], bands: int) -> list[list[int]]:
    """Deals the bits to bands that tell about as much each, bits that repeat each other to different ones."""
    held = np.zeros((bands, BITS))
    told = np.zeros(bands)
    for bit in np.argsort(-weights, kind="stable").tolist():
        shared = held @ overlaps[bit]
        band = int(np.argmin(told + shared))
        told[band] += weights[bit] * max(0.0, 1 - shared[band])
        held[band, bit] = 1
    return [np.flatnonzero(row).tolist() for row in held]


def _mean_candidates(bands: Bands, sample: Hashes) -> float:
    """Pairs of the sample that have a key in common, a mean over the keys."""
    ordered = bands.order.apply(sample)
    tried = bands.keys[:: math.ceil(len(bands.keys) / _TRIED_KEYS)]
    total = 0
    for key in tried:
        same = np.sort(ordered & bands.key_mask(key))
        stops = np.flatnonzero(np.append(same[1:] != same[:-1], True)) + 1
        runs = np.diff(stops, prepend=0)
        total += int((runs * (runs - 1) // 2).sum())
    return total / len(tried)

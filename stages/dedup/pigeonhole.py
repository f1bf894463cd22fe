"""All pairs of 64-bit hashes within a Hamming distance: complete, exact, in bounded memory.

Pigeonhole: cut the 64 bits into B bands. Two hashes that differ in at most r bits differ in at most r bands, so at
least c = B - r bands are equal. For every choice of c bands the hashes are grouped by those bands, and only members of
one group are compared. The choices form a tree: each level re-sorts the hashes by one more band with a stable radix
sort, so equal prefixes stay together, and hashes that already stand alone leave the branch. A pair is reported by the
first choice of c equal bands alone, so nothing is found twice and nothing has to be made unique afterwards.
"""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]
Distances = NDArray[np.uint8]

MAX_RADIUS = 16
_BITS = 64
_MAX_BAND_BITS = 16  # numpy sorts keys of up to 16 bits by radix
_MAX_CHOICES = 20_000
_DENSE_RUN = 256  # groups of at least this size are compared block by block, not neighbour by neighbour
_BLOCK_PAIRS = 1 << 21  # pairs compared at once: bounds the memory of a block to a few tens of megabytes
# Costs measured on a 2-core server with numpy 2.4; only their ratios matter.
_SORT_NS = 25.0
_CANDIDATE_NS = 15.0
_DENSE_NS = 1.5


def pairs_within(hashes: Hashes, radius: int) -> tuple[Indices, Indices, Distances]:
    """Finds every unordered pair of hashes at most `radius` bits apart.

    Time is near linear for hashes that are spread out; a set of k hashes that share most of their bits costs k^2/2
    comparisons, and k equal hashes are k^2/2 pairs of output, so callers collapse equal hashes first. Memory is a few
    copies of the input, plus the output, whatever the hashes are.

    Args:
        hashes: uint64, shape [N].
        radius: greatest Hamming distance in bits, 0 to 16.

    Returns:
        i (int64 [M]), j (int64 [M]) and distance (uint8 [M], bits) with i < j, sorted by (i, j).

    Raises:
        ValueError: The radius is out of range or the hashes are not one uint64 vector.
    """
    if not 0 <= radius <= MAX_RADIUS:
        msg = f"radius must be 0 to {MAX_RADIUS} bits, not {radius}"
        raise ValueError(msg)
    if hashes.ndim != 1 or hashes.dtype != np.uint64:
        msg = f"hashes must be uint64 of one dimension, not {hashes.dtype} of {hashes.ndim}"
        raise ValueError(msg)
    found = _Found(radius)
    bands = choose_bands(len(hashes), radius)
    index = np.arange(len(hashes), dtype=np.int64)
    if bands == 0:
        found.compare_all(hashes, index, ())
    else:
        masks = tuple(_band_masks(bands))
        _descend(hashes, index, masks, (), bands - radius, found)
    return found.sorted_pairs()


def choose_bands(rows: int, radius: int) -> int:
    """Number of bands that should be fastest for evenly spread hashes; 0 means compare all with all.

    The model counts radix sorts (hashes still grouped at each level of the tree), candidate pairs and, for comparing
    all with all, N^2/2 cheap comparisons.

    Args:
        rows: number of hashes.
        radius: greatest Hamming distance in bits.

    Returns:
        The number of bands, more than `radius`, or 0.
    """
    best, best_ns = 0, rows * rows / 2 * _DENSE_NS
    for bands in range(max(radius + 1, _BITS // _MAX_BAND_BITS), radius + 9):
        clean = bands - radius
        choices = math.comb(bands, clean)
        if choices > _MAX_CHOICES:
            continue
        width = _BITS / bands
        cost_ns = choices * rows * rows / 2 / 2 ** (width * clean) * _CANDIDATE_NS
        for depth in range(1, clean + 1):
            nodes = math.comb(bands - (clean - depth), depth)
            grouped = 1.0 if depth == 1 else -math.expm1(-rows / 2 ** (width * (depth - 1)))
            cost_ns += nodes * (rows * grouped * _SORT_NS + 20_000)
        if cost_ns < best_ns:
            best, best_ns = bands, cost_ns
    return best


@dataclass(slots=True)
class _Found:
    """Collects the pairs within the radius, each of them once."""

    radius: int
    firsts: list[Indices] = field(default_factory=list)
    seconds: list[Indices] = field(default_factory=list)
    distances: list[Distances] = field(default_factory=list)

    def compare(self, a: Hashes, b: Hashes, skipped: tuple[np.uint64, ...]) -> tuple[Indices, Distances]:
        """Positions of the pairs (a, b) within the radius that differ in every skipped band, and distances."""
        differing = a ^ b
        distance = np.bitwise_count(differing)
        hits = np.flatnonzero(distance <= self.radius)
        for mask in skipped:
            hits = hits[(differing.ravel()[hits] & mask) != 0]
        return hits, distance.ravel()[hits]

    def add(self, first: Indices, second: Indices, distance: Distances) -> None:
        """Keeps pairs, the smaller index first."""
        self.firsts.append(np.minimum(first, second))
        self.seconds.append(np.maximum(first, second))
        self.distances.append(distance)

    def compare_all(self, values: Hashes, index: Indices, skipped: tuple[np.uint64, ...]) -> None:
        """Compares all values with each other, a block of rows at a time; values[p] is hash index[p]."""
        row = 0
        while row < len(values) - 1:
            rest = values[row:]
            rows = max(1, _BLOCK_PAIRS // len(rest))
            hits, distance = self.compare(rest[:rows, None], rest[None, :], skipped)
            first, second = np.divmod(hits, len(rest))
            above = first < second
            self.add(index[row + first[above]], index[row + second[above]], distance[above])
            row += rows

    def sorted_pairs(self) -> tuple[Indices, Indices, Distances]:
        """All pairs in order of (i, j)."""
        if not self.firsts:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8)
        first, second = np.concatenate(self.firsts), np.concatenate(self.seconds)
        order = np.lexsort((second, first))
        return first[order], second[order], np.concatenate(self.distances)[order]


def _band_masks(bands: int) -> list[np.uint64]:
    edges = [round(_BITS * band / bands) for band in range(bands + 1)]
    return [np.uint64((1 << stop) - (1 << start)) for start, stop in itertools.pairwise(edges)]


def _descend(
    values: Hashes,
    index: Indices,
    masks: tuple[np.uint64, ...],
    chosen: tuple[int, ...],
    wanted: int,
    found: _Found,
) -> None:
    """Groups by one more band, for every band after the last chosen one, until `wanted` bands are equal."""
    first = chosen[-1] + 1 if chosen else 0
    for band in range(first, len(masks) - (wanted - len(chosen)) + 1):
        now = (*chosen, band)
        mask = np.bitwise_or.reduce([masks[b] for b in now])
        shift = np.uint64(int(masks[band]).bit_length() - int(masks[band]).bit_count())
        key = ((values & masks[band]) >> shift).astype(np.uint16)
        order = np.argsort(key, kind="stable")
        grouped = values[order]
        same = ((grouped[1:] ^ grouped[:-1]) & mask) == 0
        if len(now) == wanted:
            skipped = tuple(masks[b] for b in range(band) if b not in now)
            _compare_groups(grouped, (index, order), mask, same, skipped, found)
            continue
        together = np.zeros(len(grouped), dtype=np.bool_)
        together[1:] |= same
        together[:-1] |= same
        if together.any():
            _descend(grouped[together], index[order[together]], masks, now, wanted, found)


def _compare_groups(
    values: Hashes,
    origin: tuple[Indices, Indices],
    mask: np.uint64,
    same: NDArray[np.bool_],
    skipped: tuple[np.uint64, ...],
    found: _Found,
) -> None:
    """Compares the members of each run of equal keys.

    values[p] stood at index[order[p]] of the caller's hashes, (index, order) being the origin; same[p] says that p and
    p + 1 have equal keys.
    """
    index, order = origin
    for start, stop in _long_runs(values, mask, same):
        found.compare_all(values[start:stop], index[order[start:stop]], skipped)
        same[start : stop - 1] = False
    live = np.flatnonzero(same)
    # Short runs all at once: every member with the next one, then with the one after, while any run is that long.
    lag = 1
    while len(live):
        ours, theirs = values[live], values[live + lag]
        hits, distance = found.compare(ours, theirs, skipped)
        if len(hits):
            found.add(index[order[live[hits]]], index[order[live[hits] + lag]], distance)
        lag += 1
        live = live[: np.searchsorted(live, len(values) - lag)]
        live = live[((values[live] ^ values[live + lag]) & mask) == 0]


def _long_runs(values: Hashes, mask: np.uint64, same: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and stop of every run of at least _DENSE_RUN equal keys."""
    probes = values[:: _DENSE_RUN // 2] & mask  # a run this long holds two neighbouring probes
    if not (probes[1:] == probes[:-1]).any():
        return []
    stops = np.append(np.flatnonzero(~same), len(values) - 1) + 1
    starts = np.concatenate(([0], stops[:-1]))
    long = stops - starts >= _DENSE_RUN
    return list(zip(starts[long].tolist(), stops[long].tolist(), strict=True))

"""All pairs of 64-bit hashes within a Hamming distance: complete, exact, in bounded memory.

The bits are cut into bands, and hashes are compared where some choice of bands, a key, is equal (`bands`: near hashes
always have one in common). For each key the bits are moved so that the key stands on top, and the values are sorted:
equal keys then lie side by side. No index is carried along; the few values that are found near are put back and looked
up. A key that very many hashes share is searched like a set of its own, by the bits that differ there. A pair is
reported by its first equal key alone, so nothing is found twice. Keys are worked on by threads; the result is sorted
and does not depend on them.
"""

import itertools
import os
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.dedup.bands import BITS, Bands, Hashes, choose_bands

Indices = NDArray[np.uint32]
Distances = NDArray[np.uint8]

MAX_RADIUS = 16
MAX_PAIRS = 100_000_000
"""The most pairs that are returned unless the caller says otherwise; of distinct hashes they take 2.5 GB while they are
sorted, of repeated ones four times as much."""

_MAX_THREADS = 4
_LONG_RUN = 256  # runs of at least this many equal keys are compared all with all, not neighbour by neighbour
_SEARCHED_RUN = 1 << 14  # and from this many on they are searched by bands of their own
_BLOCK_ROWS = 1 << 16  # values compared at once: half a megabyte, so that a block stays in the cache
_SPARSE = 4  # once fewer than one in so many of a block still have an equal key, those alone are looked at


class TooManyPairsError(ValueError):
    """More pairs than the caller wants to hold: a crowd of hashes is near each other."""


def pairs_within(
    hashes: Hashes, radius: int, *, threads: int | None = None, most: int = MAX_PAIRS
) -> tuple[Indices, Indices, Distances]:
    """Finds every unordered pair of hashes at most `radius` bits apart.

    Time is near linear in hashes and pairs. k hashes that are all near each other are k^2/2 pairs, equal ones too, so
    callers collapse equal hashes first. Memory, besides the hashes: 16 bytes a hash for each thread and 8 more, 12 more
    where they are not sorted or not distinct, and 24 bytes a pair (100 where hashes repeat).

    Args:
        hashes: uint64 [N], fewer than 2^32. Sorted and distinct ones save time and memory.
        radius: greatest Hamming distance in bits, 0 to 16.
        threads: how many keys are worked on at once; default: the CPUs this process may use, at most 4.
        most: the most pairs to return.

    Returns:
        i (uint32 [M]), j (uint32 [M]) and distance (uint8 [M], bits) with i < j, sorted by (i, j).

    Raises:
        ValueError: The radius is out of range or the hashes are not one uint64 vector.
        TooManyPairsError: There are more than `most` pairs.
    """
    if not 0 <= radius <= MAX_RADIUS:
        msg = f"radius must be 0 to {MAX_RADIUS} bits, not {radius}"
        raise ValueError(msg)
    if hashes.ndim != 1 or hashes.dtype != np.uint64 or len(hashes) >= 1 << 32:
        msg = f"hashes must be fewer than 2^32 uint64 of one dimension, not {hashes.dtype} of {hashes.shape}"
        raise ValueError(msg)
    if threads is None:
        threads = min(_MAX_THREADS, len(os.sched_getaffinity(0)))
    if _ascending(hashes):
        return _split(hashes, _distinct_pairs(hashes, radius, threads, most))
    order, starts, distinct = _arranged(hashes)
    counts = np.diff(starts, append=len(hashes))
    _check_count(int((counts * (counts - 1) // 2).sum()), most)  # before any work
    packed = _distinct_pairs(distinct, radius, threads, most)
    return _split(hashes, _expanded(packed, order, starts, counts, most))


def collapsed(hashes: Hashes) -> tuple[Hashes, Indices]:
    """Collapses equal hashes: `np.unique` with the inverse, several times as fast for hashes.

    Args:
        hashes: uint64 [N], fewer than 2^32.

    Returns:
        The distinct hashes in ascending order, uint64 [D], and which of them each hash is, uint32 [N].
    """
    order, starts, distinct = _arranged(hashes)
    which = np.zeros(len(hashes), np.uint32)
    which[starts[1:]] = 1
    np.cumsum(which, out=which)
    place = np.empty_like(which)
    place[order] = which
    return distinct, place


@dataclass(slots=True)
class _Found:
    """Collects pairs of sorted distinct hashes, each packed as (i << 32 | j).

    Attributes:
        hashes: strictly ascending.
        radius: in bits.
        most: how many pairs there may be.
    """

    hashes: Hashes
    radius: int
    most: int
    packed: list[NDArray[np.uint64]] = field(default_factory=list)
    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, one: Hashes, other: Hashes) -> None:
        """Keep pairs of hashes."""
        low = _places(self.hashes, np.minimum(one, other))
        low <<= np.uint64(32)
        low |= _places(self.hashes, np.maximum(one, other))
        with self.lock:
            self.count += len(low)
            _check_count(self.count, self.most)
            self.packed.append(low)

    def sorted_pairs(self) -> NDArray[np.uint64]:
        """Return all pairs in order of (i, j)."""
        parts, self.packed = self.packed, []
        return _sorted(np.concatenate(parts)) if parts else np.empty(0, np.uint64)


def _distinct_pairs(hashes: Hashes, radius: int, threads: int, most: int) -> NDArray[np.uint64]:
    """Packed pairs of strictly ascending hashes."""
    found = _Found(hashes, radius, most)
    if radius > 0:
        _search(hashes, np.empty(0, np.uint64), found, threads)
    return found.sorted_pairs()


def _search(hashes: Hashes, elsewhere: Hashes, found: _Found, threads: int = 1) -> None:
    """Finds the pairs of distinct hashes, but for those that are equal in all bits of a mask of `elsewhere`."""
    bands = choose_bands(hashes, found.radius, threads)
    if bands is None:
        for one, other in _near_of_all(hashes, found.radius):
            found.add(*_own(one, other, elsewhere))
        return
    ordered = bands.order.apply(hashes)
    masks = np.array([bands.key_mask(key) for key in bands.keys])
    earlier = bands.order.apply(elsewhere)

    def of_key(number: int) -> None:
        _search_key(ordered, bands, bands.keys[number], np.concatenate([earlier, masks[:number]]), found)

    if threads == 1:
        for number in range(len(masks)):
            of_key(number)
        return
    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(of_key, number) for number in range(len(masks))]
        try:
            for key in running:
                key.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _search_key(ordered: Hashes, bands: Bands, key: tuple[int, ...], elsewhere: Hashes, found: _Found) -> None:
    """Finds the pairs with one equal key, but for those that are equal in all bits of a mask of `elsewhere`.

    The values and the masks have the order of the bands.
    """
    key_first = bands.key_first(key)
    key_last, unordered = key_first.undone(), bands.order.undone()
    masks = key_first.apply(elsewhere)
    values = _sorted(key_first.apply(ordered))
    limit = np.uint64(1 << BITS - bands.key_bits(key))  # values of equal keys differ in the bits below alone
    runs = _long_runs(values, limit)
    searched = [(start, stop) for start, stop in runs if _SEARCHED_RUN <= stop - start < len(values)]
    compared = sorted(set(runs) - set(searched))
    crowds = (_near_of_all(values[start:stop], found.radius) for start, stop in compared)
    neighbours = _near_neighbours(values, limit, runs, found.radius)
    near = itertools.chain(neighbours, itertools.chain.from_iterable(crowds))
    for batch in _batched(near):
        one, other = (unordered.apply(key_last.apply(side)) for side in _own(*batch, masks))
        found.add(one, other)
    for start, stop in searched:
        _search(unordered.apply(key_last.apply(values[start:stop])), unordered.apply(elsewhere), found)


def _batched(near: Iterable[tuple[Hashes, Hashes]]) -> Iterator[tuple[Hashes, Hashes]]:
    """The same pairs, few at a time made many: putting back the bits of a few costs as much as of thousands."""
    ones: list[Hashes] = []
    others: list[Hashes] = []
    rows = 0
    for one, other in near:
        ones.append(one)
        others.append(other)
        rows += len(one)
        if rows >= _BLOCK_ROWS:
            yield np.concatenate(ones), np.concatenate(others)
            ones, others, rows = [], [], 0
    if ones:
        yield np.concatenate(ones), np.concatenate(others)


def _own(one: Hashes, other: Hashes, elsewhere: Hashes) -> tuple[Hashes, Hashes]:
    """The pairs that are not equal in all bits of any mask of `elsewhere`: no earlier key finds them."""
    for mask in elsewhere:
        ours = ((one ^ other) & mask) != 0
        if not ours.all():
            one, other = one[ours], other[ours]
    return one, other


def _long_runs(values: Hashes, limit: np.uint64) -> list[tuple[int, int]]:
    """Start and stop of every run of at least _LONG_RUN sorted values with equal keys."""
    probes = values[:: _LONG_RUN // 2]  # a run this long holds two neighbouring probes
    below = limit - np.uint64(1)
    keys = probes[1:][(probes[1:] ^ probes[:-1]) < limit] & ~below
    keys = keys[_changes(keys)]
    starts, stops = np.searchsorted(values, keys), np.searchsorted(values, keys | below, side="right")
    long = stops - starts >= _LONG_RUN
    return list(zip(starts[long].tolist(), stops[long].tolist(), strict=True))


def _near_neighbours(
    values: Hashes, limit: np.uint64, runs: list[tuple[int, int]], radius: int
) -> Iterator[tuple[Hashes, Hashes]]:
    """Near pairs of equal keys among sorted values, but for those inside the long runs.

    Every value is compared with the next one, then with the one after, while any keys of the block are equal.
    """
    begins = [start for start, _ in runs]
    for start in range(0, len(values) - 1, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, len(values) - 1)
        same = np.ones(stop - start, np.bool_)
        for begin, end in runs[max(0, bisect_right(begins, start) - 1) : bisect_right(begins, stop)]:
            same[max(0, begin - start) : max(0, end - start)] = False
        lag = 1
        while True:
            same = same[: len(values) - lag - start]
            ours, theirs = values[start : start + len(same)], values[start + lag : start + lag + len(same)]
            differing = ours ^ theirs
            same &= differing < limit
            near = np.flatnonzero((np.bitwise_count(differing) <= radius) & same)
            if len(near):
                yield ours[near], theirs[near]
            lag += 1
            if np.count_nonzero(same) * _SPARSE <= len(same):
                break
        live = np.flatnonzero(same) + start
        while len(live):
            live = live[: np.searchsorted(live, len(values) - lag)]
            differing = values[live] ^ values[live + lag]
            still = differing < limit
            near = live[(np.bitwise_count(differing) <= radius) & still]
            if len(near):
                yield values[near], values[near + lag]
            live = live[still]
            lag += 1


def _near_of_all(values: Hashes, radius: int) -> Iterator[tuple[Hashes, Hashes]]:
    """Near pairs of all values, some rows with all later ones at a time."""
    row = 0
    while row < len(values) - 1:
        rest = values[row:]
        rows = max(1, _BLOCK_ROWS // len(rest))
        near = np.flatnonzero(np.bitwise_count(rest[:rows, None] ^ rest[None, :]) <= radius)
        first, second = np.divmod(near, len(rest))
        above = first < second
        if above.any():
            yield rest[first[above]], rest[second[above]]
        row += rows


def _arranged(hashes: Hashes) -> tuple[Indices, NDArray[np.int64], Hashes]:
    """The order that sorts the hashes, where each distinct one begins in it, and the distinct ones."""
    order = pl.Series(hashes).arg_sort().to_numpy()
    arranged = hashes[order]
    starts = np.flatnonzero(_changes(arranged))
    return order, starts, arranged[starts]


def _changes(values: Hashes) -> NDArray[np.bool_]:
    """Whether each value differs from the one before; the first does."""
    changes = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=changes[1:])
    return changes


def _ascending(hashes: Hashes) -> bool:
    blocks = (hashes[start : start + _BLOCK_ROWS + 1] for start in range(0, len(hashes), _BLOCK_ROWS))
    return all(bool((block[1:] > block[:-1]).all()) for block in blocks)


def _places(hashes: Hashes, values: Hashes) -> NDArray[np.uint64]:
    """Where values stand among ascending hashes, uint64."""
    order = np.argsort(values)  # sorted values are looked up several times as fast
    places = np.empty(len(values), np.uint64)
    places[order] = np.searchsorted(hashes, values[order])
    return places


def _sorted(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Sorted values: numpy's own sort is four times slower on CPUs whose AVX-512 compresses slowly to memory."""
    return pl.Series(values).sort(multithreaded=False).to_numpy()


def _expanded(
    packed: NDArray[np.uint64],
    order: Indices,
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    most: int,
) -> NDArray[np.uint64]:
    """Pairs of hashes from pairs of distinct ones; distinct hash d is hash order[starts[d]] and counts[d] - 1 more."""
    repeated = np.flatnonzero(counts > 1)
    first = np.concatenate([(packed >> np.uint64(32)).astype(np.int64), repeated])
    second = np.concatenate([(packed & np.uint64(0xFFFFFFFF)).astype(np.int64), repeated])
    sizes = counts[first] * counts[second]
    equal = counts[repeated] * (counts[repeated] - 1) // 2
    _check_count(int(sizes[: len(packed)].sum() + equal.sum()), most)
    nth = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    of_first, of_second = np.divmod(nth, np.repeat(counts[second], sizes))
    one = order[np.repeat(starts[first], sizes) + of_first].astype(np.uint64)
    other = order[np.repeat(starts[second], sizes) + of_second].astype(np.uint64)
    real = (np.repeat(first != second, sizes)) | (one < other)
    one, other = one[real], other[real]
    return _sorted((np.minimum(one, other) << np.uint64(32)) | np.maximum(one, other))


def _split(hashes: Hashes, packed: NDArray[np.uint64]) -> tuple[Indices, Indices, Distances]:
    first = (packed >> np.uint64(32)).astype(np.uint32)
    second = packed.astype(np.uint32)
    return first, second, np.bitwise_count(hashes[first] ^ hashes[second])


def _check_count(count: int, most: int) -> None:
    if count > most:
        msg = (
            f"more than {most:,} pairs of hashes are near each other: collapse equal hashes, take a smaller radius, or "
            "leave out the pictures that crowd together"
        )
        raise TooManyPairsError(msg)

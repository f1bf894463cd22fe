"""Pairs of pictures of near level hashes that the second proof may agree on, without a look at their thumbnails.

Level hashes of calm pictures say little more than how bright they are, so their pairs grow with the square of their
number. They are searched a range of brightness at a time, and of each range only those pairs are kept whose brightness,
texture and perceptual hashes do not rule them out: one in seven of the pool of benchmarks/dedup_quality.py. Where that
is still too many for the range, its calm pictures are left to the perceptual hash alone, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.dedup import level_hash
from stages.dedup.pigeonhole import TooManyPairsError, pairs_within
from stages.dedup.second_proof import BRIGHTNESS_LEVELS, SecondProof, possible

_PIXELS = 256
_REACH = int(BRIGHTNESS_LEVELS * _PIXELS)  # as a difference of sums
_CALM = 3.0  # grey levels: nearly all pairs of the pool are of less texture
_RANGE_ROWS = 1 << 18
_LEAST_ROWS = 1 << 14
_MOST_PAIRS = 8_000_000  # of a range, before most are ruled out: under a gigabyte
_KEPT_PER_ROW = 8  # 128 bytes a row
_SLICE_PAIRS = 1 << 20

_Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What is known of K pictures without their thumbnails.

    Attributes:
        phash: uint64 [K].
        levels: Level hashes, uint64 [K].
        sums: Levels of the thumbnails added up, int32 [K].
        texture: Grey levels, float32 [K].
    """

    phash: NDArray[np.uint64]
    levels: NDArray[np.uint64]
    sums: NDArray[np.int32]
    texture: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class LevelPairs:
    """Pairs to compare.

    Attributes:
        first: int64 [M].
        second: int64 [M], greater than first.
        left_out: How many pictures were not compared, because so many are near each other.
    """

    first: _Index
    second: _Index
    left_out: int


def level_pairs(facts: Facts, some: _Index, proof: SecondProof) -> LevelPairs:
    """Find the pairs among some pictures, which rise."""
    ranked = some[np.argsort(facts.sums[some], kind="stable")]
    sums = facts.sums[ranked].astype(np.int64)
    none = np.empty(0, np.int64)
    found = [(none, none)]
    left_out = start = 0
    rows = _RANGE_ROWS
    while start < len(ranked):
        stop = min(start + rows, len(ranked))
        end = int(np.searchsorted(sums, sums[stop - 1] + _REACH, side="right"))
        of_range = _of_range(facts, ranked[start:end], stop - start, proof, narrower=rows > _LEAST_ROWS)
        if of_range is None:
            rows //= 2
            continue
        found.append(of_range[0])
        left_out += of_range[1]
        start, rows = stop, min(_RANGE_ROWS, rows * 2)
    first, second = (np.concatenate(side) for side in zip(*found, strict=True))
    return LevelPairs(np.minimum(first, second), np.maximum(first, second), left_out)


def _of_range(
    facts: Facts, rows: _Index, own: int, proof: SecondProof, *, narrower: bool
) -> tuple[tuple[_Index, _Index], int] | None:
    """Return the pairs of a range and how many of its own rows were left out; None if a narrower one may do better."""
    for least in (0.0, _CALM):
        some = np.flatnonzero(facts.texture[rows] >= least)
        ours = int(np.searchsorted(some, own))
        try:
            pairs = _pairs(facts, rows[some], ours, proof)
        except TooManyPairsError:
            if narrower and not least:
                return None
            continue
        if pairs is not None:
            return pairs, own - ours
    return (rows[:0], rows[:0]), own


def _pairs(facts: Facts, rows: _Index, own: int, proof: SecondProof) -> tuple[_Index, _Index] | None:
    """Return the pairs among rows, one of them at least among the first `own`; None if more are kept than it may be.

    Raises:
        TooManyPairsError: More than can be looked at.
    """
    low, high, _ = pairs_within(facts.levels[rows], level_hash.RADIUS, most=_MOST_PAIRS)
    kept = _kept(facts, rows, low, high, own, proof)
    if sum(len(one) for one, _ in kept) > _KEPT_PER_ROW * max(own, _LEAST_ROWS):
        return None
    none = np.empty(0, np.int64)
    return np.concatenate([none, *(one for one, _ in kept)]), np.concatenate([none, *(other for _, other in kept)])


def _kept(
    facts: Facts, rows: _Index, one: NDArray[np.uint32], other: NDArray[np.uint32], own: int, proof: SecondProof
) -> list[tuple[_Index, _Index]]:
    """Return the pairs, of which one at least is among the first rows, that the proof may agree on."""
    kept = []
    for start in range(0, len(one), _SLICE_PAIRS):
        low = one[start : start + _SLICE_PAIRS]
        mine = np.flatnonzero(low < own)  # the lower place of a pair
        first, second = rows[low[mine]], rows[other[start : start + _SLICE_PAIRS][mine]]
        likely = possible(facts, facts, first, second, proof)
        kept.append((first[likely], second[likely]))
    return kept

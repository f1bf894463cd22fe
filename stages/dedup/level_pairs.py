"""Pairs of pictures of near level hashes that the second proof may agree on, without a look at their thumbnails.

Level hashes of pictures with little to see say little more than how bright they are, so there are many such pairs. They
are searched a range of brightness at a time, and of each range only those pairs are kept whose brightness, texture and
perceptual hashes do not rule them out: one in seven of the pool of benchmarks/dedup_quality.py.
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
_RANGE_ROWS = 1 << 20
_LEAST_ROWS = 1 << 14
_MOST_PAIRS = 20_000_000  # half a gigabyte
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
        crowd: Pictures, which rise, of which so many are near each other that their pairs would not fit in memory:
            theirs are not among the pairs.
    """

    first: _Index
    second: _Index
    crowd: _Index


def level_pairs(facts: Facts, some: _Index, proof: SecondProof) -> LevelPairs:
    """Find the pairs among some pictures, which rise."""
    ranked = some[np.argsort(facts.sums[some], kind="stable")]
    sums = facts.sums[ranked].astype(np.int64)
    found: list[tuple[_Index, _Index]] = []
    crowds: list[_Index] = []
    start, rows = 0, _RANGE_ROWS
    while start < len(ranked):
        stop = min(start + rows, len(ranked))
        end = int(np.searchsorted(sums, sums[stop - 1] + _REACH, side="right"))
        try:
            one, other, _ = pairs_within(facts.levels[ranked[start:end]], level_hash.RADIUS, most=_MOST_PAIRS)
        except TooManyPairsError:
            if rows > _LEAST_ROWS:
                rows //= 2
                continue
            crowds.append(ranked[start:end])
        else:
            found += _kept(facts, ranked[start:end], one, other, stop - start, proof)
        start, rows = stop, min(_RANGE_ROWS, rows * 2)
    none = np.empty(0, np.int64)
    first = np.concatenate([none, *(one for one, _ in found)])
    second = np.concatenate([none, *(other for _, other in found)])
    crowd = np.unique(np.concatenate([none, *crowds]))
    return LevelPairs(np.minimum(first, second), np.maximum(first, second), crowd)


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

"""The near pass: pictures in order of rank, each joining the best-ranked one that stays and that it looks like."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.dedup.pigeonhole import pairs_within

NO_PROOF = 255.0
"""A thumbnail difference that no pair exceeds: the hash alone decides, for pictures of low texture too."""

LOW_TEXTURE_LEVELS = 6.0
LOW_TEXTURE_SHARE = 1 / 3
_SLICE_ROWS = 1 << 16  # thumbnails compared at once: bounds memory at 32 MiB


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """What is compared of K pictures, best rank first.

    Attributes:
        phash: uint64 [K].
        texture: grey levels, float32 [K].
        thumbnails: uint8 [N, pixels], a table that may hold more pictures in any order.
        rows: int64 [K], where each picture's thumbnail stands in `thumbnails`.
    """

    phash: NDArray[np.uint64]
    texture: NDArray[np.float32]
    thumbnails: NDArray[np.uint8]
    rows: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """Whom each of K pictures joined.

    Attributes:
        leader: int64 [K], index of the picture that stays for it; its own index if it stays itself.
        distance: bits between the two hashes, int16 [K], 0 where it stays.
        confirm: mean absolute thumbnail difference in grey levels, float32 [K], 0 where it stays.
    """

    leader: NDArray[np.int64]
    distance: NDArray[np.int16]
    confirm: NDArray[np.float32]


def join_leaders(pictures: Pictures, radius: int, confirm_levels: float) -> Joined:
    """Visits the pictures from the best rank down and decides which stay.

    A picture that nothing before it claimed stays, and claims every later unclaimed one within the radius that agrees
    with it. As pictures are visited by rank, the first claim is that of the best-ranked leader.

    Equal hashes are collapsed before pairs are searched, so k placeholders of one hash cost no k^2 pairs: each leader
    is compared with the unclaimed members of its own and the neighbouring hashes, which it empties as it claims. The
    worst case is k equal hashes whose thumbnails all disagree; there a difference of mean brightness, which the mean
    absolute difference cannot undercut, rules most of them out before thumbnails are read (20,000 such
    pictures took 4 s, and 21 s where all were equally bright as well).

    Args:
        pictures: the pictures, best rank first.
        radius: greatest hash distance in bits.
        confirm_levels: greatest mean absolute thumbnail difference in grey levels; a third of it where the texture of
            either picture is below LOW_TEXTURE_LEVELS.

    Returns:
        For each picture whom it joined.
    """
    count = len(pictures.phash)
    joined = Joined(np.arange(count), np.zeros(count, np.int16), np.zeros(count, np.float32))
    hashes, of_picture = np.unique(pictures.phash, return_inverse=True)
    neighbours = _neighbours(hashes, of_picture, radius)
    members = _members(of_picture, neighbours)
    visited = np.flatnonzero(np.isin(of_picture, np.fromiter(neighbours, np.int64, len(neighbours))))
    claimed = np.zeros(count, np.bool_)
    proof = _Thumbnails(pictures, visited, confirm_levels)
    for first in visited.tolist():
        if claimed[first]:
            continue
        unclaimed = []
        for near in neighbours[int(of_picture[first])]:
            left = members[near]
            left = members[near] = left[(left > first) & ~claimed[left]]
            if len(left):
                unclaimed.append(left)
        if unclaimed:
            ours, difference = proof.agreeing(first, np.concatenate(unclaimed))
            claimed[ours] = True
            joined.leader[ours] = first
            joined.distance[ours] = np.bitwise_count(pictures.phash[ours] ^ pictures.phash[first])
            joined.confirm[ours] = difference
    return joined


def _neighbours(hashes: NDArray[np.uint64], of_picture: NDArray[np.int64], radius: int) -> dict[int, list[int]]:
    """For every hash with a copy or a neighbour: itself and the hashes within the radius."""
    neighbours = {int(h): [int(h)] for h in np.flatnonzero(np.bincount(of_picture, minlength=len(hashes)) > 1)}
    first, second, _ = pairs_within(hashes, radius)
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        neighbours.setdefault(a, [a]).append(b)
        neighbours.setdefault(b, [b]).append(a)
    return neighbours


def _members(of_picture: NDArray[np.int64], neighbours: dict[int, list[int]]) -> dict[int, NDArray[np.int64]]:
    """The pictures of each listed hash, in order of rank."""
    order = np.argsort(of_picture, kind="stable")
    stops = np.cumsum(np.bincount(of_picture))
    return {h: order[(stops[h - 1] if h else 0) : stops[h]] for h in neighbours}


class _Thumbnails:
    """The second proof, on the thumbnails of the pictures that have a rival; the others' are never copied."""

    def __init__(self, pictures: Pictures, visited: NDArray[np.int64], confirm_levels: float) -> None:
        self._at = np.full(len(pictures.phash), -1)
        self._at[visited] = np.arange(len(visited))
        self._levels = pictures.thumbnails[pictures.rows[visited]]
        self._sums = self._levels.sum(axis=1, dtype=np.int32)
        pixels = pictures.thumbnails.shape[1]
        self._limit = int(confirm_levels * pixels)
        share = 1.0 if confirm_levels >= NO_PROOF else LOW_TEXTURE_SHARE
        self._low_limit = int(confirm_levels * share * pixels)
        self._low = pictures.texture[visited] < LOW_TEXTURE_LEVELS

    def agreeing(self, first: int, others: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Those of the others that agree with the first, and their mean absolute differences in grey levels."""
        one, many = self._at[first], self._at[others]
        limit = np.where(self._low[many] | self._low[one], self._low_limit, self._limit)
        possible = np.abs(self._sums[many] - self._sums[one]) <= limit
        others, many, limit = others[possible], many[possible], limit[possible]
        total = np.empty(len(many), np.int32)
        mine = self._levels[one].astype(np.int16)
        for start in range(0, len(many), _SLICE_ROWS):
            part = slice(start, start + _SLICE_ROWS)
            total[part] = np.abs(self._levels[many[part]] - mine).sum(axis=1, dtype=np.int32)
        agrees = total <= limit
        return others[agrees], (total[agrees] / len(mine)).astype(np.float32)

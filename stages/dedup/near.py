"""The near pass: pictures in order of rank, each joining the best-ranked one that stays and that it looks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.dedup.level_pairs import Facts, LevelPairs, level_pairs
from stages.dedup.pigeonhole import collapsed, pairs_within
from stages.dedup.second_proof import NOTHING_TO_SEE, Looks, SecondProof, confirmed

_SLICE_PAIRS = 1 << 20  # compared at once: bounds memory at about 100 MiB

Rows = NDArray[np.int64]
Thumbnails = Callable[[Rows], NDArray[np.uint8]]
"""Reads the thumbnails, uint8 [n, 256], of the n rows that it is given, which rise."""

Compare = Callable[[Rows, Rows], tuple[NDArray[np.bool_], NDArray[np.float32]]]


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """Whom each of K pictures joined.

    Attributes:
        leader: int64 [K], index of the picture that stays for it; its own index if it stays itself.
        distance: bits between the two hashes, int16 [K], 0 where it stays.
        confirm: standard deviation of the thumbnails' difference, grey levels, float32 [K], 0 where it stays.
        left_out: pictures that were compared by their perceptual hashes alone (`LevelPairs`).
    """

    leader: Rows
    distance: NDArray[np.int16]
    confirm: NDArray[np.float32]
    left_out: int


def join_leaders(facts: Facts, thumbnails: Thumbnails, radius: int, proof: SecondProof | None) -> Joined:
    """Visit pictures from the best rank down and decide which stay.

    Two pictures are rivals if their perceptual hashes are within the radius, or their level hashes within
    `level_hash.RADIUS`; all such pairs are found. A picture that nothing before it claimed stays, and claims every
    later unclaimed rival that agrees with it. As pictures are visited by rank, the first claim is that of the
    best-ranked leader.

    Equal hashes are collapsed before pairs are searched, so k placeholders of one hash cost no k^2 pairs: a leader is
    compared with all its rivals at once. Two pictures that have no other rival, as most copies have, are
    compared with all such pairs at once. The worst case is k pictures of one hash that all disagree, k^2/2 comparisons;
    brightness and texture rule most of them out before thumbnails are looked at.

    Args:
        facts: of K pictures, best rank first.
        thumbnails: reads those of pictures that have a rival; asked for once.
        radius: greatest distance of perceptual hashes in bits.
        proof: when thumbnails agree; None: the perceptual hash alone decides.

    Returns:
        For each picture whom it joined.
    """
    count = len(facts.phash)
    seen = np.arange(count) if proof is None else np.flatnonzero(facts.texture >= NOTHING_TO_SEE)
    pairs = level_pairs(facts, seen, proof) if proof is not None else LevelPairs(seen[:0], seen[:0], 0)
    joined = Joined(np.arange(count), np.zeros(count, np.int16), np.zeros(count, np.float32), pairs.left_out)
    by_hash = _Near.of(facts.phash, radius, seen)
    visited = np.unique(np.concatenate((by_hash.rivals(), pairs.first, pairs.second)))
    if not len(visited):
        return joined
    looks = Looks.of(facts.phash[visited], facts.texture[visited], thumbnails(visited))
    at = np.full(count, -1)
    at[visited] = np.arange(len(visited))

    def compare(one: Rows, many: Rows) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        return confirmed(looks, looks, at[one], at[many], proof)

    edges = _Edges.of(pairs, compare, count)
    first, second = edges.lone_pairs(by_hash)
    agrees, difference = compare(first, second)
    _join(joined, facts.phash, first[agrees], second[agrees], difference[agrees])
    rivals = edges.degrees > 0
    rivals[by_hash.rivals()] = True
    rivals[first] = rivals[second] = False
    claimed = np.zeros(count, np.bool_)
    for leader in np.flatnonzero(rivals).tolist():
        if claimed[leader]:
            continue
        others = np.unique(np.concatenate((by_hash.around(leader), edges.around(leader))))
        others = others[(others > leader) & ~claimed[others]]
        if len(others):
            agrees, difference = compare(np.repeat(leader, len(others)), others)
            ours = others[agrees]
            claimed[ours] = True
            _join(joined, facts.phash, np.repeat(leader, len(ours)), ours, difference[agrees])
    return joined


def _join(
    joined: Joined, phash: NDArray[np.uint64], leader: Rows, member: Rows, difference: NDArray[np.float32]
) -> None:
    joined.leader[member] = leader
    joined.distance[member] = np.bitwise_count(phash[member] ^ phash[leader])
    joined.confirm[member] = difference


@dataclass(frozen=True, slots=True, eq=False)
class _Edges:
    """Pairs of pictures that agree, found by their level hashes; each stands twice.

    Attributes:
        degrees: How many each picture has, int64 [K].
        starts: Where each picture begins in `others`.
        others: The pictures that each agrees with, by picture.
    """

    degrees: Rows
    starts: Rows
    others: Rows

    @classmethod
    def of(cls, pairs: LevelPairs, compare: Compare, count: int) -> _Edges:
        agrees = np.zeros(len(pairs.first), np.bool_)
        for start in range(0, len(agrees), _SLICE_PAIRS):
            part = slice(start, start + _SLICE_PAIRS)
            agrees[part], _ = compare(pairs.first[part], pairs.second[part])
        first, second = pairs.first[agrees], pairs.second[agrees]
        left, right = np.concatenate((first, second)), np.concatenate((second, first))
        degrees = np.bincount(left, minlength=count)
        return cls(degrees, np.cumsum(degrees) - degrees, right[np.argsort(left, kind="stable")])

    def around(self, picture: int) -> Rows:
        """Return the pictures that one agrees with."""
        start = int(self.starts[picture])
        return self.others[start : start + int(self.degrees[picture])]

    def lone_pairs(self, by_hash: _Near) -> tuple[Rows, Rows]:
        """Return the pairs of pictures, better rank first, that have each other as their only rivals by either hash."""
        only = np.full(len(self.degrees), -1)
        one = np.flatnonzero(self.degrees == 1)
        only[one] = self.others[self.starts[one]]
        left, right = by_hash.lone_pairs()
        free = ((self.degrees[left] == 0) | (only[left] == right)) & (
            (self.degrees[right] == 0) | (only[right] == left)
        )
        alone = np.ones(len(self.degrees), np.bool_)
        alone[by_hash.rivals()] = False
        mutual = (one < only[one]) & (only[only[one]] == one) & alone[one] & alone[only[one]]
        first, second = np.concatenate((left[free], one[mutual])), np.concatenate((right[free], only[one[mutual]]))
        return first, second


@dataclass(frozen=True, slots=True, eq=False)
class _Near:
    """Which pictures are near which by their perceptual hashes, through the distinct ones.

    Attributes:
        pictures: The pictures that are compared, which rise, int64 [P].
        counts: How many others each of them is near, int64 [P].
        own: Number of each picture's hash, int64 [P].
        members: The pictures by hash, by rank within one.
        starts: Where each hash begins in `members`; one more than there are hashes.
        neighbours: The hashes near each hash, by hash.
        edges: Where each hash begins in `neighbours`; one more than there are hashes.
    """

    pictures: Rows
    counts: Rows
    own: Rows
    members: Rows
    starts: Rows
    neighbours: Rows
    edges: Rows

    @classmethod
    def of(cls, values: NDArray[np.uint64], radius: int, pictures: Rows) -> _Near:
        hashes, places = collapsed(values[pictures])
        own = places.astype(np.int64)
        first, second, _ = pairs_within(hashes, radius)
        left, right = np.concatenate((first, second)), np.concatenate((second, first))
        sizes, degrees = np.bincount(own, minlength=len(hashes)), np.bincount(left, minlength=len(hashes))
        rivals = sizes - 1 + np.bincount(left, sizes[right], len(hashes)).astype(np.int64)
        return cls(
            pictures=pictures,
            counts=rivals[own],
            own=own,
            members=pictures[np.argsort(own, kind="stable")],
            starts=np.concatenate(([0], np.cumsum(sizes))),
            neighbours=right[np.argsort(left, kind="stable")].astype(np.int64),
            edges=np.concatenate(([0], np.cumsum(degrees))),
        )

    def rivals(self) -> Rows:
        """Return the pictures that are near another."""
        return self.pictures[self.counts > 0]

    def around(self, picture: int) -> Rows:
        """Return all pictures of the same hash and of those near it; none if the picture is not compared."""
        place = int(np.searchsorted(self.pictures, picture))
        if place == len(self.pictures) or self.pictures[place] != picture:
            return np.empty(0, np.int64)
        own = int(self.own[place])
        hashes = np.append(self.neighbours[self.edges[own] : self.edges[own + 1]], own)
        starts, sizes = self.starts[hashes], self.starts[hashes + 1] - self.starts[hashes]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        around: Rows = self.members[np.repeat(starts, sizes) + within]
        return around

    def lone_pairs(self) -> tuple[Rows, Rows]:
        """Return the pairs of pictures, better rank first, that are near each other alone."""
        sizes, degrees = np.diff(self.starts), np.diff(self.edges)
        twins = self.starts[:-1][(sizes == 2) & (degrees == 0)]
        single = (sizes == 1) & (degrees == 1)
        one = np.flatnonzero(single)
        other = self.neighbours[self.edges[one]]
        mutual = single[other] & (one < other)
        left = np.concatenate((self.members[twins], self.members[self.starts[one[mutual]]]))
        right = np.concatenate((self.members[twins + 1], self.members[self.starts[other[mutual]]]))
        return np.minimum(left, right), np.maximum(left, right)

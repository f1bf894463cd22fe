"""The near pass: pictures in order of rank, each joining the best-ranked one that stays and that it looks like."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.dedup.pigeonhole import pairs_within

NO_PROOF = 255.0
"""A thumbnail difference that no pair exceeds: the hash alone decides, for pictures of low texture too."""

LOW_TEXTURE_LEVELS = 6.0
LOW_TEXTURE_SHARE = 1 / 3
_SLICE_ROWS = 1 << 16  # thumbnails compared at once: bounds memory at 32 MiB

Rows = NDArray[np.int64]
Thumbnails = Callable[[Rows], NDArray[np.uint8]]
"""Reads the thumbnails, uint8 [n, pixels], of the n rows that it is given, which rise."""


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """What is compared of K pictures, best rank first.

    Attributes:
        phash: uint64 [K].
        texture: grey levels, float32 [K].
        thumbnails: Reads those of the pictures that have a rival, asked for once.
    """

    phash: NDArray[np.uint64]
    texture: NDArray[np.float32]
    thumbnails: Thumbnails


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """Whom each of K pictures joined.

    Attributes:
        leader: int64 [K], index of the picture that stays for it; its own index if it stays itself.
        distance: bits between the two hashes, int16 [K], 0 where it stays.
        confirm: mean absolute thumbnail difference in grey levels, float32 [K], 0 where it stays.
    """

    leader: Rows
    distance: NDArray[np.int16]
    confirm: NDArray[np.float32]


def join_leaders(pictures: Pictures, radius: int, confirm_levels: float) -> Joined:
    """Visit the pictures from the best rank down and decide which stay.

    A picture that nothing before it claimed stays, and claims every later unclaimed one within the radius that agrees
    with it. As pictures are visited by rank, the first claim is that of the best-ranked leader.

    Equal hashes are collapsed before pairs are searched, so k placeholders of one hash cost no k^2 pairs: a leader is
    compared with all members of its own and the neighbouring hashes at once. Two pictures that have no other rival, as
    most copies have, are compared with all such pairs at once. The worst case is k equal hashes whose thumbnails all
    disagree, k^2/2 comparisons; a difference of mean brightness, which the mean absolute difference cannot undercut,
    rules most of them out before thumbnails are looked at.

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
    near = _Near.of(pictures.phash, radius)
    visited = np.flatnonzero(near.rivals)
    if not len(visited):
        return joined
    proof = _Proof.of(pictures, visited, confirm_levels)
    first, second = near.lone_pairs()
    agrees, difference = proof.compare(first, second)
    _join(joined, pictures.phash, first[agrees], second[agrees], difference[agrees])
    claimed = np.zeros(count, np.bool_)
    lone = np.zeros(count, np.bool_)
    lone[first] = lone[second] = True
    for leader in visited[~lone[visited]].tolist():
        if claimed[leader]:
            continue
        others = near.around(leader)
        others = others[(others > leader) & ~claimed[others]]
        agrees, difference = proof.compare(np.array([leader]), others)
        ours = others[agrees]
        claimed[ours] = True
        _join(joined, pictures.phash, np.full(len(ours), leader), ours, difference[agrees])
    return joined


def _join(
    joined: Joined, phash: NDArray[np.uint64], leader: Rows, member: Rows, difference: NDArray[np.float32]
) -> None:
    joined.leader[member] = leader
    joined.distance[member] = np.bitwise_count(phash[member] ^ phash[leader])
    joined.confirm[member] = difference


@dataclass(frozen=True, slots=True, eq=False)
class _Near:
    """Which pictures are within the radius of which, by their distinct hashes.

    Attributes:
        of_picture: Number of each picture's hash.
        members: The pictures by hash, by rank within one.
        starts: Where each hash begins in `members`; one more than there are hashes.
        neighbours: The hashes near each hash, by hash.
        edges: Where each hash begins in `neighbours`; one more than there are hashes.
        rivals: Of each picture, whether another one has its hash or one near it.
    """

    of_picture: Rows
    members: Rows
    starts: Rows
    neighbours: Rows
    edges: Rows
    rivals: NDArray[np.bool_]

    @classmethod
    def of(cls, phash: NDArray[np.uint64], radius: int) -> "_Near":
        hashes, of_picture = np.unique(phash, return_inverse=True)
        first, second, _ = pairs_within(hashes, radius)
        left, right = np.concatenate((first, second)), np.concatenate((second, first))
        sizes, degrees = np.bincount(of_picture, minlength=len(hashes)), np.bincount(left, minlength=len(hashes))
        return cls(
            of_picture=of_picture,
            members=np.argsort(of_picture, kind="stable"),
            starts=np.concatenate(([0], np.cumsum(sizes))),
            neighbours=right[np.argsort(left, kind="stable")].astype(np.int64),
            edges=np.concatenate(([0], np.cumsum(degrees))),
            rivals=((sizes > 1) | (degrees > 0))[of_picture],
        )

    def around(self, picture: int) -> Rows:
        """Return all pictures of the same hash and of those near it, the picture included."""
        own = int(self.of_picture[picture])
        hashes = np.append(self.neighbours[self.edges[own] : self.edges[own + 1]], own)
        starts, sizes = self.starts[hashes], self.starts[hashes + 1] - self.starts[hashes]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        around: Rows = self.members[np.repeat(starts, sizes) + within]
        return around

    def lone_pairs(self) -> tuple[Rows, Rows]:
        """Return the pairs of pictures, better rank first, that have each other as their only rivals."""
        sizes, degrees = np.diff(self.starts), np.diff(self.edges)
        twins = self.starts[:-1][(sizes == 2) & (degrees == 0)]
        single = (sizes == 1) & (degrees == 1)
        one = np.flatnonzero(single)
        other = self.neighbours[self.edges[one]]
        one, other = (side[single[other] & (one < other)] for side in (one, other))
        left = np.concatenate((self.members[twins], self.members[self.starts[one]]))
        right = np.concatenate((self.members[twins + 1], self.members[self.starts[other]]))
        return np.minimum(left, right), np.maximum(left, right)


@dataclass(frozen=True, slots=True, eq=False)
class _Proof:
    """The second proof, on the thumbnails of the pictures that have a rival.

    Attributes:
        at: Of each picture, its row in the arrays below; -1 where it has no rival.
        levels: Thumbnails.
        sums: Their levels added up.
        low: Whether there is little texture.
        limit: Greatest sum of absolute differences.
        low_limit: The same where either has little texture.
    """

    at: Rows
    levels: NDArray[np.uint8]
    sums: NDArray[np.int32]
    low: NDArray[np.bool_]
    limit: int
    low_limit: int

    @classmethod
    def of(cls, pictures: Pictures, visited: Rows, confirm_levels: float) -> "_Proof":
        at = np.full(len(pictures.phash), -1)
        at[visited] = np.arange(len(visited))
        levels = pictures.thumbnails(visited)
        pixels = levels.shape[1]
        share = 1.0 if confirm_levels >= NO_PROOF else LOW_TEXTURE_SHARE
        return cls(
            at=at,
            levels=levels,
            sums=levels.sum(axis=1, dtype=np.int32),
            low=pictures.texture[visited] < LOW_TEXTURE_LEVELS,
            limit=int(confirm_levels * pixels),
            low_limit=int(confirm_levels * share * pixels),
        )

    def compare(self, one: Rows, many: Rows) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Compare pictures pair by pair, or one with many.

        Returns:
            Whether each pair agrees, and its mean absolute difference in grey levels (what was not looked at because
            the mean brightness differs too much: 255).
        """
        ours, theirs = np.broadcast_to(self.at[one], len(many)), self.at[many]
        limit = np.where(self.low[theirs] | self.low[ours], self.low_limit, self.limit)
        total = np.full(len(many), 255 * self.levels.shape[1], np.int32)
        possible = np.flatnonzero(np.abs(self.sums[theirs] - self.sums[ours]) <= limit)
        for start in range(0, len(possible), _SLICE_ROWS):
            part = possible[start : start + _SLICE_ROWS]
            apart = np.abs(self.levels[theirs[part]].astype(np.int16) - self.levels[ours[part]])
            total[part] = apart.sum(axis=1, dtype=np.int32)
        return total <= limit, (total / self.levels.shape[1]).astype(np.float32)

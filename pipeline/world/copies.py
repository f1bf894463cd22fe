"""The copies that are staged: of which kind, and the check that each is as near as claimed and near nothing else."""

from collections.abc import Iterator, Sequence

from pipeline.world.draft import Picture
from pipeline.world.images import Encoded, distance, encoded_again, shrunk

NEAR = 4
"""A staged near copy is at most this far from its original, in bits of the perceptual hash."""
APART = 8
"""Distinct pictures are at least this far apart."""
CLEAR = 6
"""A near copy is at least this far from every other picture and from their near copies."""


def distinct(pictures: Sequence[Picture]) -> list[Picture]:
    """Return the pictures that are `APART` from all before them, in order."""
    kept: list[Picture] = []
    for picture in pictures:
        if all(distance(picture.image.phash, other.image.phash) >= APART for other in kept):
            kept.append(picture)
    return kept


class NearCopies:
    """Makes near copies of the pictures of one world, and remembers them to keep strangers clear of each other.

    Args:
        pictures: All distinct pictures of the world.
    """

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self._known = [(picture.name, picture.image.phash) for picture in pictures]

    def encoded_again(self, picture: Picture, quality: int) -> Iterator[Encoded]:
        """Yield a re-encoding of ``picture``, or nothing where it would not be near, or near a stranger too."""
        yield from self._checked(picture, encoded_again(picture.image, quality))

    def shrunk(self, picture: Picture, share: float) -> Iterator[Encoded]:
        """Yield a smaller version of ``picture``, or nothing where it would not be near, or near a stranger too."""
        yield from self._checked(picture, shrunk(picture.image, share))

    def _checked(self, picture: Picture, copy: Encoded) -> Iterator[Encoded]:
        near = distance(copy.phash, picture.image.phash) <= NEAR
        clear = all(distance(copy.phash, phash) >= CLEAR for name, phash in self._known if name != picture.name)
        if near and clear and copy.body != picture.image.body:
            self._known.append((picture.name, copy.phash))
            yield copy

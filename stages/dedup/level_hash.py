"""A second hash, of brightness: it finds copies whose perceptual hash is made of noise.

A bit of a perceptual hash says whether a frequency is above the median; of pictures with little to see many frequencies
lie near it, and an encoder turns their bits. This hash is made of sixteen block means of the thumbnail, each cut into
steps and written in Gray code, so that a small change of brightness changes few bits wherever it falls. The steps of
the blocks are shifted against each other, so that a change of the whole picture by half a level changes one bit. The
distance of two hashes is thus about twice the mean difference of their blocks in grey levels, up to some levels; of
steps 16 apart one code returns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RADIUS = 2
"""Greatest distance, bits, at which two pictures are compared by their thumbnails."""

_SIDE = 16
_BLOCKS = 4
_CELLS = (_SIDE // _BLOCKS) ** 2
_STEP = 8  # grey levels
_BITS = 4
# By how many sixteenths of a step each block is shifted: a 4 x 4 Bayer matrix, so that neighbours differ much.
_SHIFTS = np.array([0, 8, 2, 10, 12, 4, 14, 6, 3, 11, 1, 9, 15, 7, 13, 5])


def level_hashes(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the hash of each thumbnail.

    Args:
        thumbnails: uint8 [N, 256], 16 x 16 grey levels row by row.

    Returns:
        uint64 [N].
    """
    cells = thumbnails.reshape(-1, _BLOCKS, _SIDE // _BLOCKS, _BLOCKS, _SIDE // _BLOCKS)
    sums = cells.sum(axis=(2, 4), dtype=np.int64).reshape(len(thumbnails), _BLOCKS * _BLOCKS)
    shifts = _SHIFTS * (_STEP * _CELLS // (_BLOCKS * _BLOCKS))
    steps = (sums + shifts) // (_STEP * _CELLS) % (1 << _BITS)
    codes = (steps ^ (steps >> 1)).astype(np.uint64)
    places = np.arange(_BLOCKS * _BLOCKS, dtype=np.uint64) * np.uint64(_BITS)
    hashes: NDArray[np.uint64] = np.bitwise_or.reduce(codes << places, axis=1)
    return hashes

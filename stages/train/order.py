"""The order of an epoch, and which part of it each rank reads: functions of seed and epoch, so that nothing is stored.

Blocks of neighbouring samples are put in random order, then samples are shuffled inside windows of that order. So reads
stay near one another, as on disks and network file systems they must, and a window still draws from many places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK_SAMPLES = 64
WINDOW_SAMPLES = 8_192


def epoch_order(per_tar: Sequence[int], seed: int, epoch: int) -> NDArray[np.int64]:
    """Return a permutation of all samples, numbered through the tars.

    Args:
        per_tar: Samples in each tar.
        seed: Of the training.
        epoch: Counted from 0.
    """
    bits = _bits(seed, epoch)
    ends = np.cumsum(np.asarray(per_tar, dtype=np.int64))
    blocks = [np.arange(end - n, end, BLOCK_SAMPLES) for n, end in zip(per_tar, ends, strict=True) if n]
    if not blocks:
        return np.empty(0, np.int64)
    starts = np.concatenate(blocks)
    full = ends[np.asarray(per_tar) > 0]
    stops = np.concatenate([np.append(block[1:], end) for block, end in zip(blocks, full, strict=True)])
    shuffled = np.argsort(bits.random_raw(len(starts)), kind="stable")
    order = np.concatenate([np.arange(starts[b], stops[b]) for b in shuffled])
    for first in range(0, len(order), WINDOW_SAMPLES):
        window = order[first : first + WINDOW_SAMPLES]
        order[first : first + WINDOW_SAMPLES] = window[np.argsort(bits.random_raw(len(window)), kind="stable")]
    return order


@dataclass(frozen=True, slots=True)
class Shares:
    """How the batches of an epoch are cut among ranks.

    A batch is the next ``batch`` samples of the epoch's order; rank r takes the r-th part of it. So the batches, and
    the training but for rounding, are the same for any number of ranks.

    Attributes:
        batch: Samples of a whole batch.
        rank: This process.
        world: Processes.
    """

    batch: int
    rank: int = 0
    world: int = 1

    @property
    def own(self) -> int:
        """Samples of a batch that this rank takes."""
        return self.batch // self.world

    def steps(self, samples: int) -> int:
        """Return the whole batches of an epoch; what is left over is not trained on in that epoch."""
        return samples // self.batch

    def of(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this rank's samples in order: its parts of whole batches, then its part of what is left over.

        The latter stands in for samples that turn out to be unusable.
        """
        whole = self.steps(len(order)) * self.batch
        parts = order[:whole].reshape(-1, self.world, self.own)[:, self.rank]
        return np.concatenate([parts.ravel(), order[whole:][self.rank :: self.world]])


def keyed_seed(*key: int) -> int:
    """Return a seed of 63 bits for ``key``, e.g. (seed, epoch, hash of the sample's key)."""
    digest = hashlib.blake2b(digest_size=8, person=b"rs5m-train-1")
    for part in key:
        digest.update(part.to_bytes(16, "little", signed=True))
    return int.from_bytes(digest.digest(), "little") >> 1


def _bits(*key: int) -> np.random.PCG64:
    """Return a source of raw bits: numpy promises that these stay the same, and not its permutations."""
    return np.random.PCG64(keyed_seed(*key))

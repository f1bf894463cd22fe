"""Batches for one rank, in an order that seed and epoch fix, from any position: resuming reads on at the very pair.

Samples are read, decoded and tokenised by worker processes ahead of the training; batches are put together here, in
order, so that neither the number of workers nor their speed changes what a step sees.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from stages.train.members import ShardError
from stages.train.order import Shares, epoch_order
from stages.train.samples import Chunk, Samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

CHUNK_SAMPLES = 32
"""Samples a worker process does at a time: what is in flight is workers x 4 chunks, whatever the batch."""

_CHUNKS_AHEAD = 4
_BATCHES_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Position:
    """Where a rank's reading stands.

    Attributes:
        epoch: Counted from 0.
        taken: Usable samples taken in this epoch.
        cursor: Samples looked at in this epoch.
        skipped: Samples that could not be used, by reason, since the start of the training.
    """

    epoch: int = 0
    taken: int = 0
    cursor: int = 0
    skipped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Pairs for one forward pass of one rank.

    Attributes:
        images: float32 [b, 3, S, S].
        tokens: int64 [b, context].
        after: Where reading stands once these are taken.
    """

    images: Tensor
    tokens: Tensor
    after: Position


class Loader:
    """Endless batches of one rank. Iterate once; close the iterator to stop its workers.

    An epoch is as many whole batches as the tars hold. Where samples turn out to be unusable, those left over after the
    last whole batch stand in, then the first of the rank's own once more: every rank makes the same number of steps.

    Args:
        samples: What is read.
        shares: Which part of each batch this rank takes.
        size: Samples of one batch handed out; divides ``shares.own``.
        seed: Of the order.
        workers: Processes that read ahead; 0: everything happens here, when asked.
        start: Where to start.
        pinned: Whether tensors lie in pinned memory, for copies to a GPU.

    Raises:
        ShardError: If there are fewer samples than one batch; while reading, if none of an epoch can be used.
    """

    def __init__(
        self,
        samples: Samples,
        shares: Shares,
        size: int,
        seed: int,
        *,
        workers: int = 0,
        start: Position | None = None,
        pinned: bool = False,
    ) -> None:
        if shares.steps(len(samples)) < 1:
            raise ShardError(
                f"the training tars hold {len(samples)} pairs and train.batch is {shares.batch}: lower train.batch"
            )
        self._samples, self._shares, self._size, self._seed = samples, shares, size, seed
        self._workers, self._pinned = workers, pinned
        self._quota = shares.steps(len(samples)) * shares.own
        self._start = start or Position()
        self._group = _Group(self._start, size, self._quota, pinned=pinned)

    def __iter__(self) -> Iterator[Batch]:
        return self._batches() if not self._workers else ahead_in_thread(self._batches())

    def _batches(self) -> Iterator[Batch]:
        group = self._group
        for chunk in read_ahead(self._samples, _Wanted(self), self._workers):
            while chunk.epoch > group.at.epoch:
                yield from self._stand_ins()
            if chunk.epoch == group.at.epoch:
                yield from group.add(chunk)

    def _stand_ins(self) -> Iterator[Batch]:
        """Fill up an epoch whose samples are all looked at, with the rank's own from the start."""
        group, epoch = self._group, self._group.at.epoch
        own = self.own_order(epoch)
        if group.is_empty and not group.at.taken:
            raise ShardError(f"none of the {len(own)} pairs of epoch {epoch} can be used: {group.at.skipped}")
        while group.at.epoch == epoch:
            numbers = [int(own[(group.at.cursor + i) % len(own)]) for i in range(self._size)]
            yield from group.add(self._samples[epoch, numbers])

    def own_order(self, epoch: int) -> NDArray[np.int64]:
        """Return this rank's samples of an epoch, in order."""
        return self._shares.of(epoch_order(self._samples.members.per_tar(), self._seed, epoch))

    def wanted(self) -> Iterator[tuple[int, list[int]]]:
        """Yield what is to be read, from the start on, without end."""
        epoch, first = self._start.epoch, self._start.cursor
        while True:
            own = self.own_order(epoch)
            for place in range(first, len(own), CHUNK_SAMPLES):
                yield epoch, own[place : place + CHUNK_SAMPLES].tolist()
            epoch, first = epoch + 1, 0


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What torch's loader asks for the numbers to read."""

    loader: Loader

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        return self.loader.wanted()


class _Group:
    """Puts chunks together into batches, and knows where reading stands after each."""

    def __init__(self, start: Position, size: int, quota: int, *, pinned: bool) -> None:
        self.at = start
        self._size, self._quota, self._pinned = size, quota, pinned
        self._images: list[Tensor] = []
        self._tokens: list[Tensor] = []
        self._held = 0

    @property
    def is_empty(self) -> bool:
        return not self._held

    def add(self, chunk: Chunk) -> Iterator[Batch]:
        """Take in a chunk of the current epoch; what is left of it when the epoch is full is dropped."""
        row, since = 0, 0
        for verdict in chunk.verdicts:
            at = self.at
            skipped = {**at.skipped, verdict: at.skipped.get(verdict, 0) + 1} if verdict else at.skipped
            self.at = replace(at, cursor=at.cursor + 1, skipped=skipped)
            row += not verdict
            if not verdict and self._held + row - since == self._size:
                self._hold(chunk, since, row)
                since = row
                taken = self.at.taken + self._size
                full = taken >= self._quota
                self.at = Position(self.at.epoch + 1, 0, 0, skipped) if full else replace(self.at, taken=taken)
                yield self._batch()
                if full:
                    return
        self._hold(chunk, since, row)

    def _hold(self, chunk: Chunk, first: int, end: int) -> None:
        if end > first:
            self._images.append(chunk.images[first:end])
            self._tokens.append(chunk.tokens[first:end])
            self._held += end - first

    def _batch(self) -> Batch:
        images, tokens = _joined(self._images, pinned=self._pinned), _joined(self._tokens, pinned=self._pinned)
        self._images, self._tokens, self._held = [], [], 0
        return Batch(images, tokens, self.at)


def read_ahead(samples: Samples, wanted: Iterable[tuple[int, list[int]]], workers: int) -> Iterator[Chunk]:
    """Yield what was asked for, in order, read by worker processes (0: in this one)."""
    from torch.utils.data import DataLoader

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # or the tokenizers library warns of every fork
    loader: Any = DataLoader(
        samples,  # type: ignore[arg-type]  # what torch asks of a dataset is __getitem__ alone
        batch_size=None,
        sampler=wanted,
        num_workers=workers,
        collate_fn=_as_it_is,  # type: ignore[arg-type]  # without batches it is given one item
        prefetch_factor=_CHUNKS_AHEAD if workers else None,
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_ignore_ctrl_c if workers else None,
    )
    yield from loader


def in_order(samples: Samples) -> Iterator[tuple[int, list[int]]]:
    """Yield all samples of the tars once, to be read without randomness."""
    for first in range(0, len(samples), CHUNK_SAMPLES):
        yield 0, list(range(first, min(first + CHUNK_SAMPLES, len(samples))))


def ahead_in_thread(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield batches that a thread takes from ``batches`` ahead of the caller, at most two of them."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(_BATCHES_AHEAD)
    stopped = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            break

    def work() -> None:
        try:
            for batch in batches:
                put(batch)
                if stopped.is_set():
                    break
            put(None)
        except BaseException as error:  # noqa: BLE001  (handed to the caller, who raises it)
            put(error)
        finally:
            batches.close()  # type: ignore[attr-defined]  # a generator: its workers end with it

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


def _joined(parts: list[Tensor], *, pinned: bool) -> Tensor:
    import torch

    if not pinned:
        return parts[0] if len(parts) == 1 else torch.cat(parts)
    rows = sum(len(part) for part in parts)
    return torch.cat(parts, out=torch.empty((rows, *parts[0].shape[1:]), dtype=parts[0].dtype, pin_memory=True))


def _as_it_is(chunk: Chunk) -> Chunk:
    return chunk


def _ignore_ctrl_c(worker: int) -> None:
    """Let the training decide what Ctrl-C means: a terminal sends it to the workers too."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)

"""What a training is asked to do, what it is given, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from manifests.canonical import JsonValue
from stages.train.gradients import Precision
from stages.train.ranks import Ranks

VERSION = 1
"""Raised when equal inputs and settings come to other weights; part of the fingerprint."""

Record = dict[str, JsonValue]


class DivergedError(Exception):
    """A loss that is no number: one line that says what to change."""


@dataclass(frozen=True, slots=True)
class Job:
    """How a model is trained; see `manifests.recipe_train.Train` for what each setting means.

    Attributes:
        steps: Optimiser steps, at least 1.
    """

    steps: int
    batch: int
    accumulate: int = 1
    lr: float = 1e-6
    weight_decay: float = 0.5
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    warmup_steps: int = 0
    grad_clip_norm: float = 0.0
    precision: Precision = "fp32"
    seed: int = 0
    log_every_steps: int = 1
    eval_every_steps: int = 0
    checkpoint_every_steps: int = 0
    keep_checkpoints: int = 0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a training is given beside model and data.

    Attributes:
        ranks: The processes.
        folder: Where log.jsonl and checkpoints are written, by rank 0 alone; all ranks read it.
        workers: Processes of each rank that read and decode ahead; 0: the rank itself does it.
        listen: Told every record of the log, on rank 0.
        stop: Asked after every step whether to stop there.
        saved: Told the path of every new checkpoint, on rank 0.
    """

    ranks: Ranks
    folder: Path
    workers: int = 0
    listen: Callable[[Record], None] = lambda _: None
    stop: Callable[[], bool] = lambda: False
    saved: Callable[[Path], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Fitted:
    """How a training ended.

    Attributes:
        steps: Optimiser steps done.
        checkpoint: The last checkpoint.
        complete: Whether all steps are done.
        skipped: Samples that could not be used, by reason, each time they were met.
        recall: Records of validation recall by step, of this process's part of the training; empty on other ranks.
    """

    steps: int
    checkpoint: Path
    complete: bool
    skipped: dict[str, int]
    recall: dict[int, dict[str, float]] = field(default_factory=dict)

"""A whole small training, and a program that does it: ``training.py FOLDER MODEL TAR STEPS CHECKPOINT_EVERY``."""

from __future__ import annotations

import sys
from pathlib import Path

from stages.train.fit import fit
from stages.train.job import Fitted, Job, Surroundings
from stages.train.ranks import Ranks, joined
from tests.stages.train.tiny import samples_of, tiny_trainee

JOB = {"batch": 16, "lr": 1e-3, "weight_decay": 0.1, "warmup_steps": 3, "grad_clip_norm": 1.0, "seed": 5}


def train(
    out: Path,
    model: Path,
    *tars: Path,
    ranks: Ranks | None = None,
    stop_after: int = 0,
    workers: int = 0,
    transform="georsclip",
    validation=None,
    listen=lambda _: None,
    locks=None,
    **changed,
) -> Fitted:
    """Train the tiny model; ``stop_after`` steps of this call it is asked to stop."""
    trainee = tiny_trainee(model, **(locks or {}))
    steps = iter(range(1, 1_000_000))
    around = Surroundings(ranks or Ranks(), out, workers, listen=listen, stop=lambda: next(steps) == stop_after)
    held_out = samples_of(trainee, validation) if validation else None
    return fit(
        trainee, samples_of(trainee, *tars, transform=transform, seed=5), held_out, Job(**{**JOB, **changed}), around
    )


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    out, model, tar, steps, every = sys.argv[1:]
    with joined("cpu") as ranks:
        train(
            Path(out), Path(model), Path(tar), ranks=ranks, steps=int(steps), checkpoint_every_steps=int(every),
            listen=lambda record: sys.stdout.write(f"{record}\n") and sys.stdout.flush(),
        )  # fmt: skip

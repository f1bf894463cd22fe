"""Checkpoints: a folder that open_clip loads, beside what resuming needs. Tensors in safetensors, the rest in JSON.

A checkpoint is written under another name, flushed and renamed, so that a folder called ``checkpoint-<step>`` is whole;
``progress.json`` holds the digests of the other files, so that a damaged one is found out.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.tables import file_sha256
from stages.train.loader import Position
from stages.train.model import CONFIG, WEIGHTS, Trainee

if TYPE_CHECKING:
    import torch
    from torch import nn

OPTIMISER = "optimiser.safetensors"
PROGRESS = "progress.json"
_FORMAT = 1
_NAME = re.compile(r"checkpoint-(\d+)")
_UNFINISHED = ".tmp-"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands.

    Attributes:
        step: Optimiser steps done.
        positions: Where each rank's reading stands, by rank.
        scaler: State of the gradient scaler; empty without one.
    """

    step: int
    positions: tuple[Position, ...]
    scaler: dict[str, float]


def save_checkpoint(folder: Path, trainee: Trainee, optimiser: torch.optim.Optimizer, progress: Progress) -> Path:
    """Write ``checkpoint-<step>`` into ``folder``, all or nothing; return its path."""
    from safetensors.torch import save_file

    final = checkpoint_path(folder, progress.step)
    made = folder / f"{_UNFINISHED}{secrets.token_hex(4)}"
    made.mkdir(parents=True)
    try:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in trainee.model.state_dict().items()}
        save_file(weights, made / WEIGHTS)
        save_file(_optimiser_tensors(trainee.model, optimiser), made / OPTIMISER)
        for name, body in {CONFIG: trainee.folder_config(), **trainee.files}.items():
            (made / name).write_bytes(body)
        digests = {path.name: file_sha256(path) for path in sorted(made.iterdir())}
        document = {"format": _FORMAT, **asdict(progress), "files": digests}
        (made / PROGRESS).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", "utf-8")
        for path in (*made.iterdir(), made):
            _flush(path)
        if final.exists():  # of a run with a damaged checkpoint after it, say: the same steps again
            final.rename(folder / f"{_UNFINISHED}{secrets.token_hex(4)}")
        made.rename(final)
    finally:
        sweep(folder)
    _flush(folder)
    return final


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step is."""
    return folder / f"checkpoint-{step:07d}"


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    found = [(int(name[1]), path) for path in folder.glob("checkpoint-*") if (name := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def read_progress(checkpoint: Path) -> Progress | None:
    """Return where a checkpoint stands; None if a file of it is missing or not what was written."""
    try:
        document: dict[str, Any] = json.loads((checkpoint / PROGRESS).read_text("utf-8"))
        if document["format"] != _FORMAT:
            return None
        if any(file_sha256(checkpoint / name) != digest for name, digest in document["files"].items()):
            return None
        positions = tuple(Position(**position) for position in document["positions"])
        return Progress(int(document["step"]), positions, dict(document["scaler"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load_checkpoint(checkpoint: Path, trainee: Trainee, optimiser: torch.optim.Optimizer) -> None:
    """Put weights and optimiser state back."""
    from safetensors.torch import load_file

    trainee.model.load_state_dict(load_file(checkpoint / WEIGHTS), strict=True)
    tensors = load_file(checkpoint / OPTIMISER)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for index, name in _parameters(trainee.model, optimiser):
        part = {
            key: tensors[f"{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}/{name}" in tensors
        }
        state |= {index: part} if part else {}
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def prune(folder: Path, keep: int) -> list[Path]:
    """Remove all but the newest ``keep`` checkpoints (0: none); return what was removed."""
    gone = checkpoints(folder)[:-keep] if keep else []
    for path in gone:
        shutil.rmtree(path)
    return gone


def sweep(folder: Path) -> None:
    """Remove what interrupted writers left."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def set_aside(checkpoint: Path) -> Path:
    """Rename a damaged checkpoint so that it is not taken for one; return its new path."""
    aside = checkpoint.with_name(f"{checkpoint.name}.corrupt")
    shutil.rmtree(aside, ignore_errors=True)
    return checkpoint.rename(aside)


def _optimiser_tensors(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = optimiser.state_dict()["state"]
    return {
        f"{key}/{name}": tensor.detach().cpu().contiguous()
        for index, name in _parameters(model, optimiser)
        for key, tensor in state.get(index, {}).items()
    }


def _parameters(model: nn.Module, optimiser: torch.optim.Optimizer) -> Iterator[tuple[int, str]]:
    """Yield number and name of every parameter the optimiser has."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    held: Sequence[nn.Parameter] = [p for group in optimiser.param_groups for p in group["params"]]
    for index, parameter in enumerate(held):
        yield index, names[id(parameter)]


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

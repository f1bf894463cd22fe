"""How much memory a training takes: weights and optimiser by count, activations by a trial of two pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.train.gradients import Precision, autocast

if TYPE_CHECKING:
    from torch import Tensor

    from stages.train.model import Trainee

_TRIAL_PAIRS = 2
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Memory:
    """An estimate for one rank, in bytes; what libraries and fragmentation take comes on top.

    Attributes:
        parameters: Number of weights.
        trainable: Number of those that are trained.
        state: Weights, and gradients and two moments of those that are trained, all in float32.
        per_pair: What the forward pass of one pair keeps for the backward pass.
        pairs: Pairs of a part.
    """

    parameters: int
    trainable: int
    state: int
    per_pair: int
    pairs: int

    @property
    def total(self) -> int:
        """State, and the activations of one part."""
        return self.state + self.per_pair * self.pairs


def estimate_memory(trainee: Trainee, precision: Precision, pairs: int) -> Memory:
    """Run two blank pairs forward on the CPU and count what is kept.

    Args:
        trainee: The model, on the CPU.
        precision: Of the training; fp16 is tried as bf16, which takes as much.
        pairs: Pairs of a part: ``train.batch`` over ranks and ``train.accumulate``.
    """
    parameters = list(trainee.model.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    count = sum(p.numel() for p in parameters)
    return Memory(
        parameters=count,
        trainable=trainable,
        state=_FLOAT_BYTES * (count + 3 * trainable),
        per_pair=_kept_bytes(trainee, precision) // _TRIAL_PAIRS,
        pairs=pairs,
    )


def _kept_bytes(trainee: Trainee, precision: Precision) -> int:
    import torch

    known = {p.untyped_storage().data_ptr() for p in (*trainee.model.parameters(), *trainee.model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    size = trainee.preprocess["size"]
    height, width = (size, size) if isinstance(size, int) else size
    trainee.train_mode()
    tokens = trainee.tokenizer(["an aerial image"] * _TRIAL_PAIRS)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, autocast("cpu", "fp32" if precision == "fp32" else "amp_bf16"):
        features = trainee.model(torch.zeros(_TRIAL_PAIRS, 3, height, width), tokens)
    del features
    return sum(kept.values())

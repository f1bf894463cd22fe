"""Optimiser, learning rate, clipping and the bound on the logit scale, by the rules of open_clip's own trainer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

MAX_LOG_SCALE = math.log(100)  # Radford et al. 2021, section 2.5: cosines are multiplied by at most 100


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate by step: linear warm-up, then a half cosine down to 0.

    Attributes:
        lr: Its greatest value.
        warmup_steps: Steps of the warm-up; the first step has lr / warmup_steps.
        steps: All optimiser steps.
    """

    lr: float
    warmup_steps: int
    steps: int

    def at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0 (open_clip_train.scheduler.cosine_lr)."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        done, rest = step - self.warmup_steps, max(1, self.steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * done / rest)) * self.lr


def adamw(
    model: nn.Module, lr: float, weight_decay: float, betas: tuple[float, float] = (0.9, 0.98), eps: float = 1e-6
) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters, in two groups: without decay, and with it.

    Gains, biases, norms and the logit scale are not decayed, by the same rule of names and dimensions as
    open_clip_train.main. Frozen parameters are left out.
    """
    import torch

    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for name, p in trainable if not _decayed(name, p)], "weight_decay": 0.0},
            {"params": [p for name, p in trainable if _decayed(name, p)], "weight_decay": weight_decay},
        ],
        lr=lr,
        betas=betas,
        eps=eps,
        fused=True,  # the same numbers but for rounding; torch's default walks the weights one by one on a CPU
    )


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Give every group of parameters this learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def gradient_norm(model: nn.Module, clip_norm: float) -> Tensor:
    """Return the 2-norm over all gradients, which are scaled down to ``clip_norm`` where that is greater.

    Args:
        model: After backward; with a gradient scaler, after its ``unscale_``.
        clip_norm: 0: nothing is scaled.
    """
    from torch import nn

    gradients = [p for p in model.parameters() if p.grad is not None]
    return nn.utils.clip_grad_norm_(gradients, clip_norm if clip_norm > 0 else math.inf)


def clamp_logit_scale(model: nn.Module) -> None:
    """Keep the parameter ``logit_scale`` of a model between 0 and ln 100."""
    import torch

    with torch.no_grad():
        model.get_parameter("logit_scale").clamp_(0, MAX_LOG_SCALE)


def _decayed(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim >= 2 and not any(part in name for part in ("bn", "ln", "bias", "logit_scale"))

"""The gradients of one optimiser step: forward, loss over all pairs of the batch, backward; in parts to save memory.

A contrastive loss compares every pair of a batch with every other, so parts cannot be summed as they are. Features of
all parts are computed first, without gradients; then each part is run again with gradients among the others' features
(open_clip's accumulation; Gao et al. 2021, GradCache). The sum of the parts' gradients is the whole batch's. Random
draws of a model (dropout) are keyed on (seed, step, rank, part), so that both passes, and a resumed run, draw alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stages.train.contrastive import info_nce, info_nce_over_ranks
from stages.train.order import keyed_seed

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from stages.train.loader import Batch
    from stages.train.ranks import Ranks

Precision = Literal["fp32", "amp_bf16", "amp_fp16"]


@dataclass(frozen=True, slots=True, eq=False)
class Backward:
    """What computes gradients.

    Attributes:
        model: The bare model.
        wrapped: The model as it is run with gradients: DistributedDataParallel over several ranks, else the model.
        ranks: The processes.
        precision: ``fp32``, or mixed: matrix products in bf16 or fp16, weights, loss and optimiser in float32.
        scaler: Scales the loss, for ``amp_fp16``.
        seed: Of the training.
    """

    model: nn.Module
    wrapped: nn.Module
    ranks: Ranks
    precision: Precision
    scaler: torch.amp.GradScaler | None
    seed: int

    def __call__(self, batches: Sequence[Batch], step: int) -> Tensor:
        """Add the gradients of a step to the parameters; return this rank's loss, without gradient.

        Args:
            batches: This rank's share of the batch, in ``train.accumulate`` parts of equal size.
            step: Counted from 0.
        """
        import torch

        seeds = [keyed_seed(self.seed, step, self.ranks.rank, part) for part in range(len(batches))]
        if len(batches) == 1:
            loss = self._loss(*self._features(self.wrapped, batches[0], seeds[0]))
            self._scaled(loss).backward()
            return loss.detach()
        with torch.no_grad():
            cached = [self._features(self.model, batch, seed)[:2] for batch, seed in zip(batches, seeds, strict=True)]
        for part, (batch, seed) in enumerate(zip(batches, seeds, strict=True)):
            last = part == len(batches) - 1
            with contextlib.nullcontext() if last else self._without_sync():
                *own, scale = self._features(self.wrapped, batch, seed)
                images, texts = (
                    torch.cat([own[side] if i == part else pair[side] for i, pair in enumerate(cached)])
                    for side in (0, 1)
                )
                # Each part's loss is that of the whole batch: the scale, which all parts share, counts once.
                loss = self._loss(images, texts, scale if last else scale.detach())
                self._scaled(loss).backward()
        return loss.detach()

    def _features(self, model: nn.Module, batch: Batch, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        import torch

        device = self.ranks.device
        torch.default_generator.manual_seed(seed)
        if device != "cpu":
            torch.cuda.manual_seed(seed)
        images, tokens = batch.images.to(device, non_blocking=True), batch.tokens.to(device, non_blocking=True)
        with autocast(device, self.precision):
            features: dict[str, Any] = model(images, tokens)
        return features["image_features"], features["text_features"], features["logit_scale"]

    def _loss(self, images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
        return (info_nce_over_ranks if self.ranks.world > 1 else info_nce)(images, texts, scale)

    def _scaled(self, loss: Tensor) -> Tensor:
        return self.scaler.scale(loss) if self.scaler else loss

    def _without_sync(self) -> AbstractContextManager[None]:
        no_sync = getattr(self.wrapped, "no_sync", contextlib.nullcontext)
        found: AbstractContextManager[None] = no_sync()
        return found


def autocast(device: str, precision: Precision) -> AbstractContextManager[Any]:
    """Return the context in which a model's matrix products run in the asked precision."""
    import torch

    if precision == "fp32":
        return contextlib.nullcontext()
    kind = torch.bfloat16 if precision == "amp_bf16" else torch.float16
    return torch.autocast(device.partition(":")[0], dtype=kind)


def distributed_model(model: nn.Module, ranks: Ranks) -> nn.Module:
    """Return the model as several ranks run it: gradients are averaged over them in backward."""
    if ranks.world == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(model, device_ids=[ranks.local] if ranks.device != "cpu" else None)

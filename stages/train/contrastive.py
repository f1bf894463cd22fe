"""The symmetric contrastive loss (InfoNCE) of CLIP, in one process or over all ranks of a process group.

    L = 1/2 [ -mean_i sum_j p_ij log softmax_j(s v_i . t_j)  -  mean_i sum_j q_ij log softmax_j(s t_i . v_j) ]

v and t are unit features of pictures and texts, s is the logit scale, p and q say which pairs belong together: the
identity for plain CLIP (Radford et al. 2021, figure 3). Computed in float32 whatever the features' precision, inside
autocast too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def info_nce(
    image_features: Tensor, text_features: Tensor, logit_scale: Tensor | float, targets: Tensor | None = None
) -> Tensor:
    """Return the loss of one batch, a scalar in float32.

    Args:
        image_features: Unit vectors [B, D].
        text_features: Unit vectors [B, D]; row i belongs to picture i.
        logit_scale: What cosines are multiplied by (the exponential of a model's parameter ``logit_scale``).
        targets: Which pairs belong together, and how much: weights >= 0 [B, B], pictures by texts. They are
            normalised over the texts of each picture in one direction and over the pictures of each text in the
            other; a row or column without weight adds nothing. None: the identity.
    """
    import torch
    from torch.nn.functional import cross_entropy

    with torch.autocast(image_features.device.type, enabled=False):
        logits = _scaled(logit_scale) * image_features.float() @ text_features.float().T
        if targets is None:
            pairs = torch.arange(logits.shape[0], device=logits.device)
            return (cross_entropy(logits, pairs) + cross_entropy(logits.T, pairs)) / 2
        weights = targets.to(logits)
        return (_soft_cross_entropy(logits, weights) + _soft_cross_entropy(logits.T, weights.T)) / 2


def info_nce_over_ranks(image_features: Tensor, text_features: Tensor, logit_scale: Tensor | float) -> Tensor:
    """Return this rank's share of the loss over the pairs of all ranks; the mean over ranks is the loss of the whole.

    Features are gathered with their gradients, and each rank compares its own pairs with everyone's ("local loss"):
    gradients averaged over ranks, as DistributedDataParallel does, equal those of one process with the whole batch.

    Args:
        image_features: This rank's unit vectors [B, D]; B is equal on all ranks.
        text_features: This rank's unit vectors [B, D].
        logit_scale: What cosines are multiplied by.
    """
    import torch
    from torch import distributed
    from torch.nn.functional import cross_entropy

    with torch.autocast(image_features.device.type, enabled=False):
        images, texts, scale = image_features.float(), text_features.float(), _scaled(logit_scale)
        all_images, all_texts = _gathered(images), _gathered(texts)
        first = distributed.get_rank() * len(images)
        pairs = torch.arange(first, first + len(images), device=images.device)
        by_image = cross_entropy(scale * images @ all_texts.T, pairs)
        return (by_image + cross_entropy(scale * texts @ all_images.T, pairs)) / 2


def _gathered(own: Tensor) -> Tensor:
    """Return the rows of all ranks [world * B, D]; every rank's gradient comes back to the rank that has the row."""
    import torch
    from torch import distributed

    class Gather(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, rows: Tensor) -> Tensor:
            del ctx
            parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
            distributed.all_gather(parts, rows.contiguous())
            return torch.cat(parts)

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            del ctx
            total = gradient.clone(memory_format=torch.contiguous_format)
            distributed.all_reduce(total)
            return total.chunk(distributed.get_world_size())[distributed.get_rank()]

    gathered: Tensor = Gather.apply(own)  # type: ignore[no-untyped-call]
    return gathered


def _scaled(logit_scale: Tensor | float) -> Tensor | float:
    return logit_scale if isinstance(logit_scale, float | int) else logit_scale.float()


def _soft_cross_entropy(logits: Tensor, weights: Tensor) -> Tensor:
    shares = weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-30)
    return -(shares * logits.log_softmax(dim=1)).sum(dim=1).mean()

"""Recall on validation pairs: how often a picture finds its own caption among the first k of all, and the other way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stages.train.gradients import Precision, autocast
from stages.train.loader import in_order, read_ahead
from stages.train.members import Members
from stages.train.order import keyed_seed
from stages.train.samples import Samples

if TYPE_CHECKING:
    from torch import Tensor

    from stages.train.model import Trainee

AT = (1, 5, 10)
_ROWS = 1_024


def recalls(images: Tensor, texts: Tensor) -> dict[str, float]:
    """Return ``image_to_text_R@k`` and ``text_to_image_R@k`` as shares, k = 1, 5, 10.

    A hit is one's own partner among the k best; of equal scores the one that comes first is the better, as in a stable
    sort. Memory: 1,024 rows of scores at a time.

    Args:
        images: Unit vectors [N, D].
        texts: Unit vectors [N, D]; row i belongs to picture i.
    """
    found: dict[str, float] = {}
    for name, queries, candidates in (("image_to_text", images, texts), ("text_to_image", texts, images)):
        places = _places(queries, candidates)
        found |= {f"{name}_R@{k}": float((places < k).double().mean()) for k in AT}
    return found


def validation_members(members: Members, pairs: int, seed: int) -> Members:
    """Return ``pairs`` samples drawn by their keys (0: all), in the order of the tars."""
    if not pairs or len(members) <= pairs:
        return members
    keys = np.array([keyed_seed(seed, int(key)) for key in members.rows["key"]])
    return members.select(np.sort(np.argsort(keys, kind="stable")[:pairs]))


def evaluate(trainee: Trainee, samples: Samples, device: str, precision: Precision, workers: int) -> dict[str, float]:
    """Return the recalls of the usable samples, and ``pairs``, their number.

    The model is left in eval mode.
    """
    import torch

    trainee.model.eval()
    images, texts = list[torch.Tensor](), list[torch.Tensor]()
    with torch.inference_mode(), autocast(device, precision):
        for chunk in read_ahead(samples, in_order(samples), workers):
            if len(chunk.tokens):
                features = trainee.model(chunk.images.to(device), chunk.tokens.to(device))
                images.append(features["image_features"].float())
                texts.append(features["text_features"].float())
    if not images:
        return {"pairs": 0}
    return {"pairs": sum(map(len, images)), **recalls(torch.cat(images), torch.cat(texts))}


def _places(queries: Tensor, candidates: Tensor) -> Tensor:
    """Return the 0-based place of each query's own candidate in its ranking, int64 [N]."""
    import torch

    every = torch.arange(len(queries), device=queries.device)
    places: list[Tensor] = []
    for first in range(0, len(queries), _ROWS):
        rows = every[first : first + _ROWS]
        scores = queries[rows] @ candidates.T
        own = scores.gather(1, rows[:, None])
        better = (scores > own) | ((scores == own) & (every[None, :] < rows[:, None]))
        places.append(better.sum(dim=1))
    return torch.cat(places)

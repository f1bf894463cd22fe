"""The mini model's two heads and logit scale, trained over features of the frozen towers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from stages.train.contrastive import info_nce
from stages.train.optimise import Schedule, adamw, clamp_logit_scale, gradient_norm, set_learning_rate

SAME_CLASS = 0.2


@dataclass(frozen=True, slots=True)
class Settings:
    """How the heads are trained; an epoch is as many pictures as there are views."""

    seed: int = 0
    epochs: int = 20
    batch: int = 256
    lr: float = 1e-3
    weight_decay: float = 0.1
    warmup_steps: int = 50
    clip_norm: float = 1.0
    photo_share: float = 0.25  # of a batch; by their number alone photographs would be an eighth


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What the frozen towers make of the training data.

    Attributes:
        images: [pictures, views, F], float32; a picture with fewer views repeats them.
        texts: [texts, T], float32.
        choices: For each picture the rows of its texts and their shares.
        labels: A class number for each picture.
        photos: Which pictures are photographs.
    """

    images: NDArray[np.float32]
    texts: NDArray[np.float32]
    choices: list[tuple[NDArray[np.int64], NDArray[np.float64]]]
    labels: NDArray[np.int64]
    photos: NDArray[np.bool_]


class Heads(nn.Module):
    """The parts that open_clip puts on its towers: timm's Mlp on the image's, two layers on the text's."""

    def __init__(self, image_features: int, text_features: int, dimensions: int) -> None:
        super().__init__()
        from timm.layers.mlp import Mlp

        hidden = (text_features + dimensions) // 2
        self.image = Mlp(image_features, 2 * dimensions, dimensions, bias=(True, False))
        self.text = nn.Sequential(
            nn.Linear(text_features, hidden, bias=False), nn.GELU(), nn.Linear(hidden, dimensions, bias=False)
        )
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def named_as_in_open_clip(self) -> dict[str, Tensor]:
        """Return the weights under the names of open_clip's model."""
        names = {"image.": "visual.head.mlp.", "text.": "text.proj."}
        found = {}
        for name, tensor in self.state_dict().items():
            place = next((new + name.removeprefix(old) for old, new in names.items() if name.startswith(old)), name)
            found[place] = tensor.detach().contiguous().clone()
        return found


def train_heads(features: Features, dimensions: int, settings: Settings, say: Callable[[str], None]) -> Heads:
    """Train deterministically: one thread, every draw from the seed."""
    torch.manual_seed(settings.seed)
    torch.set_num_threads(1)
    draws = np.random.default_rng(settings.seed)
    images, texts = torch.from_numpy(features.images), torch.from_numpy(features.texts)
    labels = torch.from_numpy(features.labels)
    heads = Heads(images.shape[2], texts.shape[1], dimensions)
    views = images.shape[1]
    optimiser = adamw(heads, settings.lr, settings.weight_decay)
    per_epoch = len(images) * views // settings.batch
    schedule = Schedule(settings.lr, settings.warmup_steps, per_epoch * settings.epochs)
    share = np.where(features.photos, settings.photo_share, 1 - settings.photo_share)
    share = share / np.where(features.photos, features.photos.sum(), (~features.photos).sum())
    for step in range(schedule.steps):
        rows = draws.choice(len(images), settings.batch, replace=False, p=share)
        view = draws.integers(0, views, len(rows))
        chosen = np.array([draws.choice(features.choices[row][0], p=features.choices[row][1]) for row in rows])
        set_learning_rate(optimiser, schedule.at(step))
        loss = info_nce(
            normalize(heads.image(images[rows, view]), dim=-1),
            normalize(heads.text(texts[chosen]), dim=-1),
            heads.logit_scale.exp(),
            _targets(torch.from_numpy(chosen), labels[rows]),
        )
        optimiser.zero_grad()
        loss.backward()
        gradient_norm(heads, settings.clip_norm)
        optimiser.step()
        clamp_logit_scale(heads)
        if (step + 1) % per_epoch == 0 and (step + 1) // per_epoch % 5 == 0:
            say(f"epoch {(step + 1) // per_epoch} of {settings.epochs}: loss {loss.item():.3f}")
    return heads.eval()


def _targets(texts: Tensor, labels: Tensor) -> Tensor:
    """Return which pairs belong together: equal texts wholly, one class a little."""
    same_text = texts[:, None] == texts[None, :]
    same_class = labels[:, None] == labels[None, :]
    return torch.where(same_text, 1.0, same_class * SAME_CLASS)

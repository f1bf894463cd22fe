"""Pictures to tensors: the model's own way, or with the augmentation of GeoRSCLIP's training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from stages.train.order import keyed_seed

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

Name = Literal["eval", "georsclip"]


class Transform:
    """Turns an RGB picture into a normalised float32 tensor [3, S, S].

    ``eval``: what the model's config says (usually resize the shorter side, centre crop). ``georsclip``: a crop of 0.9
    to 1.0 of the area resized bicubically to S x S, flipped left to right half of the time, turned by any angle
    (corners are black), as in GeoRSCLIP's published preprocessing.

    Args:
        preprocess: The model's preprocessing config: size, mean, std, interpolation, resize_mode, as open_clip has it.
        name: Which transform.
        seed: Of the training; draws are keyed on (seed, epoch, key of the sample) and on nothing else.
    """

    def __init__(self, preprocess: dict[str, Any], name: Name, seed: int) -> None:
        self._seed = seed
        self._random = name == "georsclip"
        self._apply = _georsclip(preprocess) if self._random else _eval(preprocess)

    def __call__(self, picture: Image.Image, epoch: int, key: int) -> Tensor:
        """Return the picture as a tensor."""
        import torch

        if not self._random:
            return self._apply(picture)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(keyed_seed(self._seed, epoch, key))
            return self._apply(picture)


def _eval(preprocess: dict[str, Any]) -> Callable[[Image.Image], Tensor]:
    from stages.torchvision_shim import declare

    declare()
    from open_clip.transform import PreprocessCfg, image_transform_v2

    apply: Callable[[Image.Image], Tensor] = image_transform_v2(PreprocessCfg(**preprocess), is_train=False)
    return apply


def _georsclip(preprocess: dict[str, Any]) -> Callable[[Image.Image], Tensor]:
    from stages.torchvision_shim import declare

    declare()
    from torchvision import transforms

    size = preprocess["size"]
    apply: Callable[[Image.Image], Tensor] = transforms.Compose(
        [
            transforms.RandomResizedCrop(
                size, scale=(0.9, 1.0), interpolation=transforms.InterpolationMode.BICUBIC, antialias=True
            ),
            transforms.RandomHorizontalFlip(),
            transforms.RandomRotation((0, 360)),
            transforms.ToTensor(),
            transforms.Normalize(preprocess["mean"], preprocess["std"]),
        ]
    )
    return apply

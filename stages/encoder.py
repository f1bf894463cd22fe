"""The image-text encoder: pictures and texts to unit vectors of one space, whatever model does it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from manifests.models import ModelSpec, resolve
from stages.picture_files import codec_versions
from stages.step import ModelMissingError

Key = TypeVar("Key")

_LIBRARIES = ("numpy", "open_clip_torch", "pillow", "timm", "tokenizers", "torch", "torchvision", "transformers")
_CUDA_NODES = "nvidia[0-9]*"
_KEPT = 4  # models a process holds at once: the most a recipe names


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how a model runs; all of it is in the numeric profile.

    Attributes:
        device: ``cpu`` or ``cuda``.
        precision: ``fp32``, ``bf16`` or ``fp16`` (mixed precision on a GPU); on the CPU always ``fp32``, whatever was
            asked for: models run in float32 there, and what does not change a number is no other profile.
        batch: Images at a time; the last batch is padded to it.
    """

    device: str = "cpu"
    precision: str = "fp32"
    batch: int = 64

    def __post_init__(self) -> None:
        if self.device == "cpu":
            object.__setattr__(self, "precision", "fp32")


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """What an encoder makes of one picture.

    Attributes:
        embedding: Unit vector, float32 [D]; NaN where the model gave NaN.
        trunk: Features of the image tower before its projection, float32 [F]: what a detector head looks at.
    """

    embedding: NDArray[np.float32]
    trunk: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class NotEncoded:
    """A picture that an encoder cannot take, and why."""

    detail: str


class Encoder(Protocol):
    """A model with an image and a text tower."""

    @property
    def dimensions(self) -> int:
        """D, the length of an embedding."""

    def pictures(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return unit vectors, float32 [N, D], in order.

        Raises:
            OutOfMemoryError: If the device's memory does not hold a batch.
        """

    def bodies(self, bodies: Iterable[tuple[Key, bytes]]) -> Iterator[tuple[Key, Encoded | NotEncoded]]:
        """Decode and encode image files in order, decoding ahead of the model.

        Raises:
            OutOfMemoryError: If the device's memory does not hold a batch.
        """

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors, float32 [N, D], in order; long texts are cut to the model's context.

        Texts of a batch are padded as pictures are: many texts in one call cost less than many calls.
        """


def load_encoder(name: str, placement: Placement, key: str) -> Encoder:
    """Return an encoder, loaded once a process: another batch of the same model shares its weights.

    Args:
        name: A recipe value: a shipped model, or one of the forms of `manifests.models.resolve`.
        placement: Where it runs.
        key: The recipe key that named it, for messages.

    Raises:
        ModelMissingError: It cannot be had: one line that names the key, what was tried and what provides it.
        OutOfMemoryError: The device's memory does not hold the model.
    """
    spec = _resolved(name, key)
    if placement.device not in ("cpu", "cuda"):
        raise ModelMissingError(f"no device {placement.device!r} for {key} = {name!r}; use cpu or cuda")
    try:
        return _encoder(spec, _digest(spec, key), placement)
    except ModelMissingError as error:
        raise ModelMissingError(f"{key} = {name!r}: {error}") from error


def model_digest(name: str, key: str) -> str:
    """Return the digest of a model for a fingerprint, without loading it: see `manifests.models.ModelSpec.digest`.

    Raises:
        ModelMissingError: The value names no model, or its files are gone.
    """
    return _digest(_resolved(name, key), key)


def settled_digest(name: str, key: str) -> str:
    """Return `model_digest`, or nothing where the model is yet to be fetched: its digest will be another one then.

    Raises:
        ModelMissingError: The value names no model, or its files are gone.
    """
    spec = _resolved(name, key)
    digest = _digest(spec, key)
    return digest if spec.is_at_hand else ""


def resolve_device(setting: str) -> str:
    """Return ``cpu`` or ``cuda`` for the recipe's ``run.device``.

    ``auto`` is cuda where this machine has an NVIDIA device and torch is not a build for CPUs; torch is not imported.
    """
    if setting != "auto":
        return setting
    has_device = any(Path("/dev").glob(_CUDA_NODES))
    return "cuda" if has_device and not _version("torch").endswith("+cpu") else "cpu"


def numeric_profile(placement: Placement) -> dict[str, str]:
    """Return what a model's numbers depend on beside its weights.

    That is library versions, those of the codecs that decode its pictures, device kind, precision and batch.
    """
    return (
        {name: _version(name) for name in _LIBRARIES}
        | codec_versions()
        | {
            "device": placement.device,
            "precision": placement.precision,
            "batch": str(placement.batch),
        }
    )


@lru_cache(maxsize=_KEPT)
def _encoder(spec: ModelSpec, digest: str, placement: Placement) -> Encoder:
    """Load; the digest is part of the cache's key, so that a folder whose files changed is loaded anew."""
    if spec.kind == "nano":
        from stages.nano_encoder import NanoEncoder

        return NanoEncoder()
    from stages.open_clip_encoder import OpenClipEncoder, load_towers

    return OpenClipEncoder(load_towers(spec, digest, placement.device, placement.precision), placement.batch)


def _resolved(name: str, key: str) -> ModelSpec:
    try:
        return resolve(name, key)
    except ValueError as error:
        raise ModelMissingError(str(error)) from error


def _digest(spec: ModelSpec, key: str) -> str:
    try:
        return spec.digest
    except ValueError as error:
        raise ModelMissingError(f"{key} = {spec.name!r}: {error}") from error


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"

"""The remote-sensing detector: a logistic regression over an encoder's image features, kept as safetensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from manifests.canonical import canonical_digest, canonical_json
from manifests.models import FOLDER, Head, local_path, resolve
from stages.step import ModelMissingError

SHIPPED = ("mini", "nano")
_ABOUT = "detector"
_MAX_BYTES = 1 << 26
_FIT = "rs5m-build detector fit --positive DIR --negative DIR"


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """A head: P(remote sensing) = sigmoid(weight . features + bias).

    Attributes:
        weight: float64 [F].
        bias: A number.
        metadata: What it was fitted on: ``encoder``, ``features`` and whatever else the fit wrote.
        name: As the recipe names it.
    """

    weight: NDArray[np.float64]
    bias: float
    metadata: Mapping[str, str]
    name: str = ""

    def probability(self, trunk: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return P(remote sensing) of every row, float32 [N]; NaN where a feature is NaN.

        Args:
            trunk: Features of the encoder it was fitted on, [N, F].

        Raises:
            ModelMissingError: The features have another length: it was fitted on another encoder.
        """
        if trunk.ndim != 2 or trunk.shape[1] != len(self.weight):
            fitted = self.metadata.get("encoder", "an unnamed encoder")
            raise ModelMissingError(
                f"the detector {self.name!r} takes {len(self.weight)} features (fitted on {fitted}), the encoder gives "
                f"{trunk.shape[-1]}; fit one for this encoder: {_FIT}"
            )
        logits = trunk.astype(np.float64) @ self.weight + self.bias
        return _sigmoid(logits).astype(np.float32)


def load_detector(name_or_file: str, key: str) -> Detector:
    """Return a shipped head (``mini``, ``nano``) or the one in a file.

    Args:
        name_or_file: The recipe value.
        key: The recipe key, for messages.

    Raises:
        ModelMissingError: There is none of that name, the file is gone, or it is no head.
    """
    found = _found(name_or_file, key)
    if isinstance(found, Head):
        weight = np.asarray(found.weight, dtype=np.float64)
        return Detector(weight, found.bias, {"encoder": name_or_file, "features": str(len(weight))}, name_or_file)
    try:
        tensors, metadata = _read(found)
        weight = tensors["weight"].astype(np.float64)
        bias = tensors["bias"].astype(np.float64)
    except (OSError, ValueError, KeyError) as error:
        raise ModelMissingError(f"{key} = {name_or_file!r}: {found} is no detector head ({error}); {_FIT}") from error
    if weight.ndim != 1 or bias.shape != (1,) or not np.isfinite(weight).all() or not np.isfinite(bias).all():
        raise ModelMissingError(
            f"{key} = {name_or_file!r}: {found} has weight {list(weight.shape)} and bias {list(bias.shape)}; "
            f"wanted [features] and [1], all finite"
        )
    return Detector(weight, float(bias[0]), metadata, name_or_file)


def save_detector(path: Path, weight: ArrayLike, bias: float, metadata: Mapping[str, str]) -> None:
    """Write a head as safetensors: ``weight`` float32 [F], ``bias`` float32 [1], and text metadata as one JSON entry.

    Equal heads are equal bytes: the library writes several entries in an order of its own.

    Args:
        path: The file, replaced in place.
        weight: [F].
        bias: A number.
        metadata: At least ``encoder``, the recipe value it was fitted on; ``features`` is added.

    Raises:
        ValueError: The weight is no vector of finite numbers.
    """
    from safetensors.numpy import save

    values = np.ascontiguousarray(weight, dtype=np.float32)
    if values.ndim != 1 or not np.isfinite(values).all() or not np.isfinite(bias):
        raise ValueError(f"a head is a vector of finite numbers, not {list(values.shape)}")
    told = canonical_json({**metadata, "features": str(len(values))}).decode()
    tensors = {"weight": values, "bias": np.array([bias], dtype=np.float32)}
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(save(tensors, metadata={_ABOUT: told}))
    temporary.replace(path)


def detector_digest(name_or_file: str, key: str = "outlier.detector") -> str:
    """Return the digest of a head for a fingerprint. Raises ModelMissingError as `load_detector`."""
    found = _found(name_or_file, key)
    if isinstance(found, Head):
        return canonical_digest([*found.weight, found.bias])
    try:
        return hashlib.sha256(found.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelMissingError(f"{key} = {name_or_file!r}: cannot read {found} ({error}); {_FIT}") from error


def _found(name_or_file: str, key: str) -> Head | Path:
    if not name_or_file:
        raise ModelMissingError(f"{key} is empty; name a head ({', '.join(SHIPPED)}) or a file, made by {_FIT}")
    if name_or_file == "nano" and (head := resolve("nano", key).head):
        return head
    if name_or_file == "mini":
        return FOLDER / "mini" / "detector.safetensors"
    path = local_path(name_or_file)
    if not path.is_file():
        raise ModelMissingError(
            f"{key} = {name_or_file!r} is neither a shipped head ({', '.join(SHIPPED)}) nor a file; make one: {_FIT}"
        )
    return path


def _read(path: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ValueError(f"{size} bytes")
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get(_ABOUT, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return tensors, {str(name): str(value) for name, value in dict(about).items()}


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)

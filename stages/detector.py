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
_KINDS = frozenset({"float16", "float32", "float64"})
_SHOWN_LETTERS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """A head: P(remote sensing) = sigmoid(weight . features + bias).

    Attributes:
        weight: float64 [F].
        bias: A number.
        metadata: What it was fitted on: ``encoder``, ``features``, ``encoder_digest`` where that was written, and
            whatever else the fit wrote.
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

    def require_encoder(self, encoder: str, digest: str, key: str) -> None:
        """Refuse to judge the features of another encoder than the head was fitted on, equal in number or not.

        Args:
            encoder: The encoder, as the recipe names it.
            digest: Its `stages.encoder.model_digest`; empty: not known yet, as the model is yet to be fetched.
            key: The recipe key that named the head, for messages.

        Raises:
            ModelMissingError: The digest that was written when the head was fitted is another one; or, where none
                was written, the name is.
        """
        fitted, written = self.metadata.get("encoder", ""), self.metadata.get("encoder_digest", "")
        if written in ("", digest) or not digest:
            if written or fitted == encoder:
                return
            said = repr(fitted) if fitted else "an encoder that it does not name"
        else:
            said = f"{fitted!r} with the digest {written}, and {encoder!r} here has the digest {digest}"
        raise ModelMissingError(
            f"{key} = {self.name!r} was fitted on {said}: it cannot judge {encoder!r}; fit one for this encoder: "
            f"{_FIT} --encoder {encoder}"
        )


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
        weight, bias, metadata = _read(found)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:_SHOWN_LETTERS]
        raise ModelMissingError(f"{key} = {name_or_file!r}: {found} is no detector head ({reason}); {_FIT}") from error
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
        metadata: At least ``encoder``, the recipe value it was fitted on, and better ``encoder_digest`` as well, that
            model's `stages.encoder.model_digest`; ``features`` is added.

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


def _read(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, str]]:
    """Return weight, bias and metadata of a file. Raises ValueError for what is no head."""
    from safetensors import SafetensorError, safe_open

    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ValueError(f"{size} bytes")
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get(_ABOUT, "{}"))
            if not isinstance(about, dict):
                raise ValueError(f"its metadata {_ABOUT!r} is no JSON object")
            weight, bias = (_floats(file.get_tensor(name), name) for name in ("weight", "bias"))
            return weight, bias, {str(name): str(value) for name, value in about.items()}
    # A dtype that numpy lacks is a TypeError; JSON may be nested deeper than Python follows.
    except (SafetensorError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _floats(tensor: NDArray[np.generic], name: str) -> NDArray[np.float64]:
    if tensor.dtype.name not in _KINDS:
        raise ValueError(f"{name} is {tensor.dtype.name}; wanted float32")
    return tensor.astype(np.float64)


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)

"""Two scores of a picture: how near it is to the prompts, and how likely the detector takes it for remote sensing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stages.encoder import Encoded, Encoder, NotEncoded
from stages.outlier.thresholds import DECIMALS


class Head(Protocol):
    """A classifier over the features of an image tower."""

    def probability(self, trunk: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return P(remote sensing), float32 [N], of features float32 [N, F]."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What is kept of a picture.

    Attributes:
        vlm: Cosine to the prompts' direction, to 1e-4; None: the encoder gave no number.
        detector: P(remote sensing), to 1e-4; None: no number.
        embedding: Unit vector as little-endian float16; None: the encoder gave no number.
        detail: Why there is no score; empty where there is.
    """

    vlm: float | None
    detector: float | None
    embedding: bytes | None
    detail: str = ""


class Scorer:
    """Scores pictures.

    Args:
        encoder: The image-text model.
        direction: What a picture's cosine is taken to, a unit vector [D]: see `stages.prompts.prompt_vector`.
        head: The detector.
    """

    def __init__(self, encoder: Encoder, direction: NDArray[np.float32], head: Head) -> None:
        self._encoder = encoder
        self._direction = direction.astype(np.float64)
        self._head = head

    def score(self, bodies: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, Scored]]:
        """Yield every body's key and scores, in order.

        Raises:
            OutOfMemoryError: If the encoder's device does not hold a batch, or the memory beside it a picture.
        """
        for key, found in self._encoder.bodies(bodies):
            yield key, self._unscored(found) if isinstance(found, NotEncoded) else self._scored(found)

    def _scored(self, found: Encoded) -> Scored:
        # One picture at a time and in float64: a score does not depend on which pictures it came with.
        vlm = _stored(float(found.embedding.astype(np.float64) @ self._direction))
        detector = _stored(float(self._head.probability(found.trunk[np.newaxis])[0]))
        missing = [name for name, score in (("vlm", vlm), ("detector", detector)) if score is None]
        return Scored(
            vlm,
            detector,
            found.embedding.astype("<f2").tobytes() if np.isfinite(found.embedding).all() else None,
            f"not a number: {', '.join(missing)}" if missing else "",
        )

    @staticmethod
    def _unscored(found: NotEncoded) -> Scored:
        return Scored(None, None, None, found.detail)


def _stored(score: float) -> float | None:
    """Return a score as it is stored: to 1e-4, without a sign on zero; None for what is no number."""
    return round(score, DECIMALS) + 0.0 if math.isfinite(score) else None

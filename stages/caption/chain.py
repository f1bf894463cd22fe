"""The chain that picks captions, on features alone: rank, rank again, and the variance under rotation.

Scores are rounded before they are ranked and stored, so that the last bits of a matrix product decide nothing; equal
scores go by the number of the candidate. A score that is no finite number never wins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

COSINE_DECIMALS = 4
VARIANCE_DECIMALS = 8

Features = NDArray[np.float32]


def cosines(picture: Features, texts: Features) -> list[float]:
    """Return the cosine of every text to the picture, to 1e-4.

    Args:
        picture: Unit vector, float32 [D].
        texts: Unit vectors, float32 [N, D].
    """
    return _rounded(_products(texts, picture[np.newaxis])[:, 0], COSINE_DECIMALS)


def rotation_variances(views: Features, texts: Features) -> list[float]:
    """Return the variance of every text's cosine over the views (population variance), to 1e-8.

    Args:
        views: Unit vectors of one picture's views, float32 [V, D].
        texts: Unit vectors, float32 [N, D].
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return _rounded(np.var(_products(texts, views), axis=1), VARIANCE_DECIMALS)


def best_first(scores: Sequence[float]) -> list[int]:
    """Return the indices of ``scores``, the highest score first; ties by index, what is not finite last."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i] if math.isfinite(scores[i]) else math.inf, i))


def ranks(scores: Sequence[float]) -> list[int]:
    """Return the rank of every score, 1 for the highest; ties by index, what is not finite last."""
    places = {index: place for place, index in enumerate(best_first(scores), start=1)}
    return [places[index] for index in range(len(scores))]


def kept(scores: Sequence[float], keep: int) -> list[int]:
    """Return the indices of the ``keep`` highest finite scores, best first; fewer where there are fewer."""
    return [index for index in best_first(scores) if math.isfinite(scores[index])][:keep]


def steadiest(variances: Sequence[float | None]) -> int | None:
    """Return the index of the least finite variance, ties by index; None where there is none."""
    finite = [(value, i) for i, value in enumerate(variances) if value is not None and math.isfinite(value)]
    return min(finite)[1] if finite else None


def _products(texts: Features, pictures: Features) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", over="ignore"):
        return texts.astype(np.float64) @ pictures.astype(np.float64).T


def _rounded(values: NDArray[np.float64], decimals: int) -> list[float]:
    return [round(float(value), decimals) + 0.0 if math.isfinite(value) else math.nan for value in values]

"""The prompts that the VLM outlier score looks for."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from manifests.canonical import canonical_digest
from stages.encoder import Encoder

_KINDS = ("remote sensing", "aerial", "satellite")
_QUALITIES = (
    "", "low resolution", "bad", "cropped", "bright", "dark", "close-up", "black and white", "jpeg corrupted",
    "blurry", "good",
)  # fmt: skip


@cache
def prompts(name: str) -> tuple[str, ...]:
    """Return a set of prompts.

    ``rs5m-33`` is arXiv 2306.11300v5, appendix B3: "a [quality] <kind> image." for three kinds and eleven qualities.

    Raises:
        ValueError: There is no set of that name.
    """
    if name != "rs5m-33":
        raise ValueError(f"no prompts {name!r}; known: rs5m-33")
    return tuple(_sentence(kind, quality) for kind in _KINDS for quality in _QUALITIES)


def prompts_digest(name: str) -> str:
    """Return the digest of a set of prompts for a fingerprint. Raises ValueError for an unknown name."""
    return canonical_digest(list(prompts(name)))


def prompt_vector(encoder: Encoder, name: str) -> NDArray[np.float32]:
    """Return what a picture's cosine is taken to: the mean of the prompts' unit vectors, as a unit vector [D].

    Whether the paper's features were normalised before the mean is not stated; here they are.
    """
    mean = encoder.texts(prompts(name)).astype(np.float64).mean(axis=0)
    unit: NDArray[np.float32] = (mean / np.linalg.norm(mean)).astype(np.float32)
    return unit


def _sentence(kind: str, quality: str) -> str:
    words = f"{quality} {kind}".strip()
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words} image."

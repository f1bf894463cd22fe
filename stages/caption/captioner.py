"""The captioner seam: pictures to candidate captions, and the seed that each candidate is drawn under."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

_PERSON = b"rs5m-caption-1"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One caption as the captioner wrote it, and the seed it was drawn under."""

    text: str
    seed: int


@dataclass(frozen=True, slots=True)
class NotCaptioned:
    """A picture that gets no caption, and why."""

    detail: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How candidates are drawn.

    Attributes:
        seed: The build's seed.
        candidates: Captions for each image.
        temperature: Divides the logits.
        top_k: Choices that stay at every step; 0: all.
        top_p: Least share of the probability that the likeliest choices must hold to be the only ones left.
    """

    seed: int
    candidates: int
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.95


class Captioner(Protocol):
    """A way to caption pictures."""

    def candidates(self, images: Sequence[tuple[str, Image.Image]]) -> Sequence[list[Candidate] | NotCaptioned]:
        """Return the candidates of each (sample id, RGB picture), in order, or why it has none; a text may be empty.

        What an image gets depends on the picture, its sample id and the settings, never on the images beside it.

        Raises:
            OutOfMemoryError: If the device's memory does not hold the batch.
        """


def candidate_seed(seed: int, sample_id: str, candidate: int) -> int:
    """Return the 64-bit seed of one candidate: BLAKE2b over the build's seed, the sample id and its number."""
    digest = hashlib.blake2b(digest_size=8, person=_PERSON)
    for part in (seed, sample_id, candidate):
        raw = str(part).encode()
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return int.from_bytes(digest.digest(), "little")

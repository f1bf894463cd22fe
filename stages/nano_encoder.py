"""An encoder that is no model: a thumbnail for pictures, hashed words for texts.

It exists so that laws about work (nothing is scored twice, a killed build resumes to the same bytes) are tested on
the nano world in seconds. Its numbers are deterministic and mean nothing; a recipe gets it by the name ``nano`` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from manifests.identity import draw
from stages.encoder import Encoded, NotEncoded
from stages.pictures import PictureError, open_picture

Key = TypeVar("Key")

SIDE = 8
DIMENSIONS = SIDE * SIDE * 3
FEATURES = 14


class NanoEncoder:
    """Pictures become their 8 x 8 thumbnail, texts the mean of a vector drawn for each word."""

    @property
    def dimensions(self) -> int:
        """D, the length of an embedding."""
        return DIMENSIONS

    def pictures(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return unit vectors, float32 [N, D]."""
        rows = [_encoded(picture.convert("RGB")).embedding for picture in pictures]
        return np.stack(rows) if rows else np.empty((0, DIMENSIONS), dtype=np.float32)

    def bodies(self, bodies: Iterable[tuple[Key, bytes]]) -> Iterator[tuple[Key, Encoded | NotEncoded]]:
        """Decode and encode image files in order."""
        for key, body in bodies:
            try:
                yield key, _encoded(open_picture(body))
            except PictureError as error:
                yield key, NotEncoded(str(error))

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors, float32 [N, D]; texts that share words are near each other."""
        rows = [_unit(sum((_word(word) for word in text.lower().split()), _word(""))) for text in texts]
        return np.stack(rows) if rows else np.empty((0, DIMENSIONS), dtype=np.float32)


def _encoded(picture: Image.Image) -> Encoded:
    pixels = np.asarray(picture, dtype=np.float64) / 255
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64) / 255
    grey = np.asarray(picture.convert("L"))
    shares = np.bincount(grey.ravel() >> 5, minlength=8) / grey.size
    statistics = np.concatenate([pixels.mean(axis=(0, 1)), pixels.std(axis=(0, 1)), shares])
    # No grey level is a half: the vector is never zero.
    return Encoded(_unit(small.ravel() - 0.5), statistics.astype(np.float32))


@lru_cache(maxsize=4096)
def _word(word: str) -> NDArray[np.float64]:
    return np.array([draw("nano word", word, place) - 0.5 for place in range(DIMENSIONS)])


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float32]:
    return (vector / np.linalg.norm(vector)).astype(np.float32)

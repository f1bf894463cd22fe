"""Perceptual hashes of a 32 x 32 grey picture, equal to imagehash's bit for bit.

The hash is that of `imagehash.phash` (hash_size 8, highfreq_factor 4): the type-II discrete cosine transform of the
picture, its 8 x 8 lowest frequencies, and one bit for each that is greater than their median, row by row, the first
bit the most significant. Every operation is done on the same types in the same order as there, so that rounding falls
alike.
"""

from typing import Any

import numpy as np
import scipy.fftpack
from numpy.typing import NDArray

SIDE = 32
_LOW = 8
_MIDDLE = _LOW * _LOW // 2


def _turns() -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """From where each of the eight turned pictures takes its low frequencies, and with which sign; both [8, 64]."""
    places = np.arange(_LOW * _LOW).reshape(_LOW, _LOW)
    odd_columns = np.where(np.arange(_LOW) % 2 == 1, -1.0, 1.0)
    taken, signs = [], []
    for mirrored in (np.ones(_LOW), odd_columns):
        place, sign = places, np.broadcast_to(mirrored, (_LOW, _LOW))
        for _ in range(4):
            taken.append(place.ravel())
            signs.append(sign.ravel())
            place, sign = place.T, (sign * odd_columns).T
    return np.stack(taken), np.stack(signs)


_TURNED, _SIGNS = _turns()


def phash(luma32: NDArray[np.uint8]) -> int:
    """Hash of a picture.

    Args:
        luma32: grey levels, uint8, shape [32, 32]: `image.convert("L").resize((32, 32), LANCZOS)`.

    Returns:
        64 bits, equal to `int(str(imagehash.phash(image)), 16)`.

    Raises:
        ValueError: Wrong shape or type.
    """
    return _bits(_low_frequencies(luma32).reshape(1, -1))[0]


def phash_d4(luma32: NDArray[np.uint8]) -> tuple[int, ...]:
    """Hashes of the eight rotations and reflections of a picture, from one transform.

    Entry k (0 to 3) is the hash of `np.rot90(luma32, k)`, entry 4 + k that of `np.rot90(np.fliplr(luma32), k)`; entry 0
    equals `phash`. A reflection changes the sign of every odd frequency along its axis and a quarter turn transposes as
    well, so no other picture is transformed. Against hashing the turned picture itself the result differs only where a
    frequency equals the median to within rounding, as in pictures made of even blocks or of a plain gradient
    (at most 8 bits were seen to differ); noise, stripes, flat and real pictures agreed bit for bit.

    Args:
        luma32: grey levels, uint8, shape [32, 32].

    Returns:
        Eight 64-bit hashes.

    Raises:
        ValueError: Wrong shape or type.
    """
    return tuple(_bits(_low_frequencies(luma32).ravel()[_TURNED] * _SIGNS))


def texture(thumbnail: NDArray[np.uint8]) -> float:
    """How much there is to see: the standard deviation of a thumbnail.

    The sums are of whole numbers, so the result does not depend on the order of addition.

    Args:
        thumbnail: grey levels, uint8, any shape that is not empty.

    Returns:
        Population standard deviation in grey levels, 0 to 127.5, rounded to float32.
    """
    levels = thumbnail.astype(np.int64)
    total, squares, count = int(levels.sum()), int((levels * levels).sum()), levels.size
    return float(np.float32(np.sqrt(count * squares - total * total) / count))


def _low_frequencies(luma32: NDArray[np.uint8]) -> NDArray[np.float64]:
    if luma32.shape != (SIDE, SIDE) or luma32.dtype != np.uint8:
        msg = f"a picture to hash must be uint8 of {SIDE} x {SIDE}, not {luma32.dtype} of {luma32.shape}"
        raise ValueError(msg)
    transform: Any = scipy.fftpack.dct(scipy.fftpack.dct(luma32, axis=0), axis=1)
    low: NDArray[np.float64] = transform[:_LOW, :_LOW]
    return low


def _bits(low: NDArray[np.float64]) -> list[int]:
    """Hashes of pictures by their low frequencies, float64 [pictures, 64]."""
    middle = np.partition(low, (_MIDDLE - 1, _MIDDLE), axis=1)[:, _MIDDLE - 1 : _MIDDLE + 1]
    above = low > ((middle[:, 0] + middle[:, 1]) / 2)[:, None]  # np.median of 64 numbers, without its checks
    return [int.from_bytes(row, "big") for row in np.packbits(above, axis=1)]

"""Thumbnails of one scene that agree with each other although their level hashes differ, and of strangers."""

import numpy as np
import scipy.linalg

_SIGNS = np.kron(scipy.linalg.hadamard(16).reshape(16, 4, 4), np.ones((4, 4), int))  # by blocks of 4 x 4 cells
_SCENE = np.random.default_rng(7).integers(60, 190, (16, 16))


def scene(number, amplitude=6, brighter=0):
    """Variant `number`, 1 to 15: half of its blocks are lighter, half darker, none on the whole."""
    return (_SCENE + amplitude * _SIGNS[number] + brighter).astype(np.uint8).ravel().tolist()


def stranger(seed):
    return np.random.default_rng(seed).integers(0, 256, 256).astype(np.uint8).tolist()

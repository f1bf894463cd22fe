import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.dedup.level_hash import level_hashes

THUMBNAILS = st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed).integers(0, 240, 256).astype(np.uint8))


def bits(one, other):
    hashes = level_hashes(np.stack([one, other])).tolist()
    return (hashes[0] ^ hashes[1]).bit_count()


@given(THUMBNAILS, st.integers(1, 4))
def test_a_brighter_picture_changes_two_bits_a_level(thumbnail, levels):
    """Sixteen blocks with steps of eight levels, shifted evenly against each other: two a level, but for roundings."""
    flat = np.full(256, thumbnail[0])
    assert bits(flat, flat + np.uint8(levels)) == 2 * levels
    assert bits(thumbnail, thumbnail + np.uint8(levels)) <= 16


@given(THUMBNAILS, st.integers(0, 15))
def test_one_block_by_less_than_a_step_changes_one_bit_at_most(thumbnail, block):
    row, column = divmod(block, 4)
    changed = thumbnail.reshape(16, 16).copy()
    changed[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] += 7
    assert bits(thumbnail, changed.ravel()) <= 1


def test_strangers_are_far_apart_and_nothing_has_no_hash():
    draw = np.random.default_rng(0).integers(0, 256, (200, 16))
    blocks = np.repeat(np.repeat(draw.reshape(200, 4, 4), 4, axis=1), 4, axis=2).reshape(200, 256).astype(np.uint8)
    hashes = level_hashes(blocks)
    apart = np.bitwise_count(hashes[:100] ^ hashes[100:])
    assert 20 < apart.mean() < 40
    assert apart.min() > 10
    assert level_hashes(blocks[:0]).shape == (0,)

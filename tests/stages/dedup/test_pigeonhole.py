import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.dedup import pigeonhole
from stages.dedup.pigeonhole import choose_bands, pairs_within


def brute(hashes, radius):
    pairs = [
        (i, j, (int(a) ^ int(b)).bit_count())
        for (i, a), (j, b) in itertools.combinations(enumerate(hashes.tolist()), 2)
        if (int(a) ^ int(b)).bit_count() <= radius
    ]
    return sorted(pairs)


def found(hashes, radius):
    i, j, distance = pairs_within(hashes, radius)
    assert (i.dtype, j.dtype, distance.dtype) == (np.int64, np.int64, np.uint8)
    return list(zip(i.tolist(), j.tolist(), distance.tolist(), strict=True))


@st.composite
def crowded(draw):
    """Hashes around a few centres, so that most distances matter; some equal."""
    centres = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3))
    flips = st.lists(st.integers(0, 63), max_size=10)
    members = draw(st.lists(st.tuples(st.sampled_from(centres), flips), max_size=40))
    return np.array([c ^ sum(1 << b for b in set(bits)) for c, bits in members], dtype=np.uint64)


@given(crowded(), st.integers(0, 16))
@settings(max_examples=150)
def test_equals_brute_force_when_comparing_all(hashes, radius):
    assert found(hashes, radius) == brute(hashes, radius)


@given(crowded(), st.integers(0, 5), st.integers(0, 3), st.sampled_from([2, 3, 256]))
@settings(max_examples=200)
def test_equals_brute_force_through_the_bands(hashes, radius, extra, dense_run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pigeonhole, "choose_bands", lambda _, radius: max(4, radius + 1) + extra)
        patch.setattr(pigeonhole, "_DENSE_RUN", dense_run)
        patch.setattr(pigeonhole, "_BLOCK_PAIRS", 16)
        assert found(hashes, radius) == brute(hashes, radius)


@pytest.mark.parametrize("radius", [0, 1, 2, 4, 6])
def test_finds_planted_copies_among_many(radius):
    draw = np.random.default_rng(radius)
    hashes = draw.integers(0, 2**64, 20_000, dtype=np.uint64)
    for copy in range(0, 200, 2):
        for bit in draw.choice(64, draw.integers(0, 9), replace=False):
            hashes[copy] = hashes[copy] ^ np.uint64(1 << int(bit))
        hashes[copy + 10_000] = hashes[copy]
        hashes[copy] ^= np.uint64(0b101)
    assert choose_bands(len(hashes), radius) > radius, "the bands must be what is tested here"
    everything = []
    for row in range(len(hashes) - 1):
        distance = np.bitwise_count(hashes[row + 1 :] ^ hashes[row])
        everything += [(row, row + 1 + k, int(distance[k])) for k in np.flatnonzero(distance <= radius).tolist()]
    assert len(everything) == (100 if radius >= 2 else 0)
    assert found(hashes, radius) == everything


def test_a_long_run_of_equal_keys_is_compared_in_blocks():
    draw = np.random.default_rng(1)
    crowd = np.uint64(0xABCD << 48) | draw.integers(0, 1 << 40, 3_000, dtype=np.uint64)
    hashes = np.concatenate((crowd, draw.integers(0, 2**64, 60_000, dtype=np.uint64)))
    pairs = found(hashes, 4)
    inside = [pair for pair in pairs if pair[1] < len(crowd)]
    assert inside == found(crowd, 4)
    assert pairs == sorted(pairs)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_for_a_pair(count):
    assert found(np.zeros(count, np.uint64), 4) == []


def test_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match="0 to 16"):
        pairs_within(np.zeros(2, np.uint64), 17)
    with pytest.raises(ValueError, match="uint64"):
        pairs_within(np.zeros(2, np.int64), 4)


def test_more_bands_than_radius_or_none_at_all():
    for rows, radius in itertools.product((10, 10_000, 1_000_000, 10_000_000), range(17)):
        bands = choose_bands(rows, radius)
        assert bands == 0 or bands > radius
    assert choose_bands(100, 4) == 0

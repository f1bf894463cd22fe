import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.dedup.second_proof import Looks, SecondProof, confirmed, proof_of

PROOF = SecondProof(0.8, 0.86)


def looks(thumbnails, phash=None):
    levels = np.asarray(thumbnails, np.uint8).reshape(-1, 256)
    texture = levels.std(axis=1).astype(np.float32)
    return Looks.of(np.zeros(len(levels), np.uint64) if phash is None else phash, texture, levels)


def limit(one, other, bits=0, proof=PROOF):
    return proof.limit(np.array([float(one)]), np.array([float(other)]), np.array([bits]))[0]


def test_the_limit_follows_the_formula():
    assert limit(20, 20) == pytest.approx((0.64 + 800 * 0.14) ** 0.5)
    assert limit(20, 20, 4) == pytest.approx((0.64 + 800 * (0.14 - 0.024)) ** 0.5)
    assert limit(20, 20, 40) == pytest.approx(0.8)
    assert limit(1.0, 20) == pytest.approx((40 * 0.14) ** 0.5)
    assert limit(0.4, 20) == -1


@given(st.integers(0, 10**6), st.floats(0, 30), st.integers(0, 3), st.integers(0, 40))
def test_it_says_the_same_of_both_sides_and_yes_of_equals(seed, noise, brighter, flips):
    draw = np.random.default_rng(seed)
    one = draw.integers(40, 200, 256)
    other = np.clip(one + draw.normal(0, noise, 256).round() + brighter, 0, 255)
    both = looks([one, other, one], np.array([0, (1 << flips) - 1, 0], np.uint64))
    places = np.array([0, 1, 0]), np.array([1, 0, 2])
    agrees, differ = confirmed(both, both, *places, PROOF)
    assert agrees[0] == agrees[1]
    assert agrees[2]
    assert differ[2] == 0
    whole, every = confirmed(both, both, *places, None)
    assert whole.all()
    assert every[0] == pytest.approx((one - other).std(), abs=1e-4)


def test_what_was_ruled_out_early_would_have_been_refused_anyway():
    draw = np.random.default_rng(3)
    base = draw.integers(0, 256, (8, 256))
    many = looks(
        np.clip(
            base[draw.integers(0, 8, 120)] + draw.integers(-3, 4, (120, 256)) * draw.integers(0, 9, (120, 1)), 0, 255
        )
    )
    one, other = np.divmod(np.arange(120 * 120), 120)
    agrees, differ = confirmed(many, many, one, other, PROOF)
    _, every = confirmed(many, many, one, other, None)
    bright = np.abs(many.sums[one] - many.sums[other]) <= 384
    limits = PROOF.limit(many.texture[one], many.texture[other], np.zeros(len(one), np.int64))
    allowed = bright & (every <= limits)
    assert not (agrees & ~allowed).any()
    assert agrees.sum() > 120
    np.testing.assert_allclose(differ[agrees], every[agrees])


def test_settings():
    keys = {"dedup.confirm": "thumbnail", "dedup.confirm_noise": 1, "dedup.confirm_correlation": 0.5}
    assert proof_of(keys) == SecondProof(1.0, 0.5)
    assert proof_of(keys | {"dedup.confirm": "none"}) is None

"""The rule of near copies, two rows at a time, in plain arithmetic."""

import numpy as np

from stages.dedup.level_hash import RADIUS, level_hashes
from stages.dedup.second_proof import (
    BRIGHTNESS_LEVELS,
    CALM,
    CORRELATION_PER_BIT,
    INNER_NOISE,
    INNER_SLACK,
    NOTHING_TO_SEE,
    ROUNDING,
)


def alike(a, b, radius, proof):
    """Whether two rows are near copies, by the stated rule."""
    bits = (a["phash"] ^ b["phash"]).bit_count()
    ours, theirs = (np.array(row["thumbnail"], np.uint8) for row in (a, b))
    one, other = level_hashes(np.stack([ours, theirs])).tolist()
    if proof is None:
        return bits <= radius
    if bits > radius and (one ^ other).bit_count() > RADIUS:
        return False
    apart, least = ours.astype(int) - theirs, min(a["texture"], b["texture"])
    within = explained(apart, a["texture"], b["texture"], bits, proof.noise, proof.correlation)
    inside = [side.reshape(16, 16)[2:-2, 2:-2] for side in (ours, theirs, apart)]
    noise, correlation = proof.noise * INNER_NOISE, proof.correlation - INNER_SLACK
    inner = explained(inside[2], inside[0].std(), inside[1].std(), bits, noise, correlation, min(noise, ROUNDING))
    return bool(least >= NOTHING_TO_SEE and abs(apart.mean()) <= BRIGHTNESS_LEVELS and within and inner)


def explained(apart, one, other, bits, noise, correlation, calm_noise=0.0):
    allowed = noise if min(one, other) >= CALM else calm_noise
    slack = max(0.0, 1 - correlation - CORRELATION_PER_BIT * bits)
    return apart.std() <= (allowed**2 + 2 * one * other * slack) ** 0.5

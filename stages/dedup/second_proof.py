"""The second proof: when the thumbnails of two pictures say that they are the same one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from manifests.canonical import JsonValue

BRIGHTNESS_LEVELS = 1.5
"""Greatest difference of mean brightness, grey levels: encoders and resamplers keep it."""

CORRELATION_PER_BIT = 0.006
"""How much more alike the thumbnails must be for every bit that the hashes differ in."""

CALM = 1.25
"""Texture, grey levels, below which no noise is allowed for: it would be all that there is to see."""

INNER_NOISE = 0.75
"""Share of the noise that is allowed for in the inner cells."""

INNER_SLACK = 0.02
"""How much less the inner cells may correlate: they are fewer."""

ROUNDING = 0.41
"""What rounding two thumbnails to whole grey levels adds to the deviation of their difference: sqrt(2 / 12)."""

NOTHING_TO_SEE = 0.5
"""Texture below which a picture is nobody's near copy: only its bytes and its url tell it from others."""


@dataclass(frozen=True, slots=True)
class SecondProof:
    """Two thumbnails agree if they are nearly as bright, and differ no more than noise and resampling explain.

    With a and b the textures (standard deviations) of the two thumbnails and r their correlation, the standard
    deviation e of their difference satisfies e^2 = (a - b)^2 + 2 a b (1 - r). They agree if

        e^2 <= noise^2 + 2 a b (1 - correlation - CORRELATION_PER_BIT * bits)

    and the same holds of their inner 12 x 12 cells, with INNER_NOISE of the noise and INNER_SLACK less correlation:
    pictures with a like border correlate by the border. So for pictures with much to see the correlation decides, the
    more strictly the more bits their hashes differ in, and for pictures with little to see the noise that an encoder
    adds is allowed for. Mean absolute differences, as a proof, pass pictures that are flat but for one corner, whose
    hashes agree as well. Fitted on re-encoded and resized copies of overhead tiles: benchmarks/dedup_quality.py.

    Attributes:
        noise: Grey levels that an encoder may add to a thumbnail.
        correlation: Least correlation of thumbnails whose hashes are equal.
    """

    noise: float
    correlation: float

    def limit(
        self, one: NDArray[np.float64], other: NDArray[np.float64], bits: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the greatest e at which pairs agree, grey levels; below 0 where they agree by no thumbnail.

        Args:
            one: Textures of the one side, grey levels.
            other: Textures of the other.
            bits: Distance of the hashes.
        """
        noise = np.where(np.minimum(one, other) >= CALM, self.noise, 0.0)
        limit = _explained(one, other, bits, noise, self.correlation)
        return np.where(np.minimum(one, other) >= NOTHING_TO_SEE, limit, -1.0)

    def inner_limit(
        self, one: NDArray[np.float64], other: NDArray[np.float64], bits: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the same for the inner cells, of these textures; calm ones may differ by what rounding adds."""
        share = INNER_NOISE * self.noise
        noise = np.where(np.minimum(one, other) >= CALM, share, min(share, ROUNDING))
        return _explained(one, other, bits, noise, self.correlation - INNER_SLACK)


def _explained(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    bits: NDArray[np.int64],
    noise: NDArray[np.float64],
    correlation: float,
) -> NDArray[np.float64]:
    spread = 2.0 * one * other * np.maximum(1.0 - correlation - CORRELATION_PER_BIT * bits, 0.0)
    explained: NDArray[np.float64] = np.sqrt(noise * noise + spread)
    return explained


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """What the second proof looks at of N pictures.

    Attributes:
        phash: uint64 [N].
        texture: grey levels, float64 [N].
        thumbnails: uint8 [N, 256].
        sums: Their levels added up, int64 [N].
    """

    phash: NDArray[np.uint64]
    texture: NDArray[np.float64]
    thumbnails: NDArray[np.uint8]
    sums: NDArray[np.int64]

    @classmethod
    def of(cls, phash: NDArray[np.uint64], texture: NDArray[np.float32], thumbnails: NDArray[np.uint8]) -> Looks:
        """Take what is known of pictures."""
        return cls(phash, texture.astype(np.float64), thumbnails, thumbnails.sum(axis=1, dtype=np.int64))


def proof_of(settings: Mapping[str, JsonValue]) -> SecondProof | None:
    """Return the second proof that settings ask for, by dotted name; None where the hash alone decides."""
    if settings["dedup.confirm"] == "none":
        return None
    noise, correlation = settings["dedup.confirm_noise"], settings["dedup.confirm_correlation"]
    return SecondProof(float(cast("float", noise)), float(cast("float", correlation)))


_PIXELS = 256
_SIDE = 16
_BORDER = 2
_SLICE_ROWS = 1 << 15  # thumbnails compared at once: bounds memory at about 32 MiB
_Rows = NDArray[np.int64]


class Known(Protocol):
    """What can be looked at of pictures without their thumbnails: columns of one length."""

    @property
    def phash(self) -> NDArray[np.uint64]:
        """Perceptual hashes."""

    @property
    def texture(self) -> NDArray[Any]:
        """Grey levels."""

    @property
    def sums(self) -> NDArray[Any]:
        """Levels of the thumbnails added up."""


def possible(ours: Known, theirs: Known, one: _Rows, other: _Rows, proof: SecondProof) -> NDArray[np.bool_]:
    """Tell of pairs whether brightness, texture and hashes let them agree; arguments as of `confirmed`."""
    bright: NDArray[np.bool_] = (
        np.abs(ours.sums[one].astype(np.int64) - theirs.sums[other]) <= BRIGHTNESS_LEVELS * _PIXELS
    )
    likely = np.flatnonzero(bright)
    a, b = ours.texture[one[likely]].astype(np.float64), theirs.texture[other[likely]].astype(np.float64)
    # e is at least the difference of the textures, which float32 holds to seven digits.
    bright[likely] = np.abs(a - b) <= _limits(ours, theirs, one[likely], other[likely], proof) + 1e-4
    return bright


def _limits(ours: Known, theirs: Known, one: _Rows, other: _Rows, proof: SecondProof) -> NDArray[np.float64]:
    bits = np.bitwise_count(ours.phash[one] ^ theirs.phash[other]).astype(np.int64)
    return proof.limit(ours.texture[one].astype(np.float64), theirs.texture[other].astype(np.float64), bits)


def confirmed(
    ours: Looks, theirs: Looks, one: _Rows, other: _Rows, proof: SecondProof | None
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Compare pictures pair by pair.

    Args:
        ours: The pictures of the one side.
        theirs: Those of the other.
        one: Places in ours, [M].
        other: Places in theirs, [M].
        proof: None: every pair agrees, and e is told of every one.

    Returns:
        Whether each pair agrees, and its e in grey levels (NaN where what is cheaper to look at ruled it out).
    """
    differ = np.full(len(one), np.nan, np.float32)
    looked_at, limit = np.arange(len(one)), np.full(len(one), np.inf)
    if proof is not None:
        looked_at = np.flatnonzero(possible(ours, theirs, one, other, proof))
        limit = _limits(ours, theirs, one[looked_at], other[looked_at], proof)
    for start in range(0, len(looked_at), _SLICE_ROWS):
        part = looked_at[start : start + _SLICE_ROWS]
        differ[part] = _spread(ours.thumbnails[one[part]], theirs.thumbnails[other[part]])
    agrees = np.zeros(len(one), np.bool_)
    agrees[looked_at] = differ[looked_at] <= limit
    if proof is not None:
        likely = np.flatnonzero(agrees)
        for start in range(0, len(likely), _SLICE_ROWS):
            part = likely[start : start + _SLICE_ROWS]
            agrees[part] = _inner_agrees(ours, theirs, one[part], other[part], proof)
    return agrees, differ


def _inner_agrees(ours: Looks, theirs: Looks, one: _Rows, other: _Rows, proof: SecondProof) -> NDArray[np.bool_]:
    left, right = _inner(ours.thumbnails[one]), _inner(theirs.thumbnails[other])
    bits = np.bitwise_count(ours.phash[one] ^ theirs.phash[other]).astype(np.int64)
    limit = proof.inner_limit(_spread(left, np.uint8(0)), _spread(right, np.uint8(0)), bits)
    agrees: NDArray[np.bool_] = _spread(left, right) <= limit
    return agrees


def _inner(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    cells = thumbnails.reshape(-1, _SIDE, _SIDE)[:, _BORDER:-_BORDER, _BORDER:-_BORDER]
    return cells.reshape(len(thumbnails), -1)


def _spread(ours: NDArray[np.uint8], theirs: NDArray[np.uint8] | np.uint8) -> NDArray[np.float64]:
    """Standard deviations of differences, from sums of whole numbers: no order of addition changes them."""
    apart = ours.astype(np.int32) - theirs
    pixels = apart.shape[1]
    total, squares = apart.sum(axis=1, dtype=np.int64), (apart * apart).sum(axis=1, dtype=np.int64)
    spread: NDArray[np.float64] = np.sqrt(pixels * squares - total * total) / pixels
    return spread

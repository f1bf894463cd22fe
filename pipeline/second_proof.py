"""What a near pair was judged against: the greatest hash distance, and the greatest difference of the thumbnails."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np

from manifests.manifest import Manifest
from stages.dedup.second_proof import SecondProof, proof_of


@dataclass(frozen=True, slots=True)
class Rule:
    """The settings that a commit of dedup.cluster was made under.

    Attributes:
        radius: Greatest distance of perceptual hashes, bits.
        proof: When thumbnails agree; None: the perceptual hash alone decides.
    """

    radius: int
    proof: SecondProof | None

    @classmethod
    def of(cls, manifest: Manifest) -> Rule:
        """Read the rule out of the commit's own settings."""
        settings = manifest.parts.recipe
        return cls(cast("int", settings["dedup.radius"]), proof_of(settings))

    def limit(self, one: float, other: float, bits: int) -> float:
        """Return the greatest difference of two thumbnails that agree, grey levels; infinite without a second proof.

        Args:
            one: Texture of one picture, grey levels.
            other: Texture of the other.
            bits: Distance of their hashes.
        """
        if self.proof is None:
            return math.inf
        return float(self.proof.limit(np.array([one]), np.array([other]), np.array([bits]))[0])

"""What a near pair was judged against: the greatest hash distance, and the greatest difference of the thumbnails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from manifests.manifest import Manifest
from stages.dedup.near import LOW_TEXTURE_LEVELS, LOW_TEXTURE_SHARE, NO_PROOF


@dataclass(frozen=True, slots=True)
class Rule:
    """The settings that a commit of dedup.cluster was made under.

    Attributes:
        radius: Greatest hash distance, bits.
        levels: Greatest mean absolute thumbnail difference, grey levels; `NO_PROOF`: hashes alone decide.
    """

    radius: int
    levels: float

    @classmethod
    def of(cls, manifest: Manifest) -> Rule:
        """Read the rule out of the commit's own settings."""
        settings = manifest.parts.recipe
        proven = settings["dedup.confirm"] == "thumbnail"
        levels = float(cast("float", settings["dedup.confirm_levels"])) if proven else NO_PROOF
        return cls(cast("int", settings["dedup.radius"]), levels)

    def limit(self, one: float, other: float) -> float:
        """Return the limit for two pictures, in grey levels: a share of it where either has little texture.

        Args:
            one: Texture of one picture, grey levels.
            other: Texture of the other.
        """
        low = min(one, other) < LOW_TEXTURE_LEVELS and self.levels < NO_PROOF
        return self.levels * LOW_TEXTURE_SHARE if low else self.levels

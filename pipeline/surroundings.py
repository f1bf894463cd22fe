"""What of a step's fingerprint the machine tells: models, pinned inputs, the numeric profile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from manifests.canonical import JsonValue, canonical_digest
from manifests.commits import CommitStore, StepCommits
from manifests.fingerprint import Parts
from manifests.recipe import Settings
from stages.dedup.evaluation_sets import alike_but_unseen
from stages.step import ModelMissingError, Step

_BATCH = "batch"


class Surroundings:
    """A step's models, pins and numeric profile as this machine has them.

    Args:
        step: The step.
        settings: What it reads and asks.
        lenient: Whether a model that is missing is no error: its commits are recognised by everything else.
    """

    def __init__(self, step: Step, settings: Settings, *, lenient: bool) -> None:
        self._step = step
        self._settings = settings
        self._lenient = lenient
        self.missing = False
        self.profile = step.profile(settings)
        try:
            self.models = step.models(settings)
        except ModelMissingError:
            if not lenient:
                raise
            self.models, self.missing = {}, True

    def pins(self, params: dict[str, JsonValue]) -> dict[str, str]:
        """Return the pins of one partition."""
        try:
            return self._step.pins(self._settings, params)
        except ModelMissingError:
            if not self._lenient:
                raise
            self.missing = True
            return {}

    def made_elsewhere(
        self, planned: Mapping[str, Parts], listed: StepCommits, commits: CommitStore
    ) -> dict[str, Parts]:
        """Return the parts of commits that are alike, by partition, of one generation as far as it reaches.

        A generation is what was made with the same models and profile, whatever the batch: that of the most partitions
        comes first, then by digest, so that no two readers and no two partitions choose otherwise.

        Args:
            planned: What this machine would make, by partition.
            listed: The step's commits.
            commits: Reads them.
        """
        names = [passes[-1] for p in planned for _, passes in sorted(listed.names.get(p, {}).items())]
        found: dict[str, list[tuple[str, Parts]]] = {}
        for name, manifest in zip(names, commits.stream(names), strict=True):
            if self.is_alike(manifest.parts, planned[name.partition]):
                found.setdefault(name.partition, []).append((_generation(manifest.parts), manifest.parts))
        reach = Counter(generation for made in found.values() for generation in {generation for generation, _ in made})

        def rank(made: tuple[str, Parts]) -> tuple[int, str, int, str]:
            generation, parts = made
            return -reach[generation], generation, -int(parts.profile.get(_BATCH, "0")), parts.fingerprint

        return {partition: min(made, key=rank)[1] for partition, made in found.items()}

    def is_alike(self, made: Parts, planned: Parts) -> bool:
        """Tell whether what was made differs at most in models, profile and unseen evaluation sets."""
        own: dict[str, object] = {"models": planned.models, "profile": planned.profile, "inputs": planned.inputs}
        if self.missing:
            own["pins"] = planned.pins
        return alike_but_unseen(made.inputs, planned.inputs) and made.model_copy(update=own) == planned


def _generation(parts: Parts) -> str:
    profile = {key: value for key, value in parts.profile.items() if key != _BATCH}
    return canonical_digest([dict(parts.models), dict(profile)])


def with_batch(parts: Parts, batch: int) -> Parts:
    """Return ``parts`` with the batch as part of the numeric profile."""
    return parts.model_copy(update={"profile": {**parts.profile, _BATCH: str(batch)}})

"""What of a step's fingerprint the machine tells: models, pinned inputs, the numeric profile."""

from __future__ import annotations

from collections.abc import Mapping

from manifests.canonical import JsonValue
from manifests.commits import CommitStore
from manifests.fingerprint import Parts
from manifests.manifest import CommitName
from manifests.recipe import Settings
from stages.dedup.evaluation_sets import alike_but_unseen
from stages.step import ModelMissingError, Step


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
        self, parts: Parts, passes: Mapping[str, list[CommitName]], commits: CommitStore
    ) -> Parts | None:
        """Return the parts of a commit that differs at most in models, profile and unseen evaluation sets, or None."""
        if parts.fingerprint[:16] in passes:
            return None
        own: dict[str, object] = {"models": parts.models, "profile": parts.profile}
        if self.missing:
            own["pins"] = parts.pins
        for _, names in sorted(passes.items()):
            made = commits.read(names[-1]).parts
            if alike_but_unseen(made.inputs, parts.inputs):
                own["inputs"] = parts.inputs
            else:
                own.pop("inputs", None)
            if made.model_copy(update=own) == parts:
                return made
        return None


def with_batch(parts: Parts, batch: int) -> Parts:
    """Return ``parts`` with the batch as part of the numeric profile."""
    return parts.model_copy(update={"profile": {**parts.profile, "batch": str(batch)}})

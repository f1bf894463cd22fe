"""What a plan says of a step: its partitions, which of them are done, and why the others are not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from manifests.canonical import JsonValue
from manifests.fingerprint import Change, Parts
from manifests.manifest import Manifest
from pipeline.worker import InputFile, PriorFiles
from stages.step import Step

State = Literal["done", "open", "todo"]


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """One partition of a step.

    Attributes:
        parts: What its fingerprint is made of.
        fingerprint: 32 hex digits.
        inputs: The upstream files it reads.
        params: What the step is told about it.
        state: done: settled; open: committed with deferred rows; todo: no commit of this fingerprint.
        manifest: The commit that counts, if there is one.
        number: The pass that the next commit would be.
        prior: Earlier commits whose rows may be taken over, the current one first.
        why: What changed since the nearest earlier commit of this partition.
    """

    step: str
    partition: str
    parts: Parts
    fingerprint: str
    inputs: list[InputFile]
    params: dict[str, JsonValue]
    state: State
    manifest: Manifest | None
    number: int
    prior: list[PriorFiles]
    why: list[Change]

    @property
    def name(self) -> str:
        """``<step>/<partition>``."""
        return f"{self.step}/{self.partition}"


@dataclass(slots=True)
class StepPlan:
    """All partitions of a step that can be told now.

    Attributes:
        names: All its partitions, those included whose inputs are not settled yet.
        waiting: Upstream partitions, ``<step>/<partition>``, that must be settled first.
        corrupt: Files that are gone or have another size than recorded.
    """

    step: Step
    partitions: list[PartitionPlan] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    corrupt: dict[str, str] = field(default_factory=dict)

    def settled(self) -> dict[str, Manifest]:
        """Return the manifests of settled partitions."""
        return {p.partition: p.manifest for p in self.partitions if p.state == "done" and p.manifest}

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.waiting and all(p.state == "done" for p in self.partitions)

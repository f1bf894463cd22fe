"""What a plan says of a step: its partitions, which of them are done, and why the others are not."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from manifests.canonical import JsonValue
from manifests.fingerprint import Change, Frame, Parts
from manifests.manifest import CommitName, Manifest, Receipt
from manifests.records import Records
from pipeline.worker import InputFile, PriorFiles
from stages.step import Step

State = Literal["done", "open", "todo"]

NO_COMMIT = -1


class Details(Protocol):
    """What can be told of a step's partitions, found out when it is asked for."""

    records: Records

    def inputs(self, partition: str) -> list[InputFile]:
        """Return the upstream files that a partition reads."""

    def digests(self, partition: str) -> list[tuple[str, str, str]]:
        """Return what a partition's inputs add to its fingerprint, sorted."""

    def params(self, partition: str) -> dict[str, JsonValue]:
        """Return what the step is told about a partition."""

    def manifests(self, rows: Collection[int]) -> Iterator[Manifest]:
        """Yield commits by their rows in the records."""

    def name(self, row: int) -> CommitName:
        """Return the name of a commit by its row in the records."""

    def receipts(self, paths: Collection[str]) -> list[Receipt]:
        """Return the receipts of files that commits point at."""

    def renew(self) -> None:
        """Let commits of this run count as earlier ones."""

    def forget(self) -> None:
        """Let go of what can be found out again."""

    def counted(self) -> None:
        """Let go of what partitions are given: nobody asks for it again."""

    def prior(self, plan: PartitionPlan) -> list[PriorFiles]:
        """Return earlier commits whose rows a partition may take over."""

    def why(self, plan: PartitionPlan) -> list[Change]:
        """Return what changed since a partition's nearest earlier commit."""


class PartitionPlan:
    """One partition of a step: what planning decided, and the rest when it is asked for.

    Attributes:
        step: ``<stage>.<step>``.
        partition: Its name.
        state: done: settled; open: committed with deferred rows; todo: no commit of this fingerprint.
        row: The row of the commit that counts in the step's records, or `NO_COMMIT`.
        number: The pass that the next commit would be.
        batch: Its batch size; 0 where the step is not batched.
    """

    __slots__ = ("_details", "_frame", "_inputs", "_parts", "batch", "number", "partition", "row", "state", "step")

    def __init__(self, step: str, partition: str, frame: Frame | Parts, details: Details, batch: int = 0) -> None:
        self.step = step
        self.partition = partition
        self.state: State = "todo"
        self.row = NO_COMMIT
        self.number = 0
        self.batch = batch
        self._frame = frame
        self._details = details
        self._parts: Parts | None = None
        self._inputs: list[InputFile] | None = None

    @property
    def name(self) -> str:
        """``<step>/<partition>``."""
        return f"{self.step}/{self.partition}"

    @property
    def parts(self) -> Parts:
        """What its fingerprint is made of."""
        if self._parts is None:
            frame = self._frame
            self._parts = frame.parts(self._details.digests(self.partition)) if isinstance(frame, Frame) else frame
        return self._parts

    @property
    def fingerprint(self) -> str:
        """32 hex digits."""
        return self.parts.fingerprint

    @property
    def inputs(self) -> list[InputFile]:
        """The upstream files it reads."""
        if self._inputs is None:
            self._inputs = self._details.inputs(self.partition)
        return self._inputs

    @property
    def params(self) -> dict[str, JsonValue]:
        """What the step is told about it."""
        told = self._details.params(self.partition)
        return {**told, "batch": self.batch} if self.batch else told

    @property
    def manifest(self) -> Manifest | None:
        """The commit that counts, if there is one."""
        return next(self._details.manifests([self.row]), None) if self.row != NO_COMMIT else None

    @property
    def prior(self) -> list[PriorFiles]:
        """Earlier commits whose rows may be taken over, the current one first."""
        return self._details.prior(self) if self.state != "done" else []

    @property
    def why(self) -> list[Change]:
        """What changed since the nearest earlier commit of this partition."""
        return self._details.why(self) if self.state == "todo" and self.row == NO_COMMIT else []

    def halved(self, frame: Frame) -> None:
        """Plan it anew at half its batch, under the frame that goes with that."""
        self._frame, self._parts, self.batch = frame, None, self.batch // 2

    def committed(self, row: int, state: State) -> None:
        """Note a commit of it; what was found out for its task is let go of."""
        self.row, self.state, self.number = row, state, self.number + 1
        self._parts = self._inputs = None


@dataclass(slots=True)
class StepPlan:
    """All partitions of a step that can be told now.

    Attributes:
        details: What is told of its partitions when asked.
        names: All its partitions, those included whose inputs are not settled yet.
        waiting: Upstream partitions, ``<step>/<partition>``, that must be settled first.
        corrupt: Files that are gone or have another size than recorded.
    """

    step: Step
    details: Details
    partitions: list[PartitionPlan] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    corrupt: dict[str, str] = field(default_factory=dict)

    def settled(self) -> dict[str, Manifest]:
        """Return the manifests of settled partitions."""
        done = self.done
        return dict(zip((p.partition for p in done), self.details.manifests([p.row for p in done]), strict=True))

    def committed(self) -> Iterator[Manifest]:
        """Yield the manifests that count: of settled partitions, and of open ones as far as they are."""
        yield from self.details.manifests([p.row for p in self.partitions if p.row != NO_COMMIT and p.state != "todo"])

    @property
    def has_commits(self) -> bool:
        """Whether any partition is committed, settled or open."""
        return any(p.row != NO_COMMIT and p.state != "todo" for p in self.partitions)

    @property
    def done(self) -> list[PartitionPlan]:
        """The settled partitions."""
        return [p for p in self.partitions if p.state == "done"]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.waiting and all(p.state == "done" for p in self.partitions)

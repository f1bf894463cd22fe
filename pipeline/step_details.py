"""What can be told of one step's partitions beyond their state: found out when a task, or a person, needs it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from itertools import chain

from manifests.canonical import JsonValue
from manifests.commits import CommitStore, StepCommits
from manifests.fingerprint import Change, Parts, changes
from manifests.manifest import CommitName, Manifest, Receipt
from manifests.records import Records, layout_digest
from pipeline.earlier import Earlier
from pipeline.plans import NO_COMMIT, PartitionPlan
from pipeline.upstream import Outputs
from pipeline.worker import InputFile, PriorFiles
from stages.step import Step


class StepDetails:
    """The details of one step's plan.

    Args:
        step: The step.
        commits: All commits.
        listed: The step's commits as they were listed.
        records: What they say.
        given: What partitions are given.
        pooled: Returns the facts of the pooling that counts, which tell how rows are cut into partitions now.
        is_retried: Whether the failed rows of a partition are to be tried again.
    """

    def __init__(
        self,
        step: Step,
        commits: CommitStore,
        listed: StepCommits,
        records: Records,
        given: Given,
        pooled: Callable[[], Mapping[str, JsonValue]],
        is_retried: Callable[[str], bool],
    ) -> None:
        self._step = step
        self._commits = commits
        self._listed: StepCommits | None = listed
        self._given = given
        self._earlier: Earlier | None = None
        self._places: dict[str, int] | None = None
        self._pooled = pooled
        self._is_retried = is_retried
        self.records = records

    def inputs(self, partition: str) -> list[InputFile]:
        """Return the upstream files that a partition reads."""
        return self._given.files(partition)

    def digests(self, partition: str) -> list[tuple[str, str, str]]:
        """Return what a partition's inputs add to its fingerprint, sorted."""
        return self._given.digests(partition)

    def params(self, partition: str) -> dict[str, JsonValue]:
        """Return what the step is told about a partition."""
        return self._given.params(partition)

    def manifests(self, rows: Collection[int]) -> Iterator[Manifest]:
        """Yield commits by their rows in the records."""
        return self._commits.stream(self.name(row) for row in rows)

    def prior(self, plan: PartitionPlan) -> list[PriorFiles]:
        """Return earlier commits with an equal row fingerprint: of the partition, and of others cut another way."""
        if not self._step.carries:
            return []
        if self._earlier is None:
            layout = layout_digest(self._pooled())
            self._earlier = Earlier(self._step, self._commits, self.records, layout, self.name)
        wanted = plan.parts.row_fingerprint(recording=self._step.recording)
        found = self._earlier.commits(plan.partition, wanted)
        current = self.name(plan.row) if plan.row != NO_COMMIT else None
        if current is not None:  # a pass of this very fingerprint takes the place of the one before it
            found = [c for c in found if (c.name.partition, c.name.fp16) != (current.partition, current.fp16)]
            newest = self._earlier.read(current)
            found += [newest] if newest and newest.row_fingerprint == wanted else []
        found.sort(key=lambda c: (c.name != current, c.name.partition != plan.partition, c.name.partition, c.name.fp16))
        return [self._as_prior(commit.files) for commit in found]

    def why(self, plan: PartitionPlan) -> list[Change]:
        """Return what changed since a partition's nearest earlier commit."""
        if self._listed is None:
            self._listed = self._commits.step(self._step.name)
        others = self._listed.names.get(plan.partition, {}) if self._listed.files else {}
        parts: Parts = plan.parts
        found = [list(changes(self._commits.read(passes[-1]).parts, parts)) for passes in others.values()]
        return min(found, key=len, default=[])

    def receipts(self, paths: Collection[str]) -> list[Receipt]:
        """Return the receipts of files that commits point at. Raises KeyError for one that none points at."""
        if self._places is None:
            self._places = {path: at for at, path in enumerate(self.records.outputs("path").to_pylist())}
        return [self.records.receipt(self._places[path]) for path in paths]

    def forget(self) -> None:
        """Let go of what can be found out again."""
        self._listed = self._earlier = self._places = None

    def counted(self) -> None:
        """Let go of what partitions are given: nobody asks for it again."""
        self._given = Given([], [], {}, {}, reduces=False)

    def renew(self) -> None:
        """Let commits of this run count as earlier ones."""
        self._earlier = self._places = None

    def name(self, row: int) -> CommitName:
        """Return the name of a commit by its row in the records."""
        file = str(self.records.value("name", row))
        name = CommitName.parse(self._step.name, file)
        if name is None:
            raise ValueError(f"{file} is no name of a commit")
        return name

    def _as_prior(self, files: PriorFiles) -> PriorFiles:
        again = self._is_retried(f"{self._step.name}/{files.partition}")
        return replace(files, retry_failed=True) if again else files


class Given:
    """What partitions of a step are given: upstream files, or metadata.

    Args:
        outputs: The outputs that each input names.
        asked: What is in the fingerprints of all partitions.
        slices: Of the first step: by partition, what it is told and its inputs' digests.
        params: By partition, for those that are told anything.
        reduces: Whether the one partition is given the outputs for all.
    """

    def __init__(
        self,
        outputs: list[Outputs],
        asked: list[tuple[str, str, str]],
        slices: Mapping[str, list[tuple[str, str, str]]],
        params: Mapping[str, dict[str, JsonValue]],
        *,
        reduces: bool,
    ) -> None:
        self._outputs = outputs
        self._asked = asked
        self._slices = slices
        self._params = params
        self._reduces = reduces

    def files(self, partition: str) -> list[InputFile]:
        """Return the files of a partition, input by input."""
        owner = None if self._reduces else partition
        return list(chain.from_iterable(outputs.files(owner) for outputs in self._outputs))

    def digests(self, partition: str) -> list[tuple[str, str, str]]:
        """Return the digests of a partition's inputs, sorted."""
        owner = None if self._reduces else partition
        found = chain.from_iterable(outputs.digests(owner) for outputs in self._outputs)
        return sorted([*self._slices.get(partition, ()), *found, *self._asked])

    def all_digests(self, partitions: Collection[str]) -> Iterator[list[tuple[str, str, str]]]:
        """Yield the digests of many partitions' inputs, sorted."""
        if self._reduces:
            yield from map(self.digests, partitions)
            return
        tables = [outputs.all_digests() for outputs in self._outputs]
        for partition in partitions:
            found = [entry for table in tables for entry in table.get(partition, ())]
            yield sorted([*self._slices.get(partition, ()), *found, *self._asked])

    def params(self, partition: str) -> dict[str, JsonValue]:
        """Return what the step is told about a partition."""
        return self._params.get(partition, {})

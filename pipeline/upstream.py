"""What a step finds before it: the outputs of settled partitions, and what their commits say of themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from manifests.canonical import JsonValue
from manifests.sources import load_sources
from pipeline.line import step_named
from pipeline.plans import StepPlan
from pipeline.worker import InputFile, Layout
from stages.places import lane
from stages.step import Input, StoredFile


def lane_of_source(source: str) -> str:
    """Return the lane of a source: its subset; pub11 for one that is not known."""
    spec = load_sources().get(source)
    return spec.subset if spec else "pub11"


def layout_of(facts: Mapping[str, JsonValue]) -> Layout:
    """Return the layout that a commit's facts say it was made under; none for steps that do not say."""
    layout = facts.get("layout")
    if not isinstance(layout, dict):
        return Layout(0, frozenset())
    buckets, spread = layout.get("buckets"), layout.get("spread")
    return Layout(
        buckets if isinstance(buckets, int) else 0,
        frozenset(str(host) for host in spread) if isinstance(spread, list) else frozenset(),
    )


class Outputs:
    """The settled outputs that an input names, by the partition they are for.

    Args:
        plan: The plan of the step that made them.
        wanted: The input.
    """

    def __init__(self, plan: StepPlan, wanted: Input) -> None:
        self._records = records = plan.details.records
        self._wanted = wanted
        self._is_first = step_named(wanted.step).outputs[0] == wanted.table
        starts = records.starts()
        names, partitions = (records.outputs(column).to_pylist() for column in ("output", "for_partition"))
        self._at: dict[str, int | tuple[int, ...]] = {}
        for partition, row in sorted((p.partition, p.row) for p in plan.done):
            for at in range(starts[row], starts[row + 1]):
                owner = partitions[at] or partition
                if names[at] == wanted.table and (not wanted.lane or wanted.lane == lane(owner)):
                    self._at[owner] = (*self._places(owner), at) if owner in self._at else at

    @property
    def partitions(self) -> Iterator[str]:
        """The partitions that there are outputs for."""
        return iter(self._at)

    def _places(self, partition: str) -> tuple[int, ...]:
        found = self._at.get(partition, ())
        return found if isinstance(found, tuple) else (found,)

    def digests(self, partition: str | None = None) -> list[tuple[str, str, str]]:
        """Return how the outputs for a partition enter a fingerprint; None: those for all partitions."""
        column = self._records.outputs("sha256" if self._wanted.places else "rows_digest")
        if partition is not None:
            return [self._entry(partition, column[at].as_py()) for at in self._places(partition)]
        values = column.to_pylist()
        return [self._entry(owner, values[at]) for owner in self._at for at in self._places(owner)]

    def all_digests(self) -> dict[str, list[tuple[str, str, str]]]:
        """Return how the outputs enter fingerprints, by the partition they are for."""
        values = self._records.outputs("sha256" if self._wanted.places else "rows_digest").to_pylist()
        return {owner: [self._entry(owner, values[at]) for at in self._places(owner)] for owner in self._at}

    def _entry(self, partition: str, digest: str) -> tuple[str, str, str]:
        label = partition if self._is_first else f"{partition}:{self._wanted.table}"
        return self._wanted.step, label, digest[:32] if self._wanted.places else digest

    def files(self, partition: str | None = None) -> list[InputFile]:
        """Return the outputs for a partition as a task gets them; None: those for all partitions."""
        if partition is not None:
            return [self._file(partition, at) for at in self._places(partition)]
        return list(chain.from_iterable(self.files(owner) for owner in self._at))

    def _file(self, partition: str, at: int) -> InputFile:
        receipt = self._records.receipt(at)
        stored = StoredFile(partition, receipt.path, receipt.sha256, receipt.bytes, receipt.rows)
        return InputFile(self._wanted.step, self._wanted.table, stored)

"""Which partitions of a step a run works on: those of some sources, or a slice of them."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.plans import PartitionPlan, StepPlan


@dataclass(frozen=True, slots=True)
class Selection:
    """Which partitions of a map step this run may work on.

    Attributes:
        sources: Source keys; empty: all. Limits steps whose partitions belong to one source.
        index: Which slice, 0-based.
        count: Of how many slices; 0: all partitions.
    """

    sources: frozenset[str] = frozenset()
    index: int = 0
    count: int = 0

    def of(self, plan: StepPlan) -> list[PartitionPlan]:
        """Return the partitions of a step that are not done and may be worked on, sorted by name."""
        mine = self.names(plan)
        ordered = sorted(plan.partitions, key=lambda p: p.partition)
        return [p for p in ordered if p.state != "done" and p.partition in mine and self._is_ours(p)]

    def names(self, plan: StepPlan) -> set[str]:
        """Return the partitions of a step that fall to this slice, whether or not they can be worked on yet."""
        ordered = sorted(plan.names)
        return set(ordered[self.index :: self.count] if self.count and plan.step.kind == "map" else ordered)

    def _is_ours(self, plan: PartitionPlan) -> bool:
        source = plan.params.get("source")
        return not self.sources or source is None or source in self.sources

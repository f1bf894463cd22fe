"""How many rows each step has before it, source by source: those that settled partitions hold, the others estimated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from manifests.ledger import RowCounts
from manifests.recipe import Recipe
from manifests.sources import SourceSpec
from manifests.store import Store
from pipeline.books import add_up, committed
from pipeline.line import LINE
from pipeline.metadata import PARTITION_ROWS
from pipeline.plans import PartitionPlan, StepPlan
from pipeline.price.rates import Rates
from pipeline.price.shares import Shares
from stages.step import Step
from stages.uris import entry_of


@dataclass(slots=True)
class Load:
    """What a step has still to do.

    Attributes:
        rows: Rows in, by source.
        fresh: Of them those that no earlier commit of the step settled, which a step that carries over need not redo.
        kept: Rows it will keep of them, by source.
        whole: Rows that it hands on once it is done, by source: kept before and now.
        partitions: Tasks.
        parts: Partitions it hands on, if it is a reduce step.
        largest: Rows of the largest task.
        is_estimate: Whether its rows depend on what steps before it will keep.
        is_firm: Whether every share behind them is known of the very source.
    """

    rows: dict[str, float] = field(default_factory=dict)
    fresh: float = 0.0
    kept: dict[str, float] = field(default_factory=dict)
    whole: dict[str, float] = field(default_factory=dict)
    partitions: int = 0
    parts: int = 0
    largest: float = 0.0
    is_estimate: bool = False
    is_firm: bool = True


class RowFlow:
    """Walks the line and says of each step what is still to do.

    Args:
        recipe: The recipe.
        specs: Its enabled sources.
        store: The workdir, which relative names of metadata are below.
        plans: What is planned, by step; steps that are missing count as if nothing of them were done.
        before: Rows that earlier commits of a step settled, by step, whatever they were made from.
        rates: The table.
    """

    def __init__(
        self,
        recipe: Recipe,
        specs: Mapping[str, SourceSpec],
        store: Store,
        plans: Mapping[str, StepPlan],
        before: Mapping[str, int],
        rates: Rates,
    ) -> None:
        self._recipe = recipe
        self._specs = specs
        self._store = store
        self._plans = plans
        self._before = before
        self._rates = rates
        self._books = {name: add_up(m.rows for m in committed(plan)) for name, plan in plans.items()}
        self._shares = Shares(recipe, specs, self._books, rates)
        self._whole: dict[str, dict[str, float]] = {}
        self._firm: dict[str, bool] = {}
        self._names: dict[str, int] = {}

    def loads(self) -> dict[str, Load]:
        """Return the load of every step of the line, by name."""
        return {step.name: self._load(step) for step in LINE}

    def _load(self, step: Step) -> Load:
        plan, books = self._plans.get(step.name), self._books.get(step.name, {})
        before = self._handed_to(step)
        unread = not step.inputs and bool(self.unnamed())
        load = Load(is_estimate=plan is None or bool(plan.waiting) or unread)
        if step.kind == "reduce":
            load.rows = {} if plan and plan.complete else dict(before)
            books = books if plan and plan.complete else {}
        else:
            load.rows = {
                source: rows for source in before if (rows := _open_rows(before[source], books.get(source))) > 0.5
            }
        load.kept = {source: rows * self._shares.of(step.name, source) for source, rows in load.rows.items()}
        load.whole = {
            source: (books[source].kept if source in books else 0) + load.kept.get(source, 0.0)
            for source in {*books, *load.kept}
        }
        load.is_firm = all(self._firm.get(i.step, True) for i in step.inputs) and all(
            self._shares.is_firm(step.name, source) for source in load.rows
        )
        self._whole[step.name], self._firm[step.name] = load.whole, load.is_firm
        self._count(step, plan, load, before)
        load.fresh = self._fresh(step, load)
        return load

    def _handed_to(self, step: Step) -> dict[str, float]:
        """Return the rows that a step is given in all, by source."""
        if not step.inputs:
            return self._amounts()
        given: dict[str, float] = {}
        for wanted in step.rows_in:
            for source, rows in self._whole[wanted.step].items():
                lane = self._lane(source)
                if wanted.lane in ("", lane) and (step.kind == "reduce" or lane in step.lanes):
                    given[source] = given.get(source, 0.0) + rows
        return given

    def _lane(self, source: str) -> str:
        return self._specs[source].subset if source in self._specs else "pub11"

    def _amounts(self) -> dict[str, float]:
        """Return the rows of all metadata, by source; of a source that names no files what was published of it."""
        amounts: dict[str, float] = {}
        for partition in self._matched():
            source = str(partition.params["source"])
            amounts[source] = amounts.get(source, 0.0) + self._rows_of(partition)
        for source in self.unnamed():
            published = self._specs[source].published
            amounts[source] = float(published.amount) if published else 0.0
        return amounts

    def unnamed(self) -> list[str]:
        """Return the sources that name no metadata: they are priced by the published table."""
        return [key for key in self._specs if not self._recipe.sources[key].metadata]

    def _matched(self) -> Sequence[PartitionPlan]:
        plan = self._plans.get("filter.match")
        unnamed = set(self.unnamed())
        return [p for p in plan.partitions if p.params["source"] not in unnamed] if plan else []

    def _rows_of(self, partition: PartitionPlan) -> float:
        """Return the rows of a partition of metadata: as recorded, as its footer declares, or by its size."""
        if partition.manifest:
            return sum(counts.seen for counts in partition.manifest.rows.values())
        params = partition.params
        if "problem" in params:
            return 0.0
        if isinstance(rows := params.get("rows"), int):
            return rows
        spec = self._specs[str(params["source"])]
        rates = self._rates.of_source(spec.key, spec.format)
        if isinstance(members := params.get("members"), int):
            return members / rates.members_per_row
        file = entry_of(self._store, str(params["uri"]))
        return (file.bytes or 0) / rates.bytes_per_row if file else 0.0

    def _count(self, step: Step, plan: StepPlan | None, load: Load, before: Mapping[str, float]) -> None:
        """Fill in tasks, the partitions handed on and the largest task."""
        self._names[step.name] = names = self._partitions(step, plan, before)
        rows = sum(load.rows.values())
        if step.kind == "reduce":
            load.partitions, load.largest = int(bool(load.rows)), rows
            load.parts = self._tars(load.whole) if step.name == "shard.plan" else self._cuts(load.whole)
            return
        if plan and not plan.waiting and not (step.name == "filter.match" and self.unnamed()):
            todo = [p for p in plan.partitions if p.state != "done"]
            load.partitions = len(todo)
            load.largest = max((self._task_rows(step, p) for p in todo), default=0.0)
            return
        done = len(plan.done) if plan else 0
        load.partitions = max(names - done, int(rows > 0)) if rows else 0
        load.largest = self._largest(step, load, names)

    def _partitions(self, step: Step, plan: StepPlan | None, before: Mapping[str, float]) -> int:
        if step.kind == "reduce":
            return 1
        if step.name == "filter.match":
            unread = [ceil(before[source] / PARTITION_ROWS) for source in self.unnamed()]
            return len(self._matched()) + sum(unread)
        if plan and plan.names and not plan.waiting:
            return len(plan.names)
        if step.name == "shard.pack":
            return self._tars(before)
        return self._cuts(before)

    def _cuts(self, rows: Mapping[str, float]) -> int:
        """Return the partitions that rows are pooled into."""
        settings = self._recipe.filter
        parts = [ceil(n / settings.archive_rows) for source, n in rows.items() if self._is_archive(source) and n]
        web = sum(n for source, n in rows.items() if not self._is_archive(source))
        return min(settings.buckets, ceil(web)) + sum(parts)

    def _tars(self, rows: Mapping[str, float]) -> int:
        subsets = {self._lane(source) for source, n in rows.items() if n}
        return self._recipe.shard.tars_per_split * 2 * len(subsets)

    def _is_archive(self, source: str) -> bool:
        return source in self._specs and self._specs[source].is_archive

    def _largest(self, step: Step, load: Load, names: int) -> float:
        if step.name == "filter.match":
            return min(max(load.rows.values(), default=0.0), PARTITION_ROWS)
        rows = sum(load.rows.values())
        if step.name == "shard.pack":
            return rows / max(names, 1) * self._rates.web.skew
        web = sum(n for source, n in load.rows.items() if not self._is_archive(source))
        largest = min(web, web / self._recipe.filter.buckets * self._rates.web.skew)
        archive = max((n for source, n in load.rows.items() if self._is_archive(source)), default=0.0)
        return max(largest, min(archive, self._recipe.filter.archive_rows))

    def _task_rows(self, step: Step, partition: PartitionPlan) -> float:
        if not step.inputs:
            return self._rows_of(partition)
        wanted = {(i.step, i.table) for i in step.rows_in}
        return sum(i.file.rows for i in partition.inputs if (i.step, i.table) in wanted)

    def _fresh(self, step: Step, load: Load) -> float:
        """Return the rows that were never done: of a step that carries over, those beyond what it settled before."""
        rows = sum(load.rows.values())
        if not step.carries:
            return rows
        counted = sum(c.seen - sum(c.deferred.values()) for c in self._books.get(step.name, {}).values())
        return max(0.0, rows - max(0, self._before.get(step.name, 0) - counted))


def _open_rows(given: float, counts: RowCounts | None) -> float:
    """Return the rows that are not settled, of those that a source hands to a step."""
    if counts is None:
        return given
    return max(0.0, given - counts.seen) + sum(counts.deferred.values())


def pictures(rows: Mapping[str, float], specs: Mapping[str, SourceSpec]) -> tuple[float, float]:
    """Return rows of the web, and rows of archives."""
    archives = sum(n for source, n in rows.items() if source in specs and specs[source].is_archive)
    return sum(rows.values()) - archives, archives

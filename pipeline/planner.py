"""What is done, what is open and what is to do, and why: read from the commits, the recipe and the metadata alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

from manifests.canonical import JsonValue
from manifests.commits import CommitStore, StepCommits
from manifests.fingerprint import Change, Parts, changes
from manifests.manifest import Manifest, Receipt
from manifests.recipe import Recipe, Settings
from manifests.source_specs import enabled_specs, spec_params
from manifests.store import Store
from pipeline.line import LINE, step_named
from pipeline.metadata import Slice
from pipeline.plans import PartitionPlan, State, StepPlan
from pipeline.surroundings import Surroundings, with_batch
from pipeline.upstream import damages, layout_of, located, may_hold, outputs_of
from pipeline.worker import InputFile, Layout, PriorFiles
from stages.dedup.evaluation_sets import benchmark_inputs, planned_benchmarks
from stages.encoder import resolve_device
from stages.exclusions import list_inputs, planned_lists
from stages.places import archive_source, lane
from stages.step import Step


class Planner:
    """Plans step by step; a step is planned from the settled partitions of the steps before it.

    Args:
        recipe: The resolved recipe.
        store: The workdir.
        commits: Its commits.
        slices: The partitions of filter.match.
        retry_failed: Whether partitions with failed rows are open again.
        reading: Whether nothing will be run: then a commit counts whatever models and numeric profile it was made
            with, because the machine that reads a build need not be one that could have made it.
    """

    def __init__(
        self,
        recipe: Recipe,
        store: Store,
        commits: CommitStore,
        slices: list[Slice],
        *,
        retry_failed: bool = False,
        reading: bool = False,
    ) -> None:
        flat = recipe.flat()
        self._lists = planned_lists(store, flat) | planned_benchmarks(store, flat, reading=reading)
        self._flat = _on_this_machine(recipe) | self._lists
        self._skip = frozenset(recipe.run.skip)
        self._store = store
        self._commits = commits
        self._slices = slices
        self._retry_failed = retry_failed
        self._reading = reading
        self._plans: dict[str, StepPlan] = {}
        self._retried: set[str] = set()
        self._receipts: dict[str, dict[str, Receipt]] = {}
        self._settled_before: dict[str, int] = {}
        self._smaller: dict[str, int] = {}
        self._archives: dict[str, dict[str, JsonValue]] = {
            key: {**spec_params(spec), "archives": list[JsonValue](recipe.sources[key].metadata)}
            for key, spec in enabled_specs(recipe).items()
            if spec.is_archive
        }

    def plan(self, step: Step, *, fresh: bool = False) -> StepPlan:
        """Return the plan of a step, planning what is before it as needed; ``fresh`` reads the commits again."""
        if fresh:
            for later in LINE[LINE.index(step) :]:
                self._plans.pop(later.name, None)
        if step.name not in self._plans:
            self._plans[step.name] = self._planned(step)
        return self._plans[step.name]

    def serve(self, recipe: Recipe) -> None:
        """Take the settings of a recipe whose world is being served; nothing that a fingerprint reads differs."""
        self._flat = _on_this_machine(recipe) | self._lists

    def mark_retried(self, plan: PartitionPlan) -> None:
        """Remember that a partition's failed rows were tried again in this run."""
        self._retried.add(plan.name)

    def settings(self, step: Step) -> dict[str, JsonValue]:
        """Return the settings a step declared."""
        return {key: self._flat[key] for key in (*step.reads, *step.asks)}

    def _planned(self, step: Step) -> StepPlan:
        plan = StepPlan(step)
        commits = self._commits.step(step.name)
        manifests = self._commits.read_all(list(commits.all()))
        self._receipts[step.name] = {o.path: o for manifest in manifests for o in manifest.outputs}
        self._settled_before[step.name] = self._settled_rows(step, manifests)
        sizes = self._sizes(step)
        settings = Settings(self.settings(step))
        found = list(self._partitions(step, plan))
        same = Surroundings(step, settings, lenient=self._reading) if found else None
        for partition, params, inputs, digests in found:
            parts = Parts(
                inputs=sorted([*digests, *self._asked(step)]),
                recipe={key: self._flat[key] for key in step.reads},
                code=step.VERSION,
                models=same.models if same else {},
                pins=same.pins(params) if same else {},
                profile=same.profile if same else {},
            )
            by_fingerprint = commits.names.get(partition, {})
            if same and self._reading and (made := same.made_elsewhere(parts, by_fingerprint, self._commits)):
                parts = made
            elif step.batched:
                batch = self._batch(step, partition, parts, commits)
                params, parts = {**params, "batch": batch}, with_batch(parts, batch)
            plan.partitions.append(self._placed(step, partition, parts, inputs, params, commits, sizes, plan.corrupt))
        return plan

    def _asked(self, step: Step) -> list[tuple[str, str, str]]:
        return [*list_inputs(step.asks, self._flat), *benchmark_inputs(step.asks, self._flat)]

    def _batch(self, step: Step, partition: str, parts: Parts, commits: StepCommits) -> int:
        """Return a partition's batch: the setting's; or half, a quarter, .. where memory ran out at the ones before."""
        batch = whole = cast("int", self._flat[step.batched])
        while batch >= 1:
            if self._smaller.get(f"{step.name}/{partition}") == batch:
                return batch
            if commits.passes(partition, with_batch(parts, batch).fingerprint):
                return batch
            batch //= 2
        return whole

    def halve(self, plan: PartitionPlan) -> PartitionPlan | None:
        """Return a partition's plan at half its batch, another numeric profile; None where it cannot be halved."""
        batch = plan.params.get("batch")
        if not isinstance(batch, int) or batch < 2:
            return None
        self._smaller[plan.name] = batch // 2
        parts = with_batch(plan.parts, batch // 2)
        # Rows done under the other profile are no prior of this one.
        return replace(
            plan, parts=parts, fingerprint=parts.fingerprint, params={**plan.params, "batch": batch // 2}, prior=[]
        )

    def _partitions(
        self, step: Step, plan: StepPlan
    ) -> Iterator[tuple[str, dict[str, JsonValue], list[InputFile], list[tuple[str, str, str]]]]:
        """Yield (partition, params, inputs, input digests); upstream partitions that are missing go to ``plan``."""
        if not step.inputs:
            plan.names = [item.partition for item in self._slices]
            for item in self._slices:
                yield item.partition, item.params, [], item.inputs
            return
        upstream = {i.step: self.plan(step_named(i.step)) for i in step.inputs}
        waiting = list(dict.fromkeys(name for before in upstream.values() for name in self._unsettled(before)))
        if step.kind == "reduce":
            plan.names = ["all"]
            plan.waiting = waiting
            if not waiting:
                found = [located(i, partition, r) for i in step.inputs for partition, r in outputs_of(upstream, i)]
                yield "all", {}, [f for f, _ in found], [d for _, d in found]
            return
        plan.waiting = waiting
        given = sorted({p for wanted in step.rows_in for p, _ in outputs_of(upstream, wanted) if lane(p) in step.lanes})
        coming = {
            p
            for wanted in step.rows_in
            if upstream[wanted.step].step.kind == "map"
            for p in upstream[wanted.step].names
            if wanted.lane in ("", lane(p)) and lane(p) in step.lanes
        }
        plan.names = sorted({*given, *coming})
        for partition in given:
            found = []
            for wanted in step.inputs:
                mine = [(p, r) for p, r in outputs_of(upstream, wanted) if wanted.scope == "all" or p == partition]
                found += [located(wanted, p, r) for p, r in mine]
            yield partition, self._params(step, partition), [f for f, _ in found], [d for _, d in found]

    def _params(self, step: Step, partition: str) -> dict[str, JsonValue]:
        """Return what a partition's task is told: for a part of an archive that is read, where its archives lie."""
        source = archive_source(partition)
        if not step.recording or source is None:
            return {}
        digests = sorted(item.digest for item in self._slices if item.source == source)
        told = self._archives.get(source, {"source": source, "archives": []})
        return {**told, "archive_digests": list[JsonValue](digests)}

    def _unsettled(self, before: StepPlan) -> list[str]:
        own = [p.name for p in before.partitions if p.state != "done" and p.name not in self._skip]
        return before.waiting + own

    def _placed(
        self,
        step: Step,
        partition: str,
        parts: Parts,
        inputs: list[InputFile],
        params: dict[str, JsonValue],
        commits: StepCommits,
        sizes: dict[str, int],
        corrupt: dict[str, str],
    ) -> PartitionPlan:
        fingerprint = parts.fingerprint
        passes = commits.passes(partition, fingerprint)
        manifest = self._commits.read(passes[-1]) if passes else None
        state: State = "todo"
        if manifest:
            damaged = damages(manifest, sizes)
            corrupt |= damaged
            state = "todo" if damaged else ("open" if self._is_open(manifest) else "done")
        prior = self._prior(step, partition, parts, commits, manifest) if state != "done" and step.carries else []
        return PartitionPlan(
            step=step.name,
            partition=partition,
            parts=parts,
            fingerprint=fingerprint,
            inputs=inputs,
            params=params,
            state=state,
            manifest=manifest,
            number=passes[-1].number + 1 if passes else 0,
            prior=prior,
            why=self._why(partition, parts, commits) if state == "todo" and not manifest else [],
        )

    def _is_open(self, manifest: Manifest) -> bool:
        if manifest.open:
            return True
        name = f"{manifest.step}/{manifest.partition}"
        retried = not self._retry_failed or name in self._retried or not step_named(manifest.step).recording
        return not retried and any(counts.failed for counts in manifest.rows.values())

    def _sizes(self, step: Step) -> dict[str, int]:
        folders = [f"data/{step.name}", f"ledger/{step.name}", *(["release"] if step.releases else [])]
        return {entry.path: entry.bytes for folder in folders for entry in self._store.find(folder)}

    def _prior(
        self, step: Step, partition: str, parts: Parts, commits: StepCommits, current: Manifest | None
    ) -> list[PriorFiles]:
        """Return earlier commits with an equal row fingerprint: of this partition, and of others cut another way."""
        wanted, layout = parts.row_fingerprint(recording=step.recording), self.layout().key
        archive = archive_source(partition)
        newest = [passes[-1] for by_fp in commits.names.values() for passes in by_fp.values()]
        manifests = [self._commits.read(name) for name in newest]
        equal = [
            m
            for m in manifests
            if m.row_fingerprint == wanted and (m.partition == partition or may_hold(m, archive, layout))
        ]
        equal.sort(key=lambda m: (m is not current, m.partition != partition, m.partition, m.fingerprint))
        tables = set(step.outputs)
        return [
            PriorFiles(
                partition=m.partition,
                layout=layout_of(m),
                settings=m.parts.recipe,
                tables={o.name: o.path for o in m.outputs if o.name in tables and o.path.endswith(".parquet")},
                ledger=m.ledger.path,
                retry_failed=self._retry_failed and f"{step.name}/{m.partition}" not in self._retried,
            )
            for m in equal
        ]

    def layout(self) -> Layout:
        """Return how the rows are cut into partitions now."""
        pooled = self._plans.get("filter.pool")
        manifest = next(iter(pooled.settled().values()), None) if pooled else None
        return layout_of(manifest) if manifest else Layout(0, frozenset())

    def receipts(self, step: str) -> dict[str, Receipt]:
        """Return the receipt of every file that commits of a step pointed at when it was planned, by path."""
        return self._receipts.get(step, {})

    def known(self, step: Step) -> StepPlan | None:
        """Return the plan of a step if it was made already: nothing is read."""
        return self._plans.get(step.name)

    def settled_before(self, step: str) -> int:
        """Return the rows that a step's commits settled under equal settings, whatever rows they were given."""
        return self._settled_before.get(step, 0)

    def _settled_rows(self, step: Step, manifests: list[Manifest]) -> int:
        reads, most = {key: self._flat[key] for key in step.reads}, dict[str, int]()
        for manifest in manifests:
            equal = manifest.parts.recipe == reads and manifest.parts.code == step.VERSION
            if step.recording or equal:
                rows = sum(counts.seen - sum(counts.deferred.values()) for counts in manifest.rows.values())
                most[manifest.partition] = max(rows, most.get(manifest.partition, 0))
        return sum(most.values())

    def _why(self, partition: str, parts: Parts, commits: StepCommits) -> list[Change]:
        others = [self._commits.read(passes[-1]) for passes in commits.names.get(partition, {}).values()]
        return min((list(changes(other.parts, parts)) for other in others), key=len, default=[])


def _on_this_machine(recipe: Recipe) -> dict[str, JsonValue]:
    """Return the settings with the device that ``auto`` stands for: the driver says it, so that all workers agree."""
    return recipe.flat() | {"run.device": resolve_device(recipe.run.device)}

"""What is done, what is open and what is to do, and why: read from the commits, the recipe and the metadata alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from manifests.canonical import JsonValue
from manifests.commits import CommitStore, StepCommits
from manifests.fingerprint import Change, Parts, changes
from manifests.manifest import LedgerReceipt, Manifest, Receipt
from manifests.recipe import Recipe, Settings
from manifests.sources import load_sources
from manifests.store import Store
from pipeline.line import LINE, step_named
from pipeline.metadata import Slice
from pipeline.surroundings import Surroundings, with_batch
from pipeline.worker import InputFile, Layout, PriorFiles
from stages.encoder import resolve_device
from stages.places import archive_source, lane
from stages.step import Input, Step, StoredFile

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
        self._flat = _on_this_machine(recipe)
        self._skip = frozenset(recipe.run.skip)
        self._store = store
        self._commits = commits
        self._slices = slices
        self._retry_failed = retry_failed
        self._reading = reading
        self._plans: dict[str, StepPlan] = {}
        self._retried: set[str] = set()
        self._receipts: dict[str, dict[str, Receipt]] = {}
        self._smaller: dict[str, int] = {}
        self._archives = {
            key: list[JsonValue](source.metadata)
            for key, source in recipe.enabled_sources().items()
            if lane_of_source(key) == "rs3"
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
        self._flat = _on_this_machine(recipe)

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
        sizes = self._sizes(step)
        settings = Settings(self.settings(step))
        found = list(self._partitions(step, plan))
        same = Surroundings(step, settings, lenient=self._reading) if found else None
        for partition, params, inputs, digests in found:
            parts = Parts(
                inputs=sorted(digests),
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
                yield item.partition, item.params, [], _slice_digests(item)
            return
        upstream = {i.step: self.plan(step_named(i.step)) for i in step.inputs}
        waiting = list(dict.fromkeys(name for before in upstream.values() for name in self._unsettled(before)))
        if step.kind == "reduce":
            plan.names = ["all"]
            plan.waiting = waiting
            if not waiting:
                found = [_located(i, partition, r) for i in step.inputs for partition, r in _outputs(upstream, i)]
                yield "all", {}, [f for f, _ in found], [d for _, d in found]
            return
        plan.waiting = waiting
        given = sorted({p for wanted in step.rows_in for p, _ in _outputs(upstream, wanted) if lane(p) in step.lanes})
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
                mine = [(p, r) for p, r in _outputs(upstream, wanted) if wanted.scope == "all" or p == partition]
                found += [_located(wanted, p, r) for p, r in mine]
            yield partition, self._params(step, partition), [f for f, _ in found], [d for _, d in found]

    def _params(self, step: Step, partition: str) -> dict[str, JsonValue]:
        """Return what a partition's task is told: for a part of an archive that is read, where its archives lie."""
        source = archive_source(partition)
        if not step.recording or source is None:
            return {}
        digests = sorted(item.digest for item in self._slices if item.source == source)
        return {
            "source": source,
            "archives": self._archives.get(source, []),
            "archive_digests": list[JsonValue](digests),
        }

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
            damaged = _damaged(manifest, sizes)
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
            if m.row_fingerprint == wanted and (m.partition == partition or _may_hold(m, archive, layout))
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

    def _why(self, partition: str, parts: Parts, commits: StepCommits) -> list[Change]:
        others = [self._commits.read(passes[-1]) for passes in commits.names.get(partition, {}).values()]
        return min((list(changes(other.parts, parts)) for other in others), key=len, default=[])


def _on_this_machine(recipe: Recipe) -> dict[str, JsonValue]:
    """Return the settings with the device that ``auto`` stands for: the driver says it, so that all workers agree."""
    return recipe.flat() | {"run.device": resolve_device(recipe.run.device)}


def _may_hold(manifest: Manifest, archive: str | None, layout: str) -> bool:
    """Whether another partition's commit may hold rows of this one: parts of an archive may have been cut anew."""
    if archive is not None:
        return archive_source(manifest.partition) == archive
    return layout_of(manifest).key != layout


def lane_of_source(source: str) -> str:
    """Return the lane of a source: its subset; pub11 for one that is not known."""
    spec = load_sources().get(source)
    return spec.subset if spec else "pub11"


def layout_of(manifest: Manifest) -> Layout:
    """Return the layout that a commit says it was made under; none for steps that do not say."""
    layout = manifest.facts.get("layout")
    if not isinstance(layout, dict):
        return Layout(0, frozenset())
    buckets, spread = layout.get("buckets"), layout.get("spread")
    return Layout(
        buckets if isinstance(buckets, int) else 0,
        frozenset(str(host) for host in spread) if isinstance(spread, list) else frozenset(),
    )


def _slice_digests(item: Slice) -> list[tuple[str, str, str]]:
    first, end = item.params.get("first_group"), item.params.get("end_group")
    rows = f":{first}-{end}" if end is not None else ""
    digests = [("metadata", item.partition, f"{item.digest}{rows}")]
    return digests + ([("attributes", item.source, item.attributes_digest)] if item.attributes_digest else [])


def _outputs(upstream: dict[str, StepPlan], wanted: Input) -> list[tuple[str, Receipt]]:
    """Return (partition, receipt) of every settled output that an input names."""
    return [
        (output.partition or partition, output)
        for partition, manifest in sorted(upstream[wanted.step].settled().items())
        for output in manifest.outputs
        if output.name == wanted.table and wanted.lane in ("", lane(output.partition or partition))
    ]


def _located(wanted: Input, partition: str, receipt: Receipt) -> tuple[InputFile, tuple[str, str, str]]:
    stored = StoredFile(partition, receipt.path, receipt.sha256, receipt.bytes, receipt.rows)
    first = step_named(wanted.step).outputs[0] == wanted.table
    label = partition if first else f"{partition}:{wanted.table}"
    return InputFile(wanted.step, wanted.table, stored), (wanted.step, label, receipt.rows_digest)


def _damaged(manifest: Manifest, sizes: dict[str, int]) -> dict[str, str]:
    """Return the files of a commit that are gone or have another size than recorded."""
    found: dict[str, str] = {}
    receipts: list[Receipt | LedgerReceipt] = [*manifest.outputs, manifest.ledger]
    for receipt in receipts:
        size = sizes.get(receipt.path)
        if size is None:
            found[receipt.path] = "is gone"
        elif size != receipt.bytes:
            found[receipt.path] = f"has {size} bytes, recorded are {receipt.bytes}"
    return found

"""What is done, what is open and what is to do, and why: read from the commits, the recipe and the metadata alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import cast

from manifests.canonical import JsonValue
from manifests.commits import CommitStore, StepCommits
from manifests.fingerprint import Frame, Parts
from manifests.manifest import CommitName, Manifest, Receipt
from manifests.recipe import Recipe, Settings
from manifests.records import COUNTING, settings_digest
from manifests.source_specs import enabled_specs, spec_params
from manifests.store import Store
from pipeline.line import LINE, step_named
from pipeline.metadata import Slice
from pipeline.plans import PartitionPlan, StepPlan
from pipeline.standing import Standing
from pipeline.step_details import Given, StepDetails
from pipeline.surroundings import Surroundings, with_batch
from pipeline.upstream import Outputs, layout_of
from pipeline.worker import Layout
from stages.dedup.evaluation_sets import benchmark_inputs, planned_benchmarks
from stages.encoder import resolve_device
from stages.exclusions import list_inputs, planned_lists
from stages.places import archive_source, lane
from stages.step import Input, Step

LANES = ("pub11", "rs3")


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
        counting: Whether it is enough to say what is done: then commits are believed without a look at the files that
            they point at, and no partition's inputs can be told.
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
        counting: bool = False,
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
        self._counting = counting
        self._plans: dict[str, StepPlan] = {}
        self._retried: set[str] = set()
        self._outputs: dict[Input, Outputs] = {}
        self._facts: tuple[CommitName | None, dict[str, JsonValue]] = (None, {})
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
                self._forget(later)
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

    def committed(self, plan: PartitionPlan, manifest: Manifest, name: CommitName) -> None:
        """Take in a commit that was just made for a partition: nothing is listed anew for it."""
        records = self._plans[plan.step].details.records
        plan.committed(self._commits.added(records, name, manifest), "open" if self._is_open(manifest) else "done")
        self._forget_outputs(plan.step)

    def next_round(self, step: Step) -> None:
        """Let the commits of the round before count as earlier ones of a step."""
        details = self._plans[step.name].details
        details.renew()

    def settle(self, step: Step) -> None:
        """Keep what this run learnt of a step's commits, and let go of what can be found out again."""
        details = self._plans[step.name].details
        self._commits.remember(details.records)
        details.forget()
        if self._counting:
            self._let_go(step)

    def _let_go(self, step: Step) -> None:
        """Let go of plans that no step after this one reads."""
        later = LINE[LINE.index(step) + 1 :]
        read = {given.step for other in later for given in other.inputs}
        for other in LINE[: LINE.index(step) + 1]:
            if other.name in self._plans:
                self._plans[other.name].details.counted()
                if other.name not in read:
                    self._forget(other)

    def _forget(self, step: Step) -> None:
        self._plans.pop(step.name, None)
        self._forget_outputs(step.name)

    def _forget_outputs(self, step: str) -> None:
        for wanted in [wanted for wanted in self._outputs if wanted.step == step]:
            del self._outputs[wanted]

    def _planned(self, step: Step) -> StepPlan:
        listed = self._commits.step(step.name)
        records = self._commits.records(listed, COUNTING if self._counting else ())
        given, names, partitions, waiting = self._given(step)
        retried = self._retried if self._retry_failed else None
        details = StepDetails(
            step, self._commits, listed, records, given, self._facts_of_pool,
            lambda name: retried is not None and name not in retried,
        )  # fmt: skip
        plan = StepPlan(step, details, names=names, waiting=waiting)
        if partitions:
            standing = Standing(records)
            frames = self._frames(step, partitions, given, listed, standing)
            plan.partitions = [self._placed(step, *found, details, standing) for found in frames]
            if not self._counting:
                self._look_at_files(plan)
        return plan

    def _frames(
        self, step: Step, partitions: Sequence[str], given: Given, listed: StepCommits, standing: Standing
    ) -> Iterator[tuple[str, Frame | Parts, int, str]]:
        """Yield every partition with its parts but the inputs, its batch and its fingerprint."""
        same = Surroundings(step, Settings(self.settings(step)), lenient=self._reading)
        frames: dict[tuple[tuple[str, str], ...], dict[int, Frame]] = {}
        found: list[tuple[str, Frame, int, str]] = []
        recipe = {key: self._flat[key] for key in step.reads}
        whole = cast("int", self._flat[step.batched]) if step.batched else 0
        pins_of_most: dict[str, str] | None = None  # of the partitions that are told nothing
        for partition, digests in zip(partitions, given.all_digests(partitions), strict=True):
            told = given.params(partition)
            if not told and pins_of_most is None:
                pins_of_most = same.pins({})
            pins = same.pins(told) if told or pins_of_most is None else pins_of_most
            by_batch = frames.setdefault(tuple(sorted(pins.items())), {})
            if not by_batch:
                base = Parts(
                    inputs=[], recipe=recipe, code=step.VERSION, models=same.models, pins=pins, profile=same.profile
                )
                by_batch[0] = Frame(base)
                for batch in _halves(whole):
                    by_batch[batch] = Frame(with_batch(base, batch))
            frame, fingerprint = by_batch[0], by_batch[0].fingerprint(digests)
            batch = 0
            for batch in _halves(whole):
                frame, fingerprint = by_batch[batch], by_batch[batch].fingerprint(digests)
                if self._smaller.get(f"{step.name}/{partition}") == batch or standing.has(partition, fingerprint):
                    break
            else:
                if whole:  # none was made: the setting's
                    batch, frame = whole, by_batch[whole]
                    fingerprint = frame.fingerprint(digests)
            found.append((partition, frame, batch, fingerprint))
        lacking = [(p, frame) for p, frame, _, digest in found if self._reading and not standing.has(p, digest)]
        planned = {partition: frame.parts(given.digests(partition)) for partition, frame in lacking}
        made = same.made_elsewhere(planned, listed, self._commits) if planned else {}
        for partition, frame, batch, fingerprint in found:
            other = made.get(partition)
            yield (partition, other, 0, other.fingerprint) if other else (partition, frame, batch, fingerprint)

    def _placed(
        self,
        step: Step,
        partition: str,
        frame: Frame | Parts,
        batch: int,
        fingerprint: str,
        details: StepDetails,
        standing: Standing,
    ) -> PartitionPlan:
        plan = PartitionPlan(step.name, partition, frame, details, batch)
        row = standing.row(partition, fingerprint)
        if row is not None:
            plan.row, plan.number = row, standing.number(row) + 1
            plan.state = (
                "open" if standing.open[row] or self._is_retried(step, partition, standing.failed[row]) else "done"
            )
        return plan

    def _look_at_files(self, plan: StepPlan) -> None:
        """Find the files of commits that are gone or have another size than recorded; those partitions are to do."""
        records, sizes = plan.details.records, self._sizes(plan.step)
        starts = records.starts()
        paths, recorded = (records.outputs(name).to_pylist() for name in ("path", "file_bytes"))
        ledgers = list(zip(records.values("ledger_path"), records.values("ledger_bytes"), strict=True))
        for partition in plan.partitions:
            if (row := partition.row) < 0:
                continue
            mine = slice(starts[row], starts[row + 1])
            found: dict[str, str] = {}
            for path, size in [*zip(paths[mine], recorded[mine], strict=True), ledgers[row]]:
                if sizes.get(path) != size and (what := self._damage(path, size)):
                    found[path] = what
            if found:
                partition.state = "todo"
                plan.corrupt |= found

    def _damage(self, path: str, recorded: int) -> str:
        """Say what is wrong with a file; it is asked for by itself, because a listing may lag behind."""
        size = self._store.size(path)
        if size is None:
            return "is gone"
        return "" if size == recorded else f"has {size} bytes, recorded are {recorded}"

    def _asked(self, step: Step) -> list[tuple[str, str, str]]:
        return [*list_inputs(step.asks, self._flat), *benchmark_inputs(step.asks, self._flat)]

    def halve(self, plan: PartitionPlan) -> PartitionPlan | None:
        """Plan a partition at half its batch, another numeric profile; None where it cannot be halved."""
        if plan.batch < 2:
            return None
        self._smaller[plan.name] = plan.batch // 2
        # Rows done under the other profile are no prior of this one.
        plan.halved(Frame(with_batch(plan.parts, plan.batch // 2)))
        return plan

    def _given(self, step: Step) -> tuple[Given, list[str], list[str], list[str]]:
        """Return what partitions are given, all their names, those that can be planned, and what is waited for."""
        asked = self._asked(step)
        if not step.inputs:
            names = [item.partition for item in self._slices]
            inputs = {item.partition: item.inputs for item in self._slices}
            params = {item.partition: item.params for item in self._slices}
            return Given([], asked, inputs, params, reduces=False), names, names, []
        upstream = {i.step: self.plan(step_named(i.step)) for i in step.inputs}
        waiting = list(dict.fromkeys(name for before in upstream.values() for name in self._unsettled(before)))
        outputs = {wanted: self._outputs_of(wanted) for wanted in step.inputs}
        if step.kind == "reduce":
            given = Given(list(outputs.values()), asked, {}, {}, reduces=True)
            return given, ["all"], [] if waiting else ["all"], waiting
        mine = {p for wanted in step.rows_in for p in outputs[wanted].partitions if _walks(p, step.lanes)}
        coming = {
            p
            for wanted in step.rows_in
            if upstream[wanted.step].step.kind == "map"
            for p in upstream[wanted.step].names
            if _walks(p, (wanted.lane,) if wanted.lane else LANES) and _walks(p, step.lanes)
        }
        params = self._params(step, mine)
        given = Given(list(outputs.values()), asked, {}, params, reduces=False)
        return given, sorted(mine | coming), sorted(mine), waiting

    def _outputs_of(self, wanted: Input) -> Outputs:
        if wanted not in self._outputs:
            self._outputs[wanted] = Outputs(self.plan(step_named(wanted.step)), wanted)
        return self._outputs[wanted]

    def _params(self, step: Step, partitions: Iterable[str]) -> dict[str, dict[str, JsonValue]]:
        """Return what tasks are told: of parts of an archive that is read, where its archives lie."""
        if not step.recording:
            return {}
        told: dict[str, dict[str, JsonValue]] = {}
        found: dict[str, dict[str, JsonValue]] = {}
        for partition in partitions:
            source = archive_source(partition)
            if source is None:
                continue
            if source not in told:
                digests = sorted(item.digest for item in self._slices if item.source == source)
                where = self._archives.get(source, {"source": source, "archives": []})
                told[source] = {**where, "archive_digests": list[JsonValue](digests)}
            found[partition] = told[source]
        return found

    def _unsettled(self, before: StepPlan) -> list[str]:
        own = [p.name for p in before.partitions if p.state != "done" and p.name not in self._skip]
        return before.waiting + own

    def _is_open(self, manifest: Manifest) -> bool:
        failed = any(counts.failed for counts in manifest.rows.values())
        return manifest.open or self._is_retried(step_named(manifest.step), manifest.partition, failed)

    def _is_retried(self, step: Step, partition: str, failed: bool) -> bool:
        """Whether failed rows of a partition are to be tried again, and were not yet in this run."""
        return failed and self._retry_failed and step.recording and f"{step.name}/{partition}" not in self._retried

    def _sizes(self, step: Step) -> dict[str, int]:
        folders = [f"data/{step.name}", f"ledger/{step.name}", *(["release"] if step.releases else [])]
        return {entry.path: entry.bytes for folder in folders for entry in self._store.find(folder)}

    def layout(self) -> Layout:
        """Return how the rows are cut into partitions now."""
        return layout_of(self._facts_of_pool())

    def _facts_of_pool(self) -> dict[str, JsonValue]:
        """Return the facts of the pooling that counts, read once."""
        pooled = self._plans.get("filter.pool")
        done = pooled.done if pooled else []
        if not pooled or not done:
            return {}
        name = pooled.details.name(done[0].row)
        if self._facts[0] != name:
            manifest = done[0].manifest
            self._facts = (name, dict(manifest.facts) if manifest else {})
        return self._facts[1]

    def receipts(self, step: str, paths: Collection[str]) -> list[Receipt]:
        """Return the receipts of files that commits of a step pointed at when it was planned."""
        return self._plans[step].details.receipts(paths)

    def known(self, step: Step) -> StepPlan | None:
        """Return the plan of a step if it was made already: nothing is read."""
        return self._plans.get(step.name)

    def settled_before(self, step: str) -> int:
        """Return the rows that a step's commits settled under equal settings, whatever rows they were given."""
        if step not in self._plans:
            return 0
        records, most = self._plans[step].details.records, dict[str, int]()
        here = step_named(step)
        wanted = settings_digest({key: self._flat[key] for key in here.reads}, here.VERSION)
        columns = (records.values(name) for name in ("name", "settings", "seen", "deferred"))
        for name, settings, seen, deferred in zip(*columns, strict=True):
            if here.recording or settings == wanted:
                partition = name.rpartition("@")[0]
                most[partition] = max(seen - deferred, most.get(partition, 0))
        return sum(most.values())

    def left_behind_bytes(self, step: str, output: str) -> int:
        """Return the size of a step's files of one output that its commits name and no settled partition does."""
        plan = self._plans[step]
        records, starts = plan.details.records, plan.details.records.starts()
        columns = [records.outputs(name).to_pylist() for name in ("output", "path", "file_bytes")]
        found = [(path, size) for name, path, size in zip(*columns, strict=True) if name == output]
        done = {path for p in plan.done for path in columns[1][starts[p.row] : starts[p.row + 1]]}
        return sum(size for path, size in dict(found).items() if path not in done)


def _walks(partition: str, lanes: Sequence[str]) -> bool:
    """Whether a partition's lane is among ``lanes``; its name is looked at only where that tells."""
    return len(lanes) == len(LANES) or lane(partition) in lanes


def _halves(whole: int) -> list[int]:
    """Return a batch, half of it, a quarter, .. down to 1; none of 0."""
    return [whole >> shift for shift in range(whole.bit_length())]


def _on_this_machine(recipe: Recipe) -> dict[str, JsonValue]:
    """Return the settings with the device that ``auto`` stands for: the driver says it, so that all workers agree."""
    return recipe.flat() | {"run.device": resolve_device(recipe.run.device)}

"""The runner: walks the line step by step, hands open partitions to an executor, and commits what closes."""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from manifests.canonical import JsonValue
from manifests.commits import CommitStore
from manifests.ledger import BooksDoNotCloseError, close_books
from manifests.manifest import Manifest, Receipt
from manifests.recipe import Recipe
from manifests.store import AlreadyThereError, Store
from pipeline.events import Events
from pipeline.executors.base import Executor, TaskFailure
from pipeline.live import Watch
from pipeline.locks import Lock, LockHeldError
from pipeline.planner import Planner
from pipeline.plans import PartitionPlan, StepPlan
from pipeline.release import before_write, sweep
from pipeline.repair import set_aside
from pipeline.selection import Selection
from pipeline.worker import Outcome, TaskSpec
from stages.step import ModelMissingError, Step

_WAIT_S = 0.2
NODE_LOSSES = 10
"""How many nodes may be lost under one partition in a run: it may be what takes them down."""
# Errors, as workers name them, that another attempt would meet again: a file that is at fault stays so, and one that
# changed has to be planned anew.
_LASTING = ("MetadataError: ", "ChangedFileError: ")
_NUMBER = re.compile(r"(?<![\w.])\d[\d.,]*%?(?!\w)")  # a number by itself, not the 12 of cc12m


@dataclass(slots=True)
class Summary:
    """How a run ended.

    Attributes:
        worked: Partitions committed.
        failed: Partition to the last failure's message.
        left_open: Partitions that stayed open.
        skipped: Steps not run, or not on all partitions, with what they wait for.
        unready: Those of them that this run was meant to finish.
        broken: A closing law that did not hold.
        stopped: Whether the run was drained before its end.
    """

    worked: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    left_open: list[str] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    unready: list[str] = field(default_factory=list)
    broken: str = ""
    stopped: bool = False


class NoSpaceError(Exception):
    """A disk is full: the run stops cleanly."""


class Runner:
    """Runs steps in order.

    Args:
        recipe: The resolved recipe.
        store: The workdir.
        planner: Plans over it.
        commits: Its commits.
        start: Makes the executor when the first task is due.
        events: Told of everything.
        draining: Asked between tasks whether to stop.
        locks: The run's locks; one lost means stop at once.
        selection: What this run may work on.
        watch: Told of tasks as they begin and end, so that it can read how they go meanwhile.
    """

    def __init__(
        self,
        recipe: Recipe,
        store: Store,
        planner: Planner,
        commits: CommitStore,
        start: Callable[[], Executor],
        events: Events,
        draining: Callable[[], bool],
        locks: Sequence[Lock] = (),
        selection: Selection | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._run = recipe.run
        self._store = store
        self._planner = planner
        self._commits = commits
        self._start = start
        self._executor: Executor | None = None
        self._events = events
        self._draining = draining
        self._locks = locks
        self._selection = selection or Selection()
        self._watch = watch
        self._suspicions: set[str] = set()
        self._losses = Counter[str]()
        self._undone = False
        self.summary = Summary()

    def run(self, steps: Sequence[Step]) -> Summary:
        """Run ``steps`` as far as they get.

        Raises:
            NoSpaceError: If a disk is full.
            ModelMissingError: If a worker lacks a model.
            LockHeldError: If the lock was lost.
        """
        killed = True
        try:
            for step in steps:
                if self._draining() or self.summary.broken:
                    break
                self._run_step(step)
            self.summary.stopped = self._draining()
            killed = False
        finally:
            if self._executor:
                self._executor.close(kill=killed)
        return self.summary

    def _run_step(self, step: Step) -> None:
        if self._selection.count and step.kind == "reduce":
            self._skip(step, ["--slice runs map steps only"])
            return
        plan = self._plan(step)
        for number in range(self._run.rounds):
            ours = self._selection.of(plan)
            todo = [p for p in ours if p.name not in self.summary.failed]
            if step.kind == "reduce" and plan.waiting:
                self._skip(step, plan.waiting)
                return
            if not todo:
                break
            self._started()
            done = len(plan.done)
            on: dict[str, JsonValue] = {
                "round": number,
                "device": str(self._planner.settings(step).get("run.device", "cpu")),
                "gpus": self._run.gpu_share if self._run.executor == "ray" else 1 / self._started().gpu_capacity,
            }
            self._events("step_started", step=step.name, partitions=done + len(ours), done=done, **on)
            self._run_round(step, todo, final=number == self._run.rounds - 1)
            if self._undone or self._selection.count:  # what was repaired, or what other slices did meanwhile
                plan = self._plan(step)
            if self._draining() or self.summary.broken:
                break
            self._planner.next_round(step)
        self._planner.settle(step)
        mine, known = self._selection.names(plan), {p.partition for p in plan.partitions}
        self.summary.left_open += [p.name for p in plan.partitions if p.state == "open" and p.partition in mine]
        if plan.waiting and (not plan.names or not mine <= known):
            self._skip(step, plan.waiting)
        if plan.partitions and not plan.waiting:
            self._events("step_finished", step=step.name, rows=_totals(plan))

    def _started(self) -> Executor:
        """Return the executor, started when the first task is due: starting Ray takes seconds."""
        if self._executor is None:
            self._executor = self._start()
        return self._executor

    def _skip(self, step: Step, waiting: list[str]) -> None:
        self.summary.skipped[step.name] = waiting
        if not self._selection.sources and not (self._selection.count and step.kind == "reduce"):
            self.summary.unready.append(step.name)
        self._events("step_skipped", step=step.name, waiting=list[JsonValue](waiting[:20]))

    def _plan(self, step: Step) -> StepPlan:
        """Plan a step from a new listing; damaged files are set aside first, and what made them is planned again."""
        self._undone = False
        plan = self._planner.plan(step, fresh=True)
        if plan.corrupt:
            self._repair(plan.corrupt)
            plan = self._planner.plan(step, fresh=True)
            self._undone = False
        return plan

    def _repair(self, corrupt: Mapping[str, str]) -> bool:
        """Set damaged files aside, given with what is wrong with them. False where all are as recorded after all."""
        repaired = set_aside(self._store, self._commits, corrupt)
        for path, removed in repaired.removed.items():
            self._undone = True
            self._events("file_corrupt", path=path, what=corrupt[path], removed=list[JsonValue](removed))
        return bool(repaired.removed)

    def _run_round(self, step: Step, todo: list[PartitionPlan], *, final: bool) -> None:
        by_name = {plan.name: plan for plan in todo}
        attempts: dict[str, int] = dict.fromkeys(by_name, 0)
        queue, running = deque(todo), 0
        executor = self._started()
        on_gpu = self._planner.settings(step).get("run.device") == "cuda"
        if step.releases:
            before_write(self._commits, step.name, {plan.partition: plan.fingerprint for plan in todo})
        while queue or running:
            while queue and running < _room(executor, on_gpu=on_gpu) and not self._draining():
                plan = queue.popleft()
                spec = self._spec(step, plan, final=final)
                number = attempts[plan.name] + 1
                self._events("partition_started", step=plan.step, partition=plan.partition, attempt=number)
                executor.submit(self._watch.begun(spec) if self._watch else spec)
                running += 1
            if not running:
                return
            for finished in executor.wait(_WAIT_S):
                running -= 1
                if self._watch:
                    outcome = finished.outcome
                    self._watch.ended(finished.spec, None if isinstance(outcome, TaskFailure) else outcome.telemetry)
                plan = by_name[finished.spec.name]
                attempts[plan.name] += getattr(finished.outcome, "kind", "") != "node_lost"  # no attempt of its own
                if not isinstance(finished.outcome, TaskFailure):
                    self._commit(step, plan, finished.outcome, finished.seconds)
                elif finished.outcome.kind == "out_of_memory" and (smaller := self._smaller(plan, finished.outcome)):
                    by_name[plan.name] = smaller
                    queue.append(smaller)
                elif self._is_worth_another(plan, finished.outcome, attempts[plan.name]):
                    queue.append(plan)
            if self.summary.broken:
                queue.clear()

    def _is_worth_another(self, plan: PartitionPlan, failure: TaskFailure, attempts: int) -> bool:
        if failure.kind == "no_space":
            raise NoSpaceError(f"{plan.name}: {failure.message}; free some space, then run again: it resumes here")
        if failure.kind == "environment":
            raise ModelMissingError(failure.message)
        if failure.kind == "corrupt" and not self._repair({failure.path: failure.message}):
            failure.kind = "error"  # the driver reads it as recorded: the worker met something else
            failure.message += "; from here the file is as recorded: can every worker reach the workdir?"
        lasting = failure.kind in ("corrupt", "out_of_memory") or failure.message.startswith(_LASTING)
        if failure.kind == "node_lost":
            self._losses[plan.name] += 1
            lasting, attempts = self._losses[plan.name] > NODE_LOSSES, 0
            failure.message += f"; {NODE_LOSSES + 1} nodes were lost under it, and it is given up" if lasting else ""
        if not lasting and attempts <= self._run.retries:
            self._events("partition_retried", **_told_of(plan, failure))
            return True
        self.summary.failed[plan.name] = failure.message
        self._events("partition_failed", **_told_of(plan, failure))
        return False

    def _smaller(self, plan: PartitionPlan, failure: TaskFailure) -> PartitionPlan | None:
        """Return a partition's plan at half the batch after running out of memory, if mixed profiles are allowed."""
        if not self._run.allow_mixed_profile:
            failure.message += (
                "; take a smaller batch for all (--set, then partitions done so far are done anew), or let this one "
                "differ: --allow-mixed-profile"
            )
            return None
        smaller = self._planner.halve(plan)
        if smaller:
            batch = smaller.params["batch"]
            self._events("partition_halved", step=plan.step, partition=plan.partition, batch=batch)
        return smaller

    def _spec(self, step: Step, plan: PartitionPlan, *, final: bool) -> TaskSpec:
        settings = self._planner.settings(step)
        return TaskSpec(
            plan.step,
            plan.partition,
            settings,
            plan.params,
            final,
            plan.inputs,
            plan.prior,
            self._run.scratch,
            plan.parts,
        )

    def _commit(self, step: Step, plan: PartitionPlan, outcome: Outcome, seconds: float) -> None:
        if any(lock.lost for lock in self._locks):
            raise LockHeldError("this run's lock was taken over by another run; nothing more is committed")
        begun_s = time.monotonic()
        try:
            manifest = self._closed(step, plan, outcome)
        except BooksDoNotCloseError as error:
            self.summary.broken = str(error)
            self._events("partition_failed", step=plan.step, partition=plan.partition, error=str(error))
            return
        if step.name == "shard.index":
            tars = [f.file.path for f in plan.inputs if f.table == "tar"]
            sweep(self._store, self._commits, manifest, tars)
        try:
            name = self._commits.commit(manifest, plan.number)
        except AlreadyThereError:  # made by an earlier run, which a list that lags did not show
            self._planner.committed(plan, *self._commits.adopt(manifest, plan.number))
            self._events("note", text=f"{plan.name} was committed before, and that stands")
            return
        self._planner.mark_retried(plan)
        self._planner.committed(plan, manifest, name)
        self.summary.worked += 1
        rows: dict[str, JsonValue] = {s: dict(c.model_dump(by_alias=True)) for s, c in manifest.rows.items()}
        told: dict[str, JsonValue] = {"telemetry": outcome.telemetry} if outcome.telemetry else {}
        written = sum(output.bytes for output in outcome.outputs) + outcome.ledger.bytes
        times = {
            "seconds": round(seconds, 3),
            "cpu_s": round(outcome.cpu_s, 3),
            "commit_s": round(time.monotonic() - begun_s, 4),
        }
        whole = {"rows": rows, "bytes": written, **times, **told}
        self._events("partition_done", step=plan.step, partition=plan.partition, **whole)
        self._say_suspicions(outcome.facts)

    def _say_suspicions(self, facts: Mapping[str, JsonValue]) -> None:
        """Say what a step suspects of its input, once a run: lines of other partitions differ in their numbers."""
        lines = facts.get("suspicions")
        for line in lines if isinstance(lines, list) else ():
            kind = _NUMBER.sub("#", str(line))
            if kind not in self._suspicions:
                self._suspicions.add(kind)
                self._events("note", text=str(line))

    def _closed(self, step: Step, plan: PartitionPlan, outcome: Outcome) -> Manifest:
        """Check the closing law and return the manifest. Raises BooksDoNotCloseError."""
        books = close_books(plan.name, outcome.seen, outcome.kept, outcome.left, outcome.counted)
        if step.inputs:  # what came in is known without the step's word: upstream's receipts say it
            counted = {(given.step, given.table) for given in step.rows_in}
            given = sum(i.file.rows for i in plan.inputs if (i.step, i.table) in counted)
            if given != sum(outcome.seen.values()):
                before = " and ".join(sorted({name for name, _ in counted}))
                raise BooksDoNotCloseError(
                    f"{plan.name}: {before} handed over {given} rows, the books say {sum(outcome.seen.values())}"
                )
        kept = sum(o.rows for o in outcome.outputs if o.name == step.keeps)
        if kept != sum(outcome.kept.values()):
            raise BooksDoNotCloseError(
                f"{plan.name}: {step.keeps} holds {kept} rows, the books say {sum(outcome.kept.values())}"
            )
        facts = dict(outcome.facts)
        if step.carries:
            layout = self._planner.layout()
            facts["layout"] = {"buckets": layout.buckets, "spread": list[JsonValue](sorted(layout.spread))}
        return Manifest(
            step=plan.step,
            partition=plan.partition,
            fingerprint=plan.fingerprint,
            row_fingerprint=plan.parts.row_fingerprint(recording=step.recording),
            parts=plan.parts,
            open=any(counts.deferred for counts in books.values()),
            outputs=[*outcome.outputs, *self._pointed(step, outcome.pointed)],
            ledger=outcome.ledger,
            rows=books,
            facts=facts,
        )

    def _pointed(self, step: Step, paths: list[str]) -> list[Receipt]:
        """Return the receipts of earlier files that rows taken over still point into."""
        if not paths:
            return []
        return self._planner.receipts(step.name, sorted(paths))


def _room(executor: Executor, *, on_gpu: bool) -> int:
    return executor.gpu_capacity if on_gpu else executor.capacity


def _told_of(plan: PartitionPlan, failure: TaskFailure) -> dict[str, JsonValue]:
    return {"step": plan.step, "partition": plan.partition, "kind": failure.kind, "error": failure.message}


def _totals(plan: StepPlan) -> dict[str, JsonValue]:
    rows, records = [p.row for p in plan.done], plan.details.records
    columns = {"in": records.values("seen"), "kept": records.values("kept"), "left": records.values("left")}
    return {name: sum(values[row] for row in rows) for name, values in columns.items()}

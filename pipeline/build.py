"""One run from the command line to its exit code: workdir, lock, world, plan, executor, runner, run folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from manifests.canonical import JsonValue
from manifests.commits import CommitStore
from manifests.recipe import Recipe
from manifests.store import Store
from pipeline.causes import Warnings
from pipeline.events import Events
from pipeline.executors.base import Executor, Tell
from pipeline.interrupts import Interrupts
from pipeline.line import LINE, select
from pipeline.live import WATCHED, Watch
from pipeline.locks import Lock
from pipeline.metadata import metadata_slices
from pipeline.picture import Picture
from pipeline.picture_text import in_line, in_lines
from pipeline.planner import Planner
from pipeline.price.fits import check_fits
from pipeline.progress import Progress
from pipeline.runner import Runner, Summary
from pipeline.runs import RunFolder, newest_recipe
from pipeline.selection import Selection
from pipeline.start_lines import download_lines
from pipeline.watching.of_run import kept
from pipeline.workdir import open_workdir
from pipeline.worlds import ensure_world, served
from stages.step import Step


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked to do.

    Attributes:
        stage: Only this stage or step.
        until: The line up to this stage or step.
        selection: Which partitions.
        retry_failed: Whether rows that failed are tried once more.
        ray_address: A Ray cluster to join.
        arguments: The command line, for the record.
    """

    stage: str = ""
    until: str = ""
    selection: Selection = field(default_factory=Selection)
    retry_failed: bool = False
    ray_address: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Ended:
    """How a run ended.

    Attributes:
        summary: What was done.
        had_work: Whether anything could be done.
        signal_code: The exit code of a signal that came.
        waiting: If nothing could be done: the steps that are not settled, and what they wait for.
    """

    summary: Summary
    had_work: bool
    signal_code: int = 0
    waiting: dict[str, list[str]] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """The exit code: 0 settled, 2 nothing could start, 3 failed or open, 4 law broken, 130 or 143 a signal."""
        if self.summary.broken:
            return 4
        if self.signal_code:
            return self.signal_code
        if self.waiting:
            return 2
        return 3 if self.summary.failed or self.summary.left_open or self.summary.unready else 0


def build(recipe: Recipe, store: Store, options: Options, say: Callable[[str], None]) -> Ended:
    """Run a build, or the part of it that ``options`` names.

    Raises:
        RecipeError, WorkdirError, WorldError, LockHeldError, NoSpaceError: Each with one line that says what to do.
        ValueError: If a stage is unknown.
    """
    steps = select(options.stage, options.until)
    if recipe.run.wandb:
        from pipeline.watching.wandb_log import require_wandb

        require_wandb()
    open_workdir(store, recipe.name, create=True)
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        locks = [stack.enter_context(Lock(store, s, recipe.run.lock_beat_s, say)) for s in _scopes(steps, options)]
        ensure_world(recipe, store, say)
        commits = CommitStore(store)
        slices = metadata_slices(recipe, store, needed=options.selection.sources or None)
        planner = Planner(recipe, store, commits, slices, retry_failed=options.retry_failed)
        if not _has_work(planner, steps, options.selection):
            if newest_recipe(store) != recipe:
                RunFolder(store, recipe, options.arguments)
            plans = [planner.plan(step) for step in steps]
            return Ended(Summary(), had_work=False, waiting={p.step.name: p.waiting for p in plans if p.waiting})
        if not options.selection.sources:
            check_fits(recipe, store, planner, steps, say)
        if "download.fetch" in {step.name for step in steps}:
            for line in download_lines(recipe):
                say(line)
        return _work(recipe, store, options, steps, planner, commits, locks, interrupts, stack)


def _work(
    recipe: Recipe,
    store: Store,
    options: Options,
    steps: Sequence[Step],
    planner: Planner,
    commits: CommitStore,
    locks: Sequence[Lock],
    interrupts: Interrupts,
    stack: ExitStack,
) -> Ended:
    events, folder = Events(), RunFolder(store, recipe, options.arguments)
    events.listen(folder.listen)
    progress = stack.enter_context(Progress())
    events.listen(progress.listen)
    stack.callback(folder.flush)
    picture = Picture()
    watch = stack.enter_context(watched(store, folder.path, events, progress, picture))
    live = stack.enter_context(served(recipe, store))
    planner.serve(live)
    runner = Runner(
        live,
        store,
        planner,
        commits,
        lambda: start_executor(live, store, options.ray_address, events),
        events,
        _stopper(interrupts, recipe.run.time_limit_s),
        locks,
        options.selection,
        watch,
    )
    events("run_started", recipe=recipe.name, steps=[step.name for step in steps], folder=folder.path)
    stack.enter_context(kept(recipe, store, folder.path, _scope(options), events, progress.tally, watch, picture))
    summary = runner.run(steps)
    code = interrupts.exit_code or (143 if summary.stopped else 0)
    ended = Ended(summary, had_work=True, signal_code=code)
    events("run_finished", committed=summary.worked, failed=dict(summary.failed), exit_code=ended.exit_code)
    return ended


def watched(store: Store, folder: str, events: Events, progress: Progress, picture: Picture) -> Watch:
    """Return a watch that shows how downloads go, and says what is the matter when too many fail for one reason."""
    warnings = Warnings()

    def tell() -> None:
        now = picture.now()
        progress.tell(WATCHED, in_line(now), in_lines(now))
        for line in warnings.due(now.counts):
            events("note", text=line)

    def heard(told: Mapping[str, Mapping[str, JsonValue]]) -> None:
        picture.heard(told)
        tell()

    def ended(partition: str, telemetry: Mapping[str, JsonValue] | None) -> None:
        picture.ended(partition, telemetry)
        tell()

    return Watch(store, folder, heard, ended)


def start_executor(recipe: Recipe, store: Store, ray_address: str = "", tell: Tell | None = None) -> Executor:
    """Return the executor that the recipe names; modules are imported only when they are used.

    Args:
        recipe: Names it, with the workers and the deadline of a partition.
        store: The workdir.
        ray_address: A cluster to join; empty: what RAY_ADDRESS says, or none.
        tell: Told of what happens to a cluster.
    """
    workers, deadline_s = recipe.run.workers or default_workers(), recipe.run.partition_deadline_s
    if recipe.run.executor == "ray":
        from pipeline.executors.asking import asking
        from pipeline.executors.ray import RayTasks

        address = ray_address or os.environ.get("RAY_ADDRESS", "")
        asked = asking(recipe.run, [step.name for step in LINE])
        return RayTasks(store, recipe.run.workers if address else workers, deadline_s, address, asked, tell)
    if workers == 1:
        from pipeline.executors.inprocess import InProcess

        return InProcess(store, deadline_s)
    from pipeline.executors.processes import Processes

    return Processes(store, workers, deadline_s)


def default_workers() -> int:
    """Return the CPUs this process may use: its affinity, or what Slurm granted, not all of a login node."""
    granted = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return int(granted) if granted.isdigit() and int(granted) else len(os.sched_getaffinity(0))


def _scopes(steps: Sequence[Step], options: Options) -> list[str]:
    if not options.selection.count:
        return ["run"]
    return [f"{step.name}.{_slice(options)}" for step in steps if step.kind == "map"] or ["run"]


def _scope(options: Options) -> str:
    """Return what tells runs apart that go on at once in one workdir."""
    return f"{options.stage or options.until or 'run'}.{_slice(options)}" if options.selection.count else "run"


def _slice(options: Options) -> str:
    return f"{options.selection.index}of{options.selection.count}"


def _has_work(planner: Planner, steps: Sequence[Step], selection: Selection) -> bool:
    for step in steps:
        plan = planner.plan(step)
        if plan.corrupt or selection.of(plan):
            return True
        if plan.waiting and any(name.split("/")[0] in {s.name for s in steps} for name in plan.waiting):
            return True
    return False


def _stopper(interrupts: Interrupts, time_limit_s: float) -> Callable[[], bool]:
    deadline = time.monotonic() + time_limit_s if time_limit_s else float("inf")
    return lambda: interrupts.draining or time.monotonic() > deadline


def planner_over(recipe: Recipe, store: Store, *, reading: bool = False) -> tuple[Planner, CommitStore]:
    """Return a planner over an existing workdir; ``reading``: for commands that look at what was made, wherever."""
    commits = CommitStore(store)
    slices = metadata_slices(recipe, store, needed=() if reading else None)
    return Planner(recipe, store, commits, slices, reading=reading), commits

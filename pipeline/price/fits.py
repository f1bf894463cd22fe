"""Whether a build fits: disk, inodes, memory, against what is still to do. It refuses only what is sure not to fit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from manifests.recipe import Recipe
from manifests.store import Store
from pipeline.errors import UserError
from pipeline.planner import Planner
from pipeline.price.estimate import needs
from pipeline.price.machine import Machine, machine_of, room
from pipeline.price.needs import StepNeed
from stages.step import Step

REFUSE_BELOW = 0.5
"""Free, as a share of need, below which a run is refused: a price may be off by a factor of two."""

_SLOW_S = 24 * 3600.0
"""Seconds of a model step without a GPU that are worth a word."""

_GB = 1e9


class DoesNotFitError(UserError):
    """A run that cannot end: one line that says what is needed, what there is, and what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """A file system against what is to be laid down there; None: an object store, which cannot be asked."""

    what: str
    need_bytes: int
    need_files: int
    free_bytes: int | None
    free_files: int | None


@dataclass(slots=True)
class Fit:
    """What does not fit.

    Attributes:
        places: Workdir and scratch.
        refused: One line each for what cannot be.
        warned: One line each for what may not, or would take long.
    """

    places: list[Place] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)


def fits(needed: Sequence[StepNeed], recipe: Recipe, store: Store, at: Machine) -> Fit:
    """Return what is needed against what there is.

    Disk: less free than half of the need is refused, less than all of it is warned of; likewise inodes. Memory: a task
    that needs more than the largest machine has is refused if its rows are known, else warned of. What rests on the
    shares of other sources is warned of alone. So are tasks that would run into their deadline, and models without GPU.
    """
    found = Fit()
    todo = [need for need in needed if need.partitions]
    _disk(found, todo, recipe, store, at)
    here = not recipe.cluster.cpus and not recipe.cluster.memory_gb
    for need in todo:
        _memory(found, need, at, here=here)
        if need.task_s > recipe.run.partition_deadline_s:
            found.warned.append(
                f"{need.step}: its largest task would take {need.task_s:,.0f} s and is stopped after "
                f"{recipe.run.partition_deadline_s:,.0f} (run.partition_deadline_s); allow more, or cut smaller "
                "(filter.archive_rows, filter.buckets)"
            )
        if not need.gpus and need.step in ("outlier.embed", "caption.generate") and need.wall_s > _SLOW_S:
            found.warned.append(
                f"{need.step} would take {need.wall_s / 3600:,.0f} hours on {at.cores} cores without a GPU; take GPUs "
                f"(cluster.gpus), or smaller models ({need.step.split('.')[0]}.*)"
            )
    return found


def check_fits(
    recipe: Recipe, store: Store, planner: Planner, steps: Sequence[Step], say: Callable[[str], None]
) -> None:
    """Stop a run that cannot fit before it starts, and warn of one that may not.

    Steps that were not planned yet are planned only where it would not fit if nothing of them were done.

    Raises:
        DoesNotFitError: Unless ``run.ignore_space`` says to go on.
    """
    at = machine_of(recipe)
    found = fits(needs(recipe, store, planner, at, steps, plan_all=False), recipe, store, at)
    if found.refused or found.warned:
        found = fits(needs(recipe, store, planner, at, steps), recipe, store, at)
    enforce(found, recipe, say)


def enforce(found: Fit, recipe: Recipe, say: Callable[[str], None]) -> None:
    """Say what may not fit, and stop where something cannot.

    Raises:
        DoesNotFitError: Unless ``run.ignore_space`` says to go on.
    """
    for line in found.warned:
        say(f"warning: {line}")
    if found.refused and not recipe.run.ignore_space:
        raise DoesNotFitError(f"{'; '.join(found.refused)} (run.ignore_space=true starts all the same)")
    for line in found.refused:
        say(f"warning: {line}")


def _disk(found: Fit, todo: Sequence[StepNeed], recipe: Recipe, store: Store, at: Machine) -> None:
    local = store.local_path("")
    scratch = recipe.run.scratch or tempfile.gettempdir()
    work_room, scratch_room = (room(str(local)) if local else None), room(scratch)
    stored, files = sum(n.stored_bytes for n in todo), sum(n.files for n in todo)
    laid = max((round(n.scratch_bytes * max(1, min(at.cores, n.partitions))) for n in todo), default=0)
    same = work_room is not None and scratch_room is not None and work_room.device == scratch_room.device
    firm = sum(n.stored_bytes for n in todo if n.is_firm), sum(n.files for n in todo if n.is_firm)
    found.places.append(
        Place("workdir", stored, files, work_room.bytes if work_room else None, work_room.files if work_room else None)
    )
    if not same and laid:
        free = (scratch_room.bytes, scratch_room.files) if scratch_room else (None, None)
        found.places.append(Place("scratch", laid, 0, *free))
    if work_room:
        what = f"{store.uri}: {_gb(stored)} are to be stored, {_gb(work_room.bytes)} are free"
        advice = "free some space, or choose another --workdir"
        _judge(found, work_room.bytes, stored, firm[0], f"{what}; {advice}")
        if work_room.files is not None:
            what = f"{store.uri}: {files:,} files are to be made, {work_room.files:,} inodes are free"
            _judge(found, work_room.files, files, firm[1], f"{what}; {advice}, or fewer filter.buckets")
    if scratch_room and not same and scratch_room.bytes < laid:
        found.warned.append(
            f"{scratch}: tasks may lay down {_gb(laid)} at a time, {_gb(scratch_room.bytes)} are free; name another "
            "folder (run.scratch), or take fewer workers"
        )


def _judge(found: Fit, free: int, need: int, firm: int, line: str) -> None:
    if free < REFUSE_BELOW * firm:
        found.refused.append(line)
    elif free < need:
        found.warned.append(line)


def _memory(found: Fit, need: StepNeed, at: Machine, *, here: bool) -> None:
    if not at.memory_bytes:
        return
    together = max(1, min(round(at.gpus) if need.gpus else at.cores, need.partitions)) if here else 1
    if need.memory_bytes * together <= at.memory_bytes:
        return
    if need.memory_bytes <= at.memory_bytes:
        found.warned.append(
            f"{need.step}: {together} tasks at a time need {_gb(need.memory_bytes * together)} of memory, this machine "
            f"has {_gb(at.memory_bytes)}; take fewer workers (run.workers)"
        )
        return
    line = (
        f"{need.step}: a task needs {_gb(need.memory_bytes)} of memory, the largest machine has "
        f"{_gb(at.memory_bytes)}; take a larger one for it (cluster.memory_gb says what there is)"
    )
    is_sure = need.is_firm and not need.is_estimate and not need.assumed
    if is_sure and need.memory_bytes > at.memory_bytes / REFUSE_BELOW:
        found.refused.append(line)
    else:
        found.warned.append(line)


def _gb(count: float) -> str:
    return f"{count / _GB:,.1f} GB" if count < 1e11 else f"{count / _GB:,.0f} GB"

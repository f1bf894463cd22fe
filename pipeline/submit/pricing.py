"""What the build that is to be submitted will take, on the machines that its jobs ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from manifests.commits import CommitStore
from manifests.recipe import Recipe
from manifests.recipe_files import RecipeError
from manifests.store import Store
from pipeline.metadata import Slice, metadata_slices
from pipeline.planner import Planner
from pipeline.price.estimate import needs
from pipeline.price.machine import Machine
from pipeline.price.needs import StepNeed
from pipeline.submit.order import JobNeed

_GB = 1_000_000_000


def priced(
    recipe: Recipe, store: Store, at: Machine, warned: Callable[[RecipeError], None] | None = None
) -> list[StepNeed]:
    """Return what is left to do of every step; nothing for a staged world that is not built yet.

    The plan is that of a reader: the machine that submits need not have the models, nor the jobs' numeric profile.

    Args:
        recipe: The recipe.
        store: The workdir.
        at: The machines.
        warned: Told of a source that cannot be read, which is then priced by the published table.

    Raises:
        RecipeError: As `run` would, if a source cannot be read and nobody is told instead.
    """
    planner = None
    if not recipe.world or store.size("world/world.json") is not None:
        slices = _slices(recipe, store, warned)
        planner = Planner(recipe, store, CommitStore(store), slices, reading=True)
    return needs(recipe, store, planner, at)


def _slices(recipe: Recipe, store: Store, warned: Callable[[RecipeError], None] | None) -> list[Slice]:
    try:
        return metadata_slices(recipe, store, remember=False)
    except RecipeError as error:
        if warned is None:
            raise
        warned(error)
        return metadata_slices(recipe, store, remember=False, needed=())


def machines(recipe: Recipe, jobs: Mapping[str, JobNeed]) -> Machine:
    """Return the machines that jobs take together where most of them run at a time, unless [cluster] says others."""
    told = recipe.cluster
    at_a_time = {name: min(job.tasks, told.array_limit or job.tasks) for name, job in jobs.items()}
    if told.shape == "ray":
        at_a_time = dict.fromkeys(jobs, told.nodes)
    return Machine(
        cores=told.cpus or max(at_a_time[name] * job.cpus for name, job in jobs.items()),
        gpus=told.gpus or max(at_a_time[name] * job.gpus for name, job in jobs.items()),
        memory_bytes=round(told.memory_gb * _GB),
    )

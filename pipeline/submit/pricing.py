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
from pipeline.submit.kuberay import groups
from pipeline.submit.needs import job_needs
from pipeline.submit.order import JobNeed

_GB = 1_000_000_000


def priced(
    recipe: Recipe, store: Store, to: str, warned: Callable[[RecipeError], None] | None = None
) -> tuple[list[StepNeed], Machine]:
    """Return what is left to do of every step, nothing for a staged world that is not built yet; and on what machines.

    The plan is that of a reader: the machine that submits need not have the models, nor the jobs' numeric profile.

    Args:
        recipe: The recipe.
        store: The workdir.
        to: The kind of cluster, as `machines` takes it.
        warned: Told of a source that cannot be read, which is then priced by the published table.

    Raises:
        RecipeError: As `run` would, if a source cannot be read and nobody is told instead.
    """
    planner = None
    if not recipe.world or store.size("world/world.json") is not None:
        slices = _slices(recipe, store, warned)
        planner = Planner(recipe, store, CommitStore(store), slices, reading=True)
    found = needs(recipe, store, planner, machines(recipe, job_needs(recipe), to))
    # Once more: a step has no more jobs than partitions, and those are known now.
    at = machines(recipe, job_needs(recipe, {need.step: need for need in found}), to)
    return needs(recipe, store, planner, at), at


def _slices(recipe: Recipe, store: Store, warned: Callable[[RecipeError], None] | None) -> list[Slice]:
    try:
        return metadata_slices(recipe, store, remember=False)
    except RecipeError as error:
        if warned is None:
            raise
        warned(error)
        return metadata_slices(recipe, store, remember=False, needed=())


def machines(recipe: Recipe, jobs: Mapping[str, JobNeed], to: str) -> Machine:
    """Return the machines of a cluster together.

    Slurm: those that jobs take where most of them run at a time, or that [cluster] declares. kuberay: the pods of its
    file. ray: what [cluster] declares, else one core, and one GPU if a step wants any.
    """
    told = recipe.cluster
    cores, gpus = told.cpus, told.gpus
    if to == "kuberay":
        pods = groups(told.kubernetes, jobs)
        cores = max(1, sum(group.most * group.cpus for group in pods))
        gpus = sum(group.most * group.gpus for group in pods)
    elif to == "ray":
        cores, gpus = cores or 1, gpus or 1
    else:
        at_a_time = {name: min(job.tasks, told.array_limit or job.tasks) for name, job in jobs.items()}
        if told.shape == "ray":
            at_a_time = dict.fromkeys(jobs, told.nodes)
        cores = cores or max(at_a_time[name] * job.cpus for name, job in jobs.items())
        gpus = gpus or max(at_a_time[name] * job.gpus for name, job in jobs.items())
    wanted = any(job.gpus for job in jobs.values())
    return Machine(cores=cores, gpus=gpus if wanted else 0.0, memory_bytes=round(told.memory_gb * _GB))

"""What each step's jobs ask for: the recipe's word first, then what the run is priced at, then modest defaults."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import TypeVar

from manifests.recipe import Recipe
from manifests.recipe_cluster import Cluster
from pipeline.errors import UserError
from pipeline.line import LINE
from pipeline.price.needs import StepNeed
from pipeline.submit.order import JobNeed
from stages.step import Step

# Cores, memory in GB and hours of one job where neither recipe nor price says more: ours, generous for 16 slices of a
# million rows. A job that meets its time limit starts again; one that meets its memory limit does not.
_DEFAULTS: Mapping[str, tuple[int, int, float]] = {
    "filter.match": (8, 16, 8),
    "filter.pool": (4, 32, 8),
    "download.fetch": (4, 16, 24),
    "dedup.inspect": (8, 16, 12),
    "dedup.cluster": (8, 64, 12),
    "outlier.embed": (8, 32, 12),
    "outlier.cut": (4, 32, 4),
    "caption.generate": (8, 32, 24),
    "caption.choose": (4, 16, 4),
    "geo.locate": (4, 16, 8),
    "shard.plan": (8, 64, 8),
    "shard.pack": (4, 16, 8),
    "shard.index": (4, 32, 4),
}
_Number = TypeVar("_Number", int, float)
_MEMORY_SLACK = 1.25
_DRIVER_GB = 1  # of the process that hands out the partitions
_LEAST_GB, _LEAST_GPU_GB = 4, 16  # a GPU's libraries and a model on its way to it
_TIME_SLACK = 1.5
_LEAST_HOURS, _MOST_HOURS = 1.0, 24.0
_GIB = 1 << 30
_LONGEST_DRAIN_S = 65_535  # sbatch's own limit
_DEADLINE_MARGIN_S = 60  # to write down a partition that met its deadline


def job_needs(recipe: Recipe, prices: Mapping[str, StepNeed] | None = None) -> dict[str, JobNeed]:
    """Return what one job of every step asks for, in the order of the line.

    Args:
        recipe: Its table [cluster] overrides anything; ``*`` stands for every step it does not name.
        prices: What is left to do of each step, where that is known.

    Raises:
        UserError: If a key of a table ``cluster.job_*`` is no step.
    """
    _check_steps(recipe.cluster)
    return {step.name: _need(step, recipe, (prices or {}).get(step.name)) for step in LINE}


def placed(recipe: Recipe, needs: Mapping[str, JobNeed]) -> Recipe:
    """Return the recipe with ``run.device`` decided for all jobs alike.

    Were it left to each machine, a job without a GPU would take what a GPU has made for somebody else's work, because
    the device is part of a model step's fingerprint.

    Raises:
        UserError: If the device is a GPU, and the jobs of a step that runs a model get none.
    """
    device = recipe.run.device
    if device == "auto":
        device = "cuda" if any(need.gpus for need in needs.values()) else "cpu"
    without = [step.name for step in LINE if "run.device" in step.asks and not needs[step.name].gpus]
    if device == "cuda" and without:
        raise UserError(f"give {' and '.join(without)} a GPU: cluster.job_gpus, or set run.device=cpu")
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"device": device})})


def _need(step: Step, recipe: Recipe, price: StepNeed | None) -> JobNeed:
    cluster = recipe.cluster
    cpus, memory_gb, hours = _DEFAULTS[step.name]
    gpus = _said(cluster.job_gpus, step.name, _gpus(step, recipe))
    cpus = _said(cluster.job_cpus, step.name, cpus)
    # A model is loaded once a process, and one process fills a GPU: the other cores decode for it.
    workers = 1 if gpus or step.kind == "reduce" else max(1, cpus // max(1, price.cpus if price else 1))
    tasks = cluster.array if step.kind == "map" else 1
    if price and not price.partitions:
        tasks = 1
    elif price:
        tasks = min(tasks, price.partitions)
        wanted_gb = math.ceil(workers * price.memory_bytes * _MEMORY_SLACK / _GIB) + _DRIVER_GB
        memory_gb = max(wanted_gb, _LEAST_GPU_GB if gpus else _LEAST_GB)
        turns = math.ceil(price.partitions / (tasks * workers))
        hours = min(_MOST_HOURS, max(_LEAST_HOURS, turns * price.task_s / 3600 * _TIME_SLACK))
    hours = _said(cluster.job_hours, step.name, hours)
    return JobNeed(
        cpus=cpus,
        memory_gb=_said(cluster.job_memory_gb, step.name, memory_gb),
        gpus=gpus,
        hours=hours,
        workers=workers,
        tasks=tasks,
        drain_s=_drain_s(recipe, price, hours),
    )


def _gpus(step: Step, recipe: Recipe) -> int:
    """Return the GPUs of a step's job: one if it runs a model, and the recipe means models to run on GPUs."""
    on_gpu = recipe.run.device == "cuda" or (recipe.run.device == "auto" and recipe.cluster.gpu_partition)
    return 1 if on_gpu and "run.device" in step.asks else 0


def _check_steps(cluster: Cluster) -> None:
    names = ["*", *(step.name for step in LINE)]
    for table in ("job_cpus", "job_memory_gb", "job_gpus", "job_hours"):
        for key in getattr(cluster, table):
            if key not in names:
                near = difflib.get_close_matches(key, names, n=3, cutoff=0.4) or names
                raise UserError(f"cluster.{table}: {key!r} is no step; did you mean {', '.join(near)}?")


def _drain_s(recipe: Recipe, price: StepNeed | None, hours: float) -> int:
    """Return how long before its limit a job is told: long enough for a partition, which ends at its deadline.

    And never more than half of the job's time: told at its start, it would start nothing.
    """
    deadline_s = math.ceil(recipe.run.partition_deadline_s) + _DEADLINE_MARGIN_S
    task_s = min(deadline_s, math.ceil(1.2 * price.task_s)) if price else 0
    return max(1, min(max(recipe.cluster.drain_s, task_s), int(hours * 1800), _LONGEST_DRAIN_S))


def _said(table: Mapping[str, _Number], step: str, otherwise: _Number) -> _Number:
    return table.get(step, table.get("*", otherwise))

"""What is to be submitted, and what comes of it: the hand-over between the command `submit` and each cluster's files.

Each of `slurm`, `ray_job` and `kuberay` has ``render(order) -> list[JobFile]``, ``summary(order) -> list[str]``, lines
that say what is asked for, and ``hand_over(order) -> HandOver``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from manifests.recipe import Recipe

RECIPE_FILE = "recipe.toml"


@dataclass(frozen=True, slots=True)
class JobNeed:
    """What one job that runs a step asks its scheduler for.

    Attributes:
        cpus: Cores.
        memory_gb: Memory, in units of 2**30 bytes.
        gpus: GPUs.
        hours: Wall-clock limit.
        workers: Partitions it works on at a time.
        tasks: Jobs the step is cut into where jobs share it; 1 for a reduce step.
        drain_s: How long before its limit a job is told to finish what is running and to start nothing new.
    """

    cpus: int
    memory_gb: int
    gpus: int
    hours: float
    workers: int
    tasks: int
    drain_s: int

    @property
    def size(self) -> str:
        """What it asks for of a machine, in words."""
        gpus = f", {self.gpus} GPU" if self.gpus else ""
        return f"{self.cpus} cores{gpus}, {self.memory_gb} GB"


@dataclass(frozen=True, slots=True)
class Order:
    """A build to submit.

    Attributes:
        recipe: The resolved recipe; ``--set`` is part of it, and ``run.device`` is decided.
        workdir: An absolute path, or an fsspec URI.
        folder: Where the job files are written: an absolute path. `RECIPE_FILE` lies there too.
        directory: The absolute path of the folder that relative paths on command lines start from.
        program: What runs the command line where jobs run, e.g. ``("/opt/env/bin/rs5m-build",)``.
        needs: By step, in the order of the line.
        overrides: The values of ``--set``, for the record in a file's head.
    """

    recipe: Recipe
    workdir: str
    folder: str
    directory: str
    program: tuple[str, ...]
    needs: Mapping[str, JobNeed]
    overrides: tuple[str, ...] = ()

    @property
    def recipe_path(self) -> str:
        """The absolute path of the resolved recipe that jobs read."""
        return f"{self.folder}/{RECIPE_FILE}"

    @property
    def largest(self) -> JobNeed:
        """What a job needs that runs every step: the largest of each."""
        needs = self.needs.values()
        return JobNeed(
            cpus=max(need.cpus for need in needs),
            memory_gb=max(need.memory_gb for need in needs),
            gpus=max(need.gpus for need in needs),
            hours=max(need.hours for need in needs),
            workers=max(need.workers for need in needs),
            tasks=1,
            drain_s=max(need.drain_s for need in needs),
        )


@dataclass(frozen=True, slots=True)
class JobFile:
    """One file to write.

    Attributes:
        name: Its name within the folder.
        text: What it says.
        mode: Its permissions, e.g. 0o755.
    """

    name: str
    text: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class HandOver:
    """How the files reach the cluster.

    Attributes:
        tool: The program that must be on the PATH: sbatch, ray or kubectl.
        command: What is run, in the order's folder.
        otherwise: One line that says which file to hand over where, for a machine without the tool.
    """

    tool: str
    command: tuple[str, ...]
    otherwise: str

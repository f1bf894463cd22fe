"""What one step of a build needs of a machine: the hand-over from the price of a run to whoever places its jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class StepNeed:
    """One step's work that is still to do, and what one task of it asks for.

    Attributes:
        step: ``<stage>.<step>``.
        kind: ``map`` or ``reduce``.
        partitions: Tasks to run; those of a step behind an unsettled one are estimated.
        rows: Rows in, over all of them.
        requests: Requests to the web.
        stored_bytes: What it adds to the workdir.
        files: Files (inodes, objects) it adds to the workdir.
        cpu_s: CPU seconds over all tasks, of one core of the machine the rates were measured on.
        gpu_s: GPU seconds over all tasks.
        task_s: Wall-clock seconds of one task, the largest.
        cpus: Cores of one task.
        memory_bytes: Peak memory of one task.
        gpus: GPUs of one task; 0 where it runs without.
        is_estimate: Whether the rows are an estimate, because steps before it are not settled.
    """

    step: str
    kind: Literal["map", "reduce"]
    partitions: int
    rows: int
    requests: int
    stored_bytes: int
    files: int
    cpu_s: float
    gpu_s: float
    task_s: float
    cpus: int
    memory_bytes: int
    gpus: float
    is_estimate: bool

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
        held_s: Seconds that tasks hold their cores, waiting for the web included; never below ``cpu_s``.
        wall_s: Wall-clock seconds of the whole step on the machine it was asked for.
        scratch_bytes: What one task, the largest, lays down in its scratch folder.
        assumed: Tables of `rates.toml` behind it that hold figures nobody measured; empty: all measured.
        is_firm: Whether its size follows from settled rows, this workdir's own shares, or the published table of the
            very source; not from the mean of other sources.
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
    held_s: float = 0.0
    wall_s: float = 0.0
    scratch_bytes: int = 0
    assumed: tuple[str, ...] = ()
    is_firm: bool = True

"""The machines a price is made for, and what room this one has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from manifests.recipe import Recipe
from stages.encoder import resolve_device

_NVIDIA = Path("/proc/driver/nvidia/gpus")
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_GB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Machine:
    """What runs a build.

    Attributes:
        cores: Tasks that run at a time without a GPU, over all machines.
        gpus: GPUs, over all machines; 0: models run on the cores.
        memory_bytes: Memory of the largest machine; 0: not known.
    """

    cores: int
    gpus: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """What is free on a file system.

    Attributes:
        bytes: Free for this user.
        files: Free inodes; None where the file system counts none.
        device: Which file system it is.
    """

    bytes: int
    files: int | None
    device: int


def machine_of(recipe: Recipe) -> Machine:
    """Return the machines of a recipe: what [cluster] declares, else ``run.workers``, else this machine."""
    from pipeline.build import default_workers

    told = recipe.cluster
    on_gpu = resolve_device(recipe.run.device) == "cuda"
    declared = told.gpus if recipe.run.device != "cpu" else 0
    return Machine(
        cores=int(told.cpus) or recipe.run.workers or default_workers(),
        gpus=declared or (_gpus_here() if on_gpu else 0),
        memory_bytes=round(told.memory_gb * _GB) or _memory_here(),
    )


def room(folder: str) -> Room | None:
    """Return what is free where a folder is, or will be; None if that cannot be told."""
    path = Path(folder).absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        found = os.statvfs(path)
        device = path.stat().st_dev
    except OSError:
        return None
    return Room(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None, device)


def _gpus_here() -> int:
    return len([*_NVIDIA.iterdir()]) if _NVIDIA.is_dir() else 1


def _memory_here() -> int:
    """Return this machine's memory, or what a container or job is granted of it."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in _LIMITS:
        try:
            limit = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit.isdigit():
            whole = min(whole, int(limit))
    return whole

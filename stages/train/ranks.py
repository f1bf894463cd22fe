"""The processes of a training: one, or as many as torchrun started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_TIMEOUT = timedelta(hours=2)  # the first rank may hash or fetch hundreds of gigabytes while the others wait


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all.

    Attributes:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        rank: 0 to world - 1; rank 0 writes.
        world: Number of processes.
        local: Its number on this machine.
    """

    device: str = "cpu"
    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes log, checkpoints and manifest."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait for all."""
        if self.world > 1:
            from torch import distributed

            distributed.barrier()

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank."""
        return any(row[0] for row in self.gather([int(flag)]))

    def gather(self, numbers: list[int]) -> list[list[int]]:
        """Return the numbers of every rank, equally many on each, in order of rank."""
        if self.world == 1:
            return [numbers]
        import torch
        from torch import distributed

        own = torch.tensor(numbers, dtype=torch.int64, device=self.device)
        found = [torch.empty_like(own) for _ in range(self.world)]
        distributed.all_gather(found, own)
        return [[int(n) for n in part.tolist()] for part in found]

    def mean(self, value: torch.Tensor) -> float:
        """Return the mean of a scalar over all ranks."""
        if self.world == 1:
            return float(value)
        from torch import distributed

        total = value.detach().clone()
        distributed.all_reduce(total)
        return float(total) / self.world

    def share(self, text: str) -> str:
        """Return the text of rank 0, on every rank."""
        if self.world == 1:
            return text
        import torch
        from torch import distributed

        body = text.encode() if self.leads else b""
        (length, *_), *_ = self.gather([len(body)])
        data = torch.zeros(length, dtype=torch.uint8, device=self.device)
        if self.leads:
            data = torch.tensor(list(body), dtype=torch.uint8, device=self.device)
        distributed.broadcast(data, 0)
        return bytes(data.tolist()).decode()


@contextlib.contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, or be the only one.

    Args:
        device: ``auto`` (cuda where this machine has one), ``cpu`` or ``cuda``.

    Raises:
        ValueError: If cuda is asked for and not there.
    """
    import torch

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise ValueError('run.device = "cuda": torch sees no CUDA device here; set run.device="auto" or "cpu"')
    kind = "cuda" if device == "cuda" or (device == "auto" and there) else "cpu"
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    if world == 1:
        yield Ranks(kind)
        return
    from torch import distributed

    options: dict[str, Any] = {}
    if kind == "cuda":
        torch.cuda.set_device(local)
        options["device_id"] = torch.device("cuda", local)
    distributed.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=_TIMEOUT, **options)
    try:
        yield Ranks(f"cuda:{local}" if kind == "cuda" else "cpu", distributed.get_rank(), world, local)
    finally:
        distributed.destroy_process_group()

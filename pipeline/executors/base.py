"""What every executor does: takes tasks up to its capacity and hands back outcomes, whatever happens to a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from pipeline.worker import Outcome, TaskSpec

FailureKind = Literal["error", "corrupt", "deadline", "lost", "node_lost", "no_space", "environment", "out_of_memory"]
Tell: TypeAlias = Callable[..., None]
"""Takes an event: its name, and its fields as keywords."""


@dataclass(slots=True)
class TaskFailure:
    """A task that did not work.

    Attributes:
        kind: error: the step raised; corrupt: a stored file is damaged; deadline: killed after its time; lost: the
            worker died by itself; node_lost: it died with its node, which is not the task's fault; no_space: a disk is
            full; environment: a model or a resource is not at hand; out_of_memory: a model's device has too little.
        message: One line.
        path: The damaged file, for ``corrupt``.
    """

    kind: FailureKind
    message: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """A task and what came of it."""

    spec: TaskSpec
    outcome: Outcome | TaskFailure
    seconds: float


def needs_gpu(spec: TaskSpec) -> bool:
    """Whether a task runs a model on a GPU: its step asks for ``run.device``, and the driver found it to be one."""
    return spec.settings.get("run.device") == "cuda"


class Executor(Protocol):
    """Runs tasks somewhere. Attempts are counted by the runner, never here."""

    @property
    def capacity(self) -> int:
        """How many tasks it holds at once; asked before each is given, because a cluster may grow or shrink."""

    @property
    def gpu_capacity(self) -> int:
        """How many tasks it holds at once of those that need a GPU."""

    def submit(self, spec: TaskSpec) -> None:
        """Take a task."""

    def wait(self, timeout_s: float) -> list[Finished]:
        """Return what has finished, waiting up to ``timeout_s`` for the first."""

    def close(self, *, kill: bool) -> None:
        """Let go of all workers; with ``kill``, whatever they are doing."""

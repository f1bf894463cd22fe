"""One worker: the tasks run in this process, one after the other."""

from __future__ import annotations

from manifests.store import Store
from pipeline.executors.attempt import attempt
from pipeline.executors.base import Finished
from pipeline.worker import TaskSpec


class InProcess:
    """Runs each task when it is submitted."""

    capacity = 1
    gpu_capacity = 1

    def __init__(self, store: Store, deadline_s: float) -> None:
        self._store = store
        self._deadline_s = deadline_s
        self._finished: list[Finished] = []

    def submit(self, spec: TaskSpec) -> None:
        """Run a task to its end."""
        self._finished.append(attempt(self._store, spec, self._deadline_s))

    def wait(self, timeout_s: float) -> list[Finished]:
        """Return what was submitted."""
        del timeout_s
        finished, self._finished = self._finished, []
        return finished

    def close(self, *, kill: bool) -> None:
        """Nothing is left running."""
        del kill

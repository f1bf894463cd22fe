"""Real tasks of the filter stage for executors, and one that hangs until it is stopped: its metadata is a pipe."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from manifests.store import Store
from pipeline.build import planner_over
from pipeline.executors.base import Executor, Finished
from pipeline.line import step_named
from pipeline.worker import TaskSpec
from tests.world_building import Workdir, wait_for


class Tasks:
    """Specs of filter.match over a workdir of the test's own.

    Attributes:
        store: The workdir.
        all: One spec a metadata file.
        scratch: Folder whose first entry tells that a hanging task has begun.
    """

    def __init__(self, workdir: Workdir, scratch: Path) -> None:
        self.store = Store(str(workdir.path))
        planner, _ = planner_over(workdir.recipe(), self.store)
        step = step_named("filter.match")
        self.all = [
            TaskSpec(p.step, p.partition, planner.settings(step), p.params, final=False)
            for p in planner.plan(step).partitions
        ]
        self.scratch = scratch
        scratch.mkdir()

    def _of(self, source: str, name: str, uri: str) -> TaskSpec:
        spec = next(s for s in self.all if s.params["source"] == source)
        return dataclasses.replace(spec, partition=name, params={**spec.params, "uri": uri})

    @property
    def hanging(self) -> TaskSpec:
        """Opens a pipe that nobody writes to."""
        pipe = self.scratch.with_name("pipe.tsv")
        if not pipe.exists():
            os.mkfifo(pipe)
        return dataclasses.replace(self._of("cc3m", "hanging", str(pipe)), scratch=str(self.scratch))

    @property
    def failing(self) -> TaskSpec:
        """Opens a Parquet file that is none."""
        self.store.replace("bad.parquet", b"not what was asked for")
        return self._of("laion2b", "failing", "bad.parquet")

    def begun(self) -> None:
        """Wait until the hanging task has begun."""
        wait_for(lambda: any(self.scratch.iterdir()), 60)


@pytest.fixture
def tasks(fresh: Workdir, tmp_path: Path) -> Tasks:
    return Tasks(fresh, tmp_path / "scratch")


@pytest.fixture
def collect() -> Callable[[Executor, int], dict[str, Finished]]:
    """Waits for a number of tasks to finish; returns them by partition."""

    def wait(executor: Executor, count: int) -> dict[str, Finished]:
        found: dict[str, Finished] = {}

        def enough() -> bool:
            found.update({f.spec.partition: f for f in executor.wait(0.1)})
            return len(found) == count

        wait_for(enough, 60)
        return found

    return wait

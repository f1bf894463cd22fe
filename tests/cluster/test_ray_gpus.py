"""GPUs by share and resources by name, on a real Ray cluster whose nodes only say that they have them."""

import dataclasses
import os
import signal
from collections.abc import Iterator

import pytest

from manifests.store import Store
from pipeline.build import planner_over
from pipeline.executors.asking import Asking
from pipeline.executors.base import Finished, TaskFailure
from pipeline.executors.ray import RayTasks
from pipeline.line import step_named
from pipeline.worker import Outcome, TaskSpec
from tests.cluster.ray_nodes import RayNode, RayNodes, children, command_of
from tests.world_building import Workdir, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


class OnGpu:
    """An executor over one node, and tasks of the filter that ask as a model's do.

    Attributes:
        specs: One spec a metadata file.
        told: Names of the events.
        nodes: The cluster.
    """

    def __init__(self, nodes: RayNodes, workdir: Workdir) -> None:
        store = Store(str(workdir.path))
        planner, _ = planner_over(workdir.recipe(), store)
        step = step_named("filter.match")
        settings = {**planner.settings(step), "run.device": "cuda"}
        plans = planner.plan(step).partitions
        self.specs = [TaskSpec(p.step, p.partition, settings, p.params, final=False) for p in plans]
        self.told: list[str] = []
        self.nodes = nodes
        self.node: RayNode = nodes.add(num_cpus=4, num_gpus=1, net=3)
        asking = Asking(0.5, {"filter.match": {"net": 1}}, 0.0)
        self.executor = RayTasks(store, 0, 60, nodes.address, asking, self._tell)

    def _tell(self, event: str, **_: object) -> None:
        self.told.append(event)

    def workers(self, *, busy: bool = False) -> list[int]:
        """Return the processes that hold a share of the GPU."""
        name = b"GpuProcess.attempt" if busy else b"GpuProcess"
        return [pid for pid in children(self.node.pids[0]) if name in command_of(pid)]

    def collect(self, count: int) -> list[Finished]:
        found: list[Finished] = []
        wait_for(lambda: bool(found.extend(self.executor.wait(0.05))) or len(found) >= count)
        return found


@pytest.fixture
def on_gpu(fresh: Workdir) -> Iterator[OnGpu]:
    with RayNodes() as nodes:
        made = OnGpu(nodes, fresh)
        yield made
        made.executor.close(kill=True)


def test_tasks_share_a_gpu_and_a_lost_process_is_told_from_a_lost_node(on_gpu: OnGpu, tmp_path) -> None:
    executor, specs, used = on_gpu.executor, list(on_gpu.specs), set[int]()
    executor.submit(specs[0])
    assert executor.gpu_capacity == executor.capacity == 2
    done, sent = 0, 1
    while done < len(specs):
        while sent < len(specs) and sent - done < executor.gpu_capacity:
            executor.submit(specs[sent])
            sent += 1
        outcomes = [finished.outcome for finished in on_gpu.collect(1)]
        assert all(isinstance(outcome, Outcome) for outcome in outcomes)
        done += len(outcomes)
        used.update(on_gpu.workers())
    assert len(used) == 2  # two processes served all

    os.mkfifo(tmp_path / "pipe.tsv")  # nobody writes to it
    source = next(s for s in specs if s.params["source"] == "cc3m")
    hanging = dataclasses.replace(source, params={**source.params, "uri": str(tmp_path / "pipe.tsv")})
    executor.submit(hanging)
    wait_for(lambda: on_gpu.workers(busy=True) != [])
    os.kill(on_gpu.workers(busy=True)[0], signal.SIGSEGV)
    assert [f.outcome.kind for f in on_gpu.collect(1)] == ["lost"]

    executor.submit(hanging)
    wait_for(lambda: on_gpu.workers(busy=True) != [])
    on_gpu.node.kill()
    assert [f.outcome.kind for f in on_gpu.collect(1)] == ["node_lost"]
    assert on_gpu.told == ["node_lost"]


def test_processes_that_idle_on_a_lost_node_are_not_tried_one_by_one(on_gpu: OnGpu) -> None:
    executor, specs = on_gpu.executor, on_gpu.specs
    for spec in specs[:2]:
        executor.submit(spec)
    on_gpu.collect(2)
    assert len(on_gpu.workers()) == 2  # both idle from now on
    on_gpu.nodes.add(num_cpus=4, num_gpus=1, net=3)
    on_gpu.node.kill()
    executor.submit(specs[0])
    (finished,) = on_gpu.collect(1)
    if isinstance(finished.outcome, TaskFailure):  # the head may have told of the node before the task was lost
        assert finished.outcome.kind == "node_lost"
        executor.submit(specs[0])
        (finished,) = on_gpu.collect(1)
    assert isinstance(finished.outcome, Outcome)

"""Workers run the driver's code: over another version that lies on their path, and never one that got in before it."""

from pathlib import Path

import pytest

from manifests.store import Store
from pipeline.build import planner_over
from pipeline.code_digest import copy_code
from pipeline.executors.base import Finished
from pipeline.executors.ray import RayTasks
from pipeline.line import step_named
from pipeline.worker import Outcome, TaskSpec
from tests.cluster.ray_nodes import RayNodes
from tests.world_building import Workdir, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


def _run(nodes: RayNodes, workdir: Workdir) -> Finished:
    store = Store(str(workdir.path))
    planner, _ = planner_over(workdir.recipe(), store)
    step = step_named("filter.match")
    plan = planner.plan(step).partitions[0]
    executor, found = RayTasks(store, 0, 60, nodes.address), list[Finished]()
    try:
        executor.submit(TaskSpec(plan.step, plan.partition, planner.settings(step), plan.params, final=False))
        wait_for(lambda: bool(found.extend(executor.wait(0.1))) or bool(found))
    finally:
        executor.close(kill=True)
    return found[0]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A folder with another version of the packages."""
    copy_code(tmp_path)
    line = tmp_path / "pipeline/line.py"
    line.write_text(line.read_text() + "# another version\n")
    return tmp_path


def test_another_version_on_a_nodes_path_is_not_run(fresh: Workdir, other: Path) -> None:
    with RayNodes() as nodes:
        nodes.add(num_cpus=1, path=str(other))
        assert isinstance(_run(nodes, fresh).outcome, Outcome)


def test_a_worker_that_has_another_version_already_refuses(fresh: Workdir, other: Path) -> None:
    # Ray puts the driver's code first on the path; so what is to get in before it has to push itself forward.
    lines = f"import sys\nsys.path.insert(0, {str(other)!r})\nimport pipeline.code_digest\n"
    (other / "sitecustomize.py").write_text(lines)
    with RayNodes() as nodes:
        node = nodes.add(num_cpus=1, path=str(other))
        failure = _run(nodes, fresh).outcome
        assert failure.kind == "environment"
        assert f"the worker on {node.address} would run other code (" in failure.message
        assert "take the project's packages off that node's PYTHONPATH" in failure.message

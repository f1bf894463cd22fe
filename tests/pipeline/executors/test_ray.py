"""Ray tasks: outcomes, failures, deadlines by force, and workers that run our code or none.

Ray is started once, from a folder in which a foreign `stages` lies in wait.
"""

import os
import re
import signal
import socket
from pathlib import Path

import pytest

from manifests.store import Store
from pipeline.code_digest import code_digest
from pipeline.errors import UserError
from pipeline.executors.attempt import attempt
from pipeline.executors.base import TaskFailure
from pipeline.worker import Outcome
from tests.cluster.ray_nodes import children


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.fixture(scope="module")
def ray(tmp_path_factory):
    from pipeline.executors.ray import RayTasks

    code_digest.cache_clear()  # what was digested earlier in this process may have been edited since
    here, foreign = Path.cwd(), tmp_path_factory.mktemp("foreign")
    for package in ("stages", "manifests", "pipeline"):
        (foreign / package).mkdir()
        (foreign / package / "__init__.py").write_text("raise RuntimeError('a foreign package')\n")
    os.chdir(foreign)
    try:
        executor = RayTasks(Store(str(foreign)), 2, 60)
    finally:
        os.chdir(here)
    yield executor
    executor.close(kill=True)


@pytest.fixture
def executor(ray, tasks, monkeypatch):
    monkeypatch.setattr(ray, "_store", tasks.store)
    return ray


def test_outcomes_are_those_of_this_process_whatever_lies_in_the_current_folder(executor, tasks, collect):
    assert executor.capacity == 2
    assert executor.wait(0.0) == []
    for spec in (*tasks.all[:2], tasks.failing):
        executor.submit(spec)
    found = collect(executor, 3)
    for spec in tasks.all[:2]:
        assert found[spec.partition].outcome == attempt(tasks.store, spec).outcome
    assert found["failing"].outcome.kind == "error"
    assert found["failing"].outcome.message.startswith("MetadataError: ")


def test_a_task_over_its_deadline_is_cancelled_by_force_and_the_others_go_on(executor, tasks, collect, monkeypatch):
    monkeypatch.setattr(executor, "_deadline_s", 5.0)
    for spec in (tasks.hanging, *tasks.all[:2]):
        executor.submit(spec)
    found = collect(executor, 3)
    assert found["hanging"].outcome == TaskFailure(
        "deadline", "filter.match/hanging: stopped after 5 s (run.partition_deadline_s)"
    )
    assert all(isinstance(found[s.partition].outcome, Outcome) for s in tasks.all[:2])
    executor.submit(tasks.all[2])
    assert isinstance(collect(executor, 1)[tasks.all[2].partition].outcome, Outcome)


def test_a_worker_has_one_thread_for_its_work(executor):
    import ray

    def threads() -> tuple[int, int]:
        import polars
        import pyarrow

        from pipeline.executors.threads import use_one_thread

        use_one_thread()
        return polars.thread_pool_size(), pyarrow.cpu_count()

    assert executor.capacity == 2
    assert ray.get(ray.remote(num_cpus=1)(threads).remote()) == (1, 1)


def test_a_worker_refuses_to_run_other_code_than_the_driver(executor, tasks, collect, monkeypatch):
    monkeypatch.setattr("pipeline.executors.ray.code_digest", lambda: "0" * 32)
    executor.submit(tasks.all[0])
    failure = collect(executor, 1)[tasks.all[0].partition].outcome
    assert failure.kind == "environment"
    assert "would run other code (" in failure.message
    assert "than the driver (000000000000)" in failure.message
    assert tasks.store.find("data") == []


def test_a_worker_that_dies_by_itself_is_not_a_lost_node(executor, tasks, collect):
    executor.submit(tasks.hanging)
    tasks.begun()
    (worker,) = [pid for pid in children(os.getpid()) if b"ray::_attempt" in _command(pid)]
    os.kill(worker, signal.SIGSEGV)
    failure = collect(executor, 1)["hanging"].outcome
    assert failure.kind == "lost"
    assert failure.message.startswith("filter.match/hanging: WorkerCrashedError: ")


@pytest.mark.parametrize(
    ("overtime_s", "kind", "says"),
    [
        (
            0.0,
            "deadline",
            r": stopped after 0 s \(run.partition_deadline_s\), unless it waited .*: WorkerCrashedError: ",
        ),
        (600.0, "lost", ": WorkerCrashedError: "),
    ],
)
def test_a_worker_that_dies_long_after_its_task_was_given_is_not_hidden_behind_the_deadline(
    executor, tasks, collect, monkeypatch, overtime_s, kind, says
):
    executor.submit(tasks.hanging)
    tasks.begun()
    monkeypatch.setattr(executor, "_deadline_s", 0.0)  # of the driver alone: the worker has not been told of it
    monkeypatch.setattr("pipeline.executors.ray._OVERTIME_S", overtime_s)
    (worker,) = [pid for pid in children(os.getpid()) if b"ray::_attempt" in _command(pid)]
    os.kill(worker, signal.SIGSEGV)
    failure = collect(executor, 1)["hanging"].outcome
    assert failure.kind == kind
    assert re.match(f"filter.match/hanging{says}", failure.message)


@pytest.mark.parametrize("address", ["127.0.0.1:{free}", "nonsense", "127.0.0.1:x", "ray://127.0.0.1:{free}"])
def test_a_cluster_that_is_not_there_is_said_at_once(tasks, address):
    from pipeline.executors.ray import RayTasks

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        given = address.format(free=free.getsockname()[1])
        with pytest.raises(UserError, match=f"no Ray cluster can be joined at {given} .*--ray-address or RAY_ADDRESS"):
            RayTasks(tasks.store, 0, 60, given)

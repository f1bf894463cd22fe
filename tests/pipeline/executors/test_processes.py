"""Worker processes: one that dies or hangs costs its own task alone."""

import multiprocessing
import os
import signal
import time

import pytest

from pipeline.executors.attempt import attempt
from pipeline.executors.processes import Processes
from pipeline.worker import Outcome
from tests.world_building import wait_for


@pytest.fixture
def start(tasks):
    made = []

    def processes(workers: int, deadline_s: float) -> Processes:
        made.append(Processes(tasks.store, workers, deadline_s))
        return made[-1]

    yield processes
    for executor in made:
        executor.close(kill=True)
    assert multiprocessing.active_children() == []


def test_outcomes_are_those_of_this_process(tasks, start, collect):
    executor = start(2, 60)
    assert executor.capacity == 2
    assert executor.wait(0.0) == []
    for spec in (*tasks.all[:2], tasks.failing):
        executor.submit(spec)
    found = collect(executor, 3)
    for spec in tasks.all[:2]:
        assert found[spec.partition].outcome == attempt(tasks.store, spec).outcome
    assert found["failing"].outcome.kind == "error"
    executor.close(kill=False)


def test_a_task_over_its_deadline_is_killed_and_the_others_go_on(tasks, start, collect):
    executor = start(2, 4.0)
    for spec in (tasks.hanging, *tasks.all[:3]):
        executor.submit(spec)
    found = collect(executor, 4)
    assert found["hanging"].outcome.kind == "deadline"
    assert "filter.match/hanging: stopped after 4 s" in found["hanging"].outcome.message
    assert found["hanging"].seconds >= 4
    assert all(isinstance(found[s.partition].outcome, Outcome) for s in tasks.all[:3])


def test_a_worker_that_dies_loses_its_task_alone(tasks, start, collect):
    executor = start(1, 60)
    executor.submit(tasks.hanging)
    tasks.begun()
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    executor.submit(tasks.all[0])
    found = collect(executor, 2)
    assert found["hanging"].outcome.kind == "lost"
    assert found["hanging"].outcome.message == "filter.match/hanging: the worker process died (exit code -9)"
    assert isinstance(found[tasks.all[0].partition].outcome, Outcome)


def test_ctrl_c_is_the_drivers(tasks, start, collect):
    executor = start(1, 60)
    executor.submit(tasks.hanging)
    tasks.begun()
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGINT)
    assert executor.wait(0.3) == []
    assert worker.is_alive()


def test_closing_with_kill_does_not_wait_for_what_runs(tasks, start):
    executor = start(1, 60)
    executor.submit(tasks.hanging)
    tasks.begun()
    began = time.monotonic()
    executor.close(kill=True)
    assert time.monotonic() - began < 10
    wait_for(lambda: multiprocessing.active_children() == [], 10)

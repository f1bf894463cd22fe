"""One attempt: whatever is raised becomes a failure of one line that says what kind it is."""

import dataclasses
import errno
import re
import signal
import threading

import pytest

from pipeline.executors.attempt import attempt, describe
from pipeline.executors.base import TaskFailure
from pipeline.line import step_named
from pipeline.worker import Outcome
from stages.step import CorruptFileError


def test_a_task_that_works_returns_its_receipts(tasks):
    finished = attempt(tasks.store, tasks.all[0])
    assert isinstance(finished.outcome, Outcome)
    assert finished.spec is tasks.all[0]
    assert finished.seconds > 0
    for receipt in finished.outcome.outputs:
        assert tasks.store.size(receipt.path) == receipt.bytes
    assert tasks.store.size(finished.outcome.ledger.path) == finished.outcome.ledger.bytes


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (ValueError("two\n  lines"), "error", r"^ValueError: two lines \[test_attempt\.py:\d+\]$"),
        (OSError(errno.ENOSPC, "No space left on device"), "no_space", "No space left on device"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no_space", "Disk quota exceeded"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "error", "^PermissionError"),
        (CorruptFileError("data/x", "holds other bytes"), "corrupt", "^data/x: holds other bytes$"),
        (MemoryError(), "error", "^MemoryError"),
        (TimeoutError("of the step's own"), "error", "^TimeoutError: of the step's own"),
    ],
)
def test_what_a_step_raises_is_told_apart(tasks, monkeypatch, error, kind, says):
    def fail(self, task, tables, prior):
        raise error

    monkeypatch.setattr(type(step_named("filter.match")), "process", fail)
    failure = attempt(tasks.store, tasks.all[0]).outcome
    assert isinstance(failure, TaskFailure)
    assert failure.kind == kind
    assert re.search(says, failure.message)
    assert failure.path == ("data/x" if kind == "corrupt" else "")
    assert "\n" not in failure.message


def test_a_deadline_interrupts_and_clears_up(tasks):
    before = signal.getsignal(signal.SIGALRM)
    failure = attempt(tasks.store, tasks.hanging, 0.1).outcome
    assert isinstance(failure, TaskFailure)
    assert (failure.kind, failure.message) == (
        "deadline",
        "filter.match/hanging: stopped after 0.1 s (run.partition_deadline_s)",
    )
    assert signal.getsignal(signal.SIGALRM) is before
    assert list(tasks.scratch.iterdir()) == []


def test_outside_the_main_thread_there_is_no_alarm(tasks):
    found = []
    thread = threading.Thread(target=lambda: found.append(attempt(tasks.store, tasks.all[0], 60.0)))
    thread.start()
    thread.join()
    assert isinstance(found[0].outcome, Outcome)


def test_a_task_of_an_unknown_step_is_a_failure(tasks):
    failure = attempt(tasks.store, dataclasses.replace(tasks.all[0], step="filter.nothing")).outcome
    assert isinstance(failure, TaskFailure)
    assert failure.message.startswith("KeyError: 'filter.nothing'")


def test_a_long_message_is_cut():
    assert len(describe(ValueError("x" * 10_000))) < 600

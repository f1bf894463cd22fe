"""One attempt at a task, at a worker's edge: whatever is raised becomes a failure that can be sent home."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from manifests.store import Store
from pipeline.errors import is_disk_full
from pipeline.executors.base import FailureKind, Finished, TaskFailure
from pipeline.worker import TaskSpec, run_task
from stages.step import CorruptFileError, ModelMissingError, OutOfMemoryError


class DeadlineError(Exception):
    """A partition took longer than ``run.partition_deadline_s``."""


def attempt(store: Store, spec: TaskSpec, deadline_s: float = 0.0) -> Finished:
    """Run a task once and return its outcome or failure.

    Args:
        store: The workdir.
        spec: The task.
        deadline_s: If set, and in a process's main thread, the attempt is interrupted after it.
    """
    start = time.monotonic()
    try:
        with _alarm(deadline_s):
            outcome = run_task(store, spec)
    except CorruptFileError as error:
        return Finished(spec, TaskFailure("corrupt", str(error), error.path), time.monotonic() - start)
    except ModelMissingError as error:
        return Finished(spec, TaskFailure("environment", str(error)), time.monotonic() - start)
    except OutOfMemoryError as error:
        return Finished(spec, TaskFailure("out_of_memory", describe(error)), time.monotonic() - start)
    except DeadlineError:
        return Finished(spec, late(spec, deadline_s), time.monotonic() - start)
    except OSError as error:
        kind: FailureKind = "no_space" if is_disk_full(error) else "error"
        return Finished(spec, TaskFailure(kind, describe(error)), time.monotonic() - start)
    except Exception as error:  # noqa: BLE001  (a worker's edge: a bad partition must not end the others)
        return Finished(spec, TaskFailure("error", describe(error)), time.monotonic() - start)
    return Finished(spec, outcome, time.monotonic() - start)


def late(spec: TaskSpec, deadline_s: float) -> TaskFailure:
    """Return the failure of a task that was stopped after its deadline."""
    return TaskFailure("deadline", f"{spec.name}: stopped after {deadline_s:g} s (run.partition_deadline_s)")


def describe(error: BaseException) -> str:
    """Return an error as one line, with the place it was raised at."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" [{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}]" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}{place}"


@contextmanager
def _alarm(deadline_s: float) -> Iterator[None]:
    if not deadline_s or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise DeadlineError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, deadline_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

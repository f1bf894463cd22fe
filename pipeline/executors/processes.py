"""Several workers on this machine: spawned processes that can be killed one by one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from pebble import CONSTS, ProcessExpired, ProcessPool

from manifests.store import Store
from pipeline.executors.attempt import attempt, describe, late
from pipeline.executors.base import Finished, TaskFailure
from pipeline.executors.threads import ENVIRONMENT, use_one_thread
from pipeline.worker import TaskSpec

# Workers ignore SIGTERM, with which the pool asks them to end before it kills them: it need not wait for an answer.
CONSTS.term_timeout = 0.1

_STORES: dict[str, Store] = {}


class Processes:
    """A pool of spawned processes; a task over its deadline is killed with its process, the others go on."""

    def __init__(self, store: Store, workers: int, deadline_s: float) -> None:
        self.capacity = self.gpu_capacity = workers
        self._store = store
        self._deadline_s = deadline_s
        # Workers are spawned when tasks come, and again where one died: they find this for as long as the pool lives.
        self._before = {name: os.environ.get(name) for name in ENVIRONMENT}
        os.environ.update(ENVIRONMENT)
        self._pool = ProcessPool(
            max_workers=workers, context=multiprocessing.get_context("spawn"), initializer=_set_up_worker
        )
        self._running: dict[Future[Finished], tuple[TaskSpec, float]] = {}

    def submit(self, spec: TaskSpec) -> None:
        """Hand a task to the pool."""
        args: list[Any] = [self._store.uri, self._store.options, spec]
        future = self._pool.schedule(_attempt, args=args, timeout=self._deadline_s)
        self._running[future] = (spec, time.monotonic())

    def wait(self, timeout_s: float) -> list[Finished]:
        """Return what has finished."""
        done, _ = wait(self._running, timeout=timeout_s, return_when=FIRST_COMPLETED)
        return [self._result(future) for future in done]

    def close(self, *, kill: bool) -> None:
        """End the pool."""
        if kill:
            self._pool.stop()
        else:
            self._pool.close()
        self._pool.join()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def _result(self, future: Future[Finished]) -> Finished:
        spec, start = self._running.pop(future)
        seconds = time.monotonic() - start
        try:
            return future.result()
        except TimeoutError:
            return Finished(spec, late(spec, self._deadline_s), seconds)
        except ProcessExpired as error:
            failure = TaskFailure("lost", f"{spec.name}: the worker process died (exit code {error.exitcode})")
            return Finished(spec, failure, seconds)
        except Exception as error:  # noqa: BLE001  (a worker's edge: e.g. an outcome that cannot be sent)
            return Finished(spec, TaskFailure("error", describe(error)), seconds)


def _attempt(uri: str, options: dict[str, Any], spec: TaskSpec) -> Finished:
    store = _STORES.get(uri)
    if store is None:
        store = _STORES[uri] = Store(uri, options)
    return attempt(store, spec)


def _set_up_worker() -> None:
    use_one_thread()
    _leave_signals_to_the_driver()


def _leave_signals_to_the_driver() -> None:
    """A signal to the whole process group reaches the workers too, and only the driver acts on it.

    A worker that died of one might hold the lock of the pool's pipe, and the pool would wait for it for ever.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)

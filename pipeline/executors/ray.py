"""Ray: one core task per partition, on this machine or on a cluster. The only module that imports ray.

Ray's own retries are 0: attempts are the runner's. A deadline cancels by force, which kills the worker process.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

from manifests.store import Store
from pipeline.code_digest import code_digest, copy_code
from pipeline.errors import UserError
from pipeline.executors.attempt import attempt, describe, late
from pipeline.executors.base import Finished, TaskFailure, needs_gpu
from pipeline.executors.threads import ENVIRONMENT, use_one_thread
from pipeline.worker import TaskSpec

_OBJECT_STORE_BYTES = 128 << 20  # image bytes never travel through Ray: a small object store is enough
_PROBE_S = 5.0
_STORES: dict[str, Store] = {}


class RayTasks:
    """Runs tasks as Ray core tasks.

    Args:
        store: The workdir; on a cluster it must be reachable from every node.
        workers: Tasks at a time; 0 on a cluster: all of its CPUs.
        deadline_s: After which a task is cancelled by force.
        address: A cluster's address; empty starts Ray on this machine.

    Raises:
        UserError: If nothing answers at the address.
    """

    def __init__(self, store: Store, workers: int, deadline_s: float, address: str = "") -> None:
        if address:
            _probe(address)
        self._store = store
        self._deadline_s = deadline_s
        self._running: dict[ray.ObjectRef[Finished], tuple[TaskSpec, float]] = {}
        self._cancelled: set[ray.ObjectRef[Finished]] = set()
        self._code = Path(tempfile.mkdtemp(prefix="rs5m-code-"))
        copy_code(self._code)
        started: dict[str, Any] = {"address": address} if address else _local(workers)
        with _signals_kept():
            ray.init(
                logging_level=logging.ERROR,
                log_to_driver=False,
                runtime_env={"working_dir": str(self._code), "env_vars": dict(ENVIRONMENT)},
                **started,
            )
        self.capacity = workers or int(ray.cluster_resources().get("CPU", 1))
        self._remote = ray.remote(num_cpus=1, max_retries=0)(_attempt)
        self.gpu_capacity = max(1, min(self.capacity, int(ray.cluster_resources().get("GPU", 1))))
        # max_calls=0: a worker process is kept between tasks, and with it the model that it has loaded.
        self._on_gpu = ray.remote(num_cpus=1, num_gpus=1, max_retries=0, max_calls=0)(_attempt)

    def submit(self, spec: TaskSpec) -> None:
        """Start a task."""
        remote = self._on_gpu if needs_gpu(spec) else self._remote
        reference = remote.remote(self._store.uri, self._store.options, code_digest(), spec)
        self._running[reference] = (spec, time.monotonic())

    def wait(self, timeout_s: float) -> list[Finished]:
        """Return what has finished; tasks over their deadline are cancelled here."""
        now = time.monotonic()
        for reference, (_, start) in self._running.items():
            if now - start > self._deadline_s and reference not in self._cancelled:
                self._cancelled.add(reference)
                ray.cancel(reference, force=True)
        references = list(self._running)
        done, _ = ray.wait(references, num_returns=1, timeout=timeout_s) if references else ([], [])
        return [self._result(reference) for reference in done]

    def close(self, *, kill: bool) -> None:
        """Let go of Ray, which ends what this driver started; cancelling by force first would race with that."""
        del kill
        ray.shutdown()
        shutil.rmtree(self._code, ignore_errors=True)

    def _result(self, reference: ray.ObjectRef[Finished]) -> Finished:
        spec, start = self._running.pop(reference)
        seconds = time.monotonic() - start
        try:
            finished: Finished = ray.get(reference)
        except ray.exceptions.RayError as error:
            if reference in self._cancelled:
                self._cancelled.discard(reference)
                return Finished(spec, late(spec, self._deadline_s), seconds)
            return Finished(spec, TaskFailure("lost", f"{spec.name}: {describe(error)}"), seconds)
        return finished


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back the handlers that Ray takes when it starts: with its own, SIGTERM would kill the run, not drain it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _probe(address: str) -> None:
    """Try the door of a cluster before Ray does, which takes minutes to give up."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local"):
        return
    try:
        if not colon:
            raise ValueError("it has no port")
        socket.create_connection((host, int(port)), _PROBE_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"no Ray cluster can be joined at {address} ({error}); give --ray-address or RAY_ADDRESS as HOST:PORT "
            "(`ray start --head` prints it), or leave it out to start Ray here"
        ) from error


def _local(workers: int) -> dict[str, Any]:
    return {"num_cpus": workers, "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}


def _attempt(uri: str, options: dict[str, Any], digest: str, spec: TaskSpec) -> Finished:
    if code_digest() != digest:
        message = (
            f"{spec.name}: this worker would run other code ({code_digest()[:12]}) than the driver ({digest[:12]})"
        )
        return Finished(spec, TaskFailure("error", message), 0.0)
    use_one_thread()
    store = _STORES.get(uri)
    if store is None:
        store = _STORES[uri] = Store(uri, options)
    return attempt(store, spec)

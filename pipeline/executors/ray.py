"""Ray: one core task per partition, on this machine or on a cluster. The only module that imports ray.

Ray's own retries are 0: attempts are the runner's. A task over its deadline ends itself, or its whole process.
"""

from __future__ import annotations

import faulthandler
import itertools
import logging
import os
import queue
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

from manifests.store import Store
from pipeline.code_digest import code_digest, copy_code
from pipeline.errors import ClusterLostError, UserError
from pipeline.executors.asking import PLAIN, Asking
from pipeline.executors.attempt import attempt, describe, late
from pipeline.executors.base import Finished, TaskFailure, Tell
from pipeline.executors.head import PATIENCE_S, Head, answers
from pipeline.executors.losses import Losses, node_in
from pipeline.executors.nodes import Needs, Node, Nodes, words
from pipeline.executors.threads import ENVIRONMENT, use_one_thread
from pipeline.worker import TaskSpec

_OBJECT_STORE_BYTES = 128 << 20  # image bytes never travel through Ray: a small object store is enough
_PROBE_S = 5.0
_NOTE_S = 5.0  # a silence that is said
_UNSERVED_S = 5.0  # nodes of a cluster that is just starting come within it
_OVERTIME_S = 5.0  # for a task that is told of its deadline; then its process ends
_GONE_S = 10.0  # a node whose actor died is tried for so long: its first packets may be lost, or its queue be full
_STORES: dict[str, Store] = {}
_GONE = (
    ray.exceptions.NodeDiedError,
    ray.exceptions.LocalRayletDiedError,
    ray.exceptions.ObjectLostError,  # an outcome too large to travel with the answer lies on the node; OwnerDied is one
)
_DIED = (ray.exceptions.WorkerCrashedError, ray.exceptions.RayActorError)


@dataclass(slots=True)
class _Running:
    """A task under way; ``worker`` is the actor that does it, if it needs a GPU."""

    spec: TaskSpec
    start_s: float
    worker: _GpuWorker | None


class RayTasks:
    """Runs tasks as Ray core tasks; those that need a GPU on actors, which keep their model and their GPU.

    Args:
        store: The workdir; on a cluster it must be reachable from every node.
        workers: Tasks at a time; 0 on a cluster: what its nodes hold, which is asked again as they come and go.
        deadline_s: After which a task is ended by force.
        address: A cluster's address; empty starts Ray on this machine.
        asking: What tasks ask of a node.
        tell: Told of nodes that join or are lost, and of the dashboard.

    Raises:
        UserError: If nothing answers at the address, or it is another Ray or Python.
    """

    def __init__(
        self,
        store: Store,
        workers: int,
        deadline_s: float,
        address: str = "",
        asking: Asking = PLAIN,
        tell: Tell | None = None,
    ) -> None:
        if address:
            _probe(address)
        self._store = store
        self._workers = workers
        self._deadline_s = deadline_s
        self._asking = asking
        self._tell = tell or _nobody
        self._numbers = itertools.count()
        self._running: dict[int, _Running] = {}
        self._answers: queue.SimpleQueue[tuple[int, Future[Finished]]] = queue.SimpleQueue()
        self._idle: list[_GpuWorker] = []
        self._needs = Needs("")
        self._unserved_s = self._noted_s = 0.0
        self._served = False
        self._code = Path(tempfile.mkdtemp(prefix="rs5m-code-"))
        copy_code(self._code)
        dashboard = _join(address, workers, self._code)
        if dashboard:
            self._tell("dashboard", url=f"http://{dashboard}")
        self._nodes = Nodes()
        self._losses = Losses(self._nodes, self._tell)
        self._head = Head(_doors(), ray.nodes, self._nodes, self._changed)

    @property
    def capacity(self) -> int:
        """How many tasks like the last one the cluster holds now, and a few more for nodes that are yet to come."""
        room = self._nodes.room(self._needs)
        if self._asking.wait_s:  # a cluster grows for tasks that wait, and for none that it was never given
            room += room // 2 + 1
        return max(1, min(room, self._workers) if self._workers else room)

    gpu_capacity = capacity

    def submit(self, spec: TaskSpec) -> None:
        """Start a task."""
        needs = self._asking(spec)
        if needs != self._needs:
            self._needs, self._unserved_s, self._served = needs, 0.0, False
            self._idle.clear()  # a worker is let go with its model: the next step has another
        arguments = (self._store.uri, self._store.options, code_digest(), self._deadline_s, spec)
        worker = None
        if needs.gpus:
            self._idle = [idle for idle in self._idle if not self._nodes.is_lost(idle.node)]
            worker = self._idle.pop() if self._idle else _GpuWorker(needs)
            reference = worker.actor.attempt.remote(*arguments)
        else:
            asked = {"num_cpus": 1, "resources": dict(needs.resources) or None}
            reference = _on_cpu.options(**asked).remote(*arguments)
        number = next(self._numbers)
        self._running[number] = _Running(spec, time.monotonic(), worker)
        # Told when it ends, rather than asked for all at every wait: the driver's work does not grow with the workers.
        reference.future().add_done_callback(lambda future: self._answers.put((number, future)))

    def wait(self, timeout_s: float) -> list[Finished]:
        """Return what has finished.

        Raises:
            UserError: If no node of the cluster can do what was submitted.
            ClusterLostError: If the cluster's head is lost, or all nodes that could go on.
        """
        self._check_head()
        self._check_served()
        finished = self._losses.due()
        try:
            answer = self._answers.get(timeout=0.0 if finished else timeout_s)
            while True:
                finished += self._result(*answer)
                answer = self._answers.get_nowait()
        except queue.Empty:
            return finished

    def close(self, *, kill: bool) -> None:
        """Let go of Ray, which ends what this driver started; cancelling by force first would race with that."""
        del kill
        self._head.close()
        self._idle.clear()
        ray.shutdown()
        shutil.rmtree(self._code, ignore_errors=True)

    def _result(self, number: int, future: Future[Finished]) -> list[Finished]:
        """Return what came of a task; nothing yet where its node was lost, until it is known how many were on it."""
        task = self._running.pop(number)
        seconds = time.monotonic() - task.start_s
        try:
            finished = future.result()
        except ray.exceptions.RayError as error:
            return self._failed(task, error, seconds)
        if task.worker and task.worker.needs == self._needs:
            self._idle.append(task.worker)
        if isinstance(finished.outcome, TaskFailure) and finished.outcome.kind == "deadline":
            return [Finished(task.spec, late(task.spec, self._deadline_s), seconds)]
        return [Finished(task.spec, finished.outcome, finished.seconds)]

    def _failed(self, task: _Running, error: ray.exceptions.RayError, seconds: float) -> list[Finished]:
        if task.worker:
            task.worker.end()
        node = self._lost_node(task, error)
        if node is not None:
            self._losses.add(node, Finished(task.spec, TaskFailure("node_lost", task.spec.name), seconds))
            return []
        failure = TaskFailure("lost", f"{task.spec.name}: {describe(error)}")
        if isinstance(error, _DIED) and seconds >= self._deadline_s + _OVERTIME_S:
            # So it is where the process ended itself, but also where a task waited for a node: who died cannot say.
            failure = late(task.spec, self._deadline_s)
            failure.message += f", unless it waited for a node and then its process died by itself: {describe(error)}"
        return [Finished(task.spec, failure, seconds)]

    def _lost_node(self, task: _Running, error: ray.exceptions.RayError) -> str | None:
        """Return the node that a task was lost with, empty if Ray does not name it; None if its process died alone."""
        if isinstance(error, _GONE):
            return node_in(str(error))
        if not isinstance(error, ray.exceptions.RayActorError):
            return None
        node = self._nodes.named(node_in(str(error)) or (task.worker.node if task.worker else ""))
        if node and (self._nodes.is_lost(node.key) or not answers(f"{node.address}:{node.port}", _GONE_S)):
            return node.key
        return (node.key if node else "") if error.preempted else None

    def _changed(self, came: list[Node], lost: list[Node]) -> None:
        """Hear from the head's thread."""
        for node in came:
            self._losses.back(node)
            self._tell("node_joined", node=node.text(), has=words(node.resources))
        for node in lost:
            self._losses.gone(node)

    def _check_head(self) -> None:
        silent_s, who = self._head.silent_s, self._head.missing or "the head of the Ray cluster"
        if self._head.is_lost:
            raise ClusterLostError(
                f"{who} has not answered for {silent_s:.0f} s; what was committed stands: start the cluster again, "
                "then run the same command to resume"
            )
        if silent_s > _NOTE_S and time.monotonic() - self._noted_s > PATIENCE_S:
            self._noted_s = time.monotonic()
            self._tell("note", text=f"{who} does not answer; waiting for it up to {PATIENCE_S:.0f} s")

    def _check_served(self) -> None:
        """Stop where no node can ever do a task, which Ray would keep waiting without a word."""
        if not self._running or self._nodes.room(self._needs):
            self._unserved_s, self._served = 0.0, True
            return
        now, patience_s = time.monotonic(), max(self._asking.wait_s, _UNSERVED_S)
        said = f"{self._needs.step} asks for {self._needs.text()} on one node, and the cluster has {self._nodes.text()}"
        if not self._unserved_s:
            self._unserved_s = now
            if self._asking.wait_s:
                self._tell("note", text=f"{said}; waiting up to {patience_s:g} s for a node that can do it")
        if now - self._unserved_s <= patience_s:
            return
        raise (ClusterLostError if self._served else UserError)(
            f"{said}; add such a node, or change run.ray_resources, run.gpu_share or run.device, then run again: it "
            f"resumes (waited {patience_s:g} s; for a cluster that grows by itself, set run.ray_wait_s)"
        )


class _GpuWorker:
    """An actor on a GPU of its own, or on a share of one: a process that keeps the model it has loaded.

    A core task would do, but for nodes with several GPUs: a process that served one task on a GPU goes on using that
    one, whichever Ray assigns to its next.
    """

    def __init__(self, needs: Needs) -> None:
        asked = {"num_cpus": 1, "num_gpus": needs.gpus, "resources": dict(needs.resources) or None}
        self.needs = needs
        self.node = ""
        self.actor: Any = _on_gpu.options(**asked).remote()
        self.actor.node.remote().future().add_done_callback(self._placed)

    def end(self) -> None:
        """End the process, if it lives."""
        ray.kill(self.actor)

    def _placed(self, future: Future[str]) -> None:
        if not future.exception():
            self.node = future.result()


def _nobody(event: str, **fields: object) -> None:
    """Hear of events where nobody else does."""


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
    if address in ("auto", "local"):
        return
    host, colon, port = address.rpartition(":")
    problem = "" if colon and host and port.isdigit() and int(port) < 1 << 16 else "that is no HOST:PORT"
    if address.startswith("ray://"):
        problem = "that is Ray's client, which ends with its connection; the driver runs on a node of the cluster"
    if problem or not answers(f"{host}:{port}", _PROBE_S):
        raise UserError(
            f"no Ray cluster can be joined at {address} ({problem or 'nothing answers there'}); give --ray-address or "
            "RAY_ADDRESS as HOST:PORT (`ray start --head` prints it), or leave it out to start Ray here"
        )


def _join(address: str, workers: int, code: Path) -> str:
    """Start Ray, or join a cluster; return where its dashboard is, if it has one."""
    # Ray prints what its daemons log on the driver's stdout, which is kept for JSON; what matters of it are events.
    ray._private.worker._worker_logs_enabled = False  # noqa: SLF001  (there is no public switch)
    started: dict[str, Any] = {"address": address} if address else _local(workers)
    try:
        with _signals_kept():
            context = ray.init(
                logging_level=logging.CRITICAL,
                log_to_driver=False,
                runtime_env={"working_dir": str(code), "env_vars": dict(ENVIRONMENT)},
                **started,
            )
    except (RuntimeError, ConnectionError, ValueError, ray.exceptions.RayError) as error:
        shutil.rmtree(code, ignore_errors=True)
        raise UserError(f"Ray does not start at {address or 'this machine'}: {describe(error)}") from error
    return str(context.dashboard_url or "")


def _doors() -> dict[str, str]:
    """Return where the cluster's head and this machine's own Ray process listen."""
    context = ray.get_runtime_context()
    own = next(row for row in ray.nodes() if row["NodeID"] == context.get_node_id())
    return {
        "the head of the Ray cluster": context.gcs_address,
        "this machine's Ray node": f"{own['NodeManagerAddress']}:{own['NodeManagerPort']}",
    }


def _local(workers: int) -> dict[str, Any]:
    # Without the word, Ray joins a cluster that it finds running on this machine.
    return {
        "address": "local",
        "num_cpus": workers,
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
    }


def _attempt(uri: str, options: dict[str, Any], digest: str, deadline_s: float, spec: TaskSpec) -> Finished:
    if code_digest() != digest:
        message = (
            f"{spec.name}: the worker on {ray.util.get_node_ip_address()} would run other code ({code_digest()[:12]}) "
            f"than the driver ({digest[:12]}): take the project's packages off that node's PYTHONPATH"
        )
        return Finished(spec, TaskFailure("environment", message), 0.0)
    use_one_thread()
    store = _STORES.get(uri)
    if store is None:
        store = _STORES[uri] = Store(uri, options)
    with _ended_after(deadline_s + _OVERTIME_S):
        return attempt(store, spec, deadline_s)


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """End this process if what is done in it takes longer, even if it hangs in C and hears no signal."""
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


class _GpuProcess:
    """Runs tasks one after the other in one process."""

    def node(self) -> str:
        """Return the node it is on."""
        return str(ray.get_runtime_context().get_node_id())

    def attempt(self, *arguments: Any) -> Finished:  # noqa: ANN401  (those of _attempt)
        """Run a task."""
        return _attempt(*arguments)


_on_gpu: Any = ray.remote(max_restarts=0, max_task_retries=0)(_GpuProcess)
_on_cpu: Any = ray.remote(num_cpus=1, max_retries=0)(_attempt)

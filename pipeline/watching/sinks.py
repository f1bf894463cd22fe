"""Where a run's numbers go: its own folder, a file for node_exporter, a port."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from prometheus_client import start_http_server

from manifests.store import Store
from pipeline.watching.growing import GrowingFile
from pipeline.watching.prometheus import Metrics
from pipeline.watching.snapshot import RunNow, StepNow

NOW = "now.json"
"""The newest document in a run's folder."""


class Sink(Protocol):
    """Takes documents. Whatever it raises is said once, and the run goes on."""

    name: str

    def put(self, now: RunNow) -> None:
        """Take a newer document."""

    def close(self) -> None:
        """Let go; the last document was put."""


class RunFiles:
    """``now.json`` and ``metrics.prom``, which are replaced, and ``metrics.jsonl``, which grows.

    A line of metrics.jsonl has the numbers of the run and those of the steps in which something happened since the
    line before; while nothing happens no line is written. On an object store this makes three requests each time.
    """

    def __init__(self, store: Store, folder: str, metrics: Metrics) -> None:
        self.name = f"{store.uri}/{folder}"
        self._store = store
        self._folder = folder
        self._metrics = metrics
        self._lines = GrowingFile(store, f"{folder}/metrics.jsonl", 0.0)
        self._before: dict[str, StepNow] = {}
        self._events = -1

    def put(self, now: RunNow) -> None:
        """Take a newer document."""
        self._store.replace(f"{self._folder}/{NOW}", now.model_dump_json(by_alias=True).encode() + b"\n")
        self._store.replace(f"{self._folder}/metrics.prom", self._metrics.text())
        if now.events == self._events and not now.downloads:
            return
        changed = [step for step in now.steps if not _is_same(self._before.get(step.step), step)]
        short = now.model_copy(update={"steps": changed})
        line = short.model_dump_json(by_alias=True, exclude={"last", "every_s", "waiting"})
        self._lines.append(line.encode() + b"\n")
        self._events, self._before = now.events, {step.step: step for step in now.steps}

    def close(self) -> None:
        """Let go of the lines' file."""
        self._lines.close()


def _is_same(before: StepNow | None, now: StepNow) -> bool:
    """Whether nothing happened in a step but that time passed."""
    if before is None:
        return False
    passed = {"seconds", "rows_s", "rows_s_now", "eta_s"}
    return before.model_dump(exclude=passed) == now.model_dump(exclude=passed)


class TextFile:
    """A file for the textfile collector of Prometheus' node_exporter (`run.metrics_file`), replaced whole.

    Args:
        path: ``{scope}`` in it becomes the run's scope, so that array tasks of one machine write a file each.
        scope: The run's scope.
        metrics: What is written.
    """

    def __init__(self, path: str, scope: str, metrics: Metrics) -> None:
        self._path = Path(path.replace("{scope}", scope))
        self.name = f"run.metrics_file {self._path}"
        self._metrics = metrics

    def put(self, now: RunNow) -> None:
        """Take a newer document."""
        del now  # the metrics have it
        with _beside(self._path) as temporary:
            temporary.write_bytes(self._metrics.text())
            temporary.chmod(0o644)  # the collector is another user
            temporary.replace(self._path)

    def close(self) -> None:
        """Nothing is held; the last numbers stay."""


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Give a temporary name that the collector does not read (it reads ``*.prom``); it is gone afterwards."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


class Port:
    """Answers Prometheus on a port (`run.metrics_port`, `run.metrics_bind`) while the run goes on.

    Raises:
        OSError: If the port cannot be had.
    """

    def __init__(self, bind: str, port: int, metrics: Metrics) -> None:
        self.name = f"run.metrics_port {bind}:{port}"
        self._server, self._thread = start_http_server(port, addr=bind, registry=metrics.registry)

    def put(self, now: RunNow) -> None:
        """Take a newer document: the metrics have it, and are asked."""

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)

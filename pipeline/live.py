"""How work under way is told from a worker to the driver: one small file a task, in the run's own folder.

It passes through the workdir because that is the one thing all executors share, another machine's worker included.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from manifests.canonical import JsonValue
from manifests.store import Store
from pipeline.poster import period_s
from pipeline.watching.stalls import Told
from pipeline.worker import TaskSpec
from stages.places import is_archive

WATCHED = "download.fetch"
"""The step whose tasks tell how they go; parts of archives ask nobody and tell nothing."""

_READERS = 8
_PATIENCE_S = 10.0


class Watch:
    """The driver's side: knows which tasks are under way, and reads what they tell until they end.

    Used as a context manager around a run; reading is done in a thread, because the one-worker executor does its work
    in the driver's own.

    Args:
        store: The workdir.
        folder: The run's folder below it.
        heard: Called from the thread with what every watched task told last, by partition, after each look.
        ended: Called when a watched task ended: its partition and its last values, None where it failed. The two are
            never called at once, and of a task that ended nothing is heard afterwards.
        every_s: Time between two looks.
    """

    def __init__(
        self,
        store: Store,
        folder: str,
        heard: Callable[[Mapping[str, Mapping[str, JsonValue]]], None],
        ended: Callable[[str, Mapping[str, JsonValue] | None], None],
        every_s: float | None = None,
    ) -> None:
        self._store = store
        self._folder = folder
        self._heard = heard
        self._ended = ended
        self._every_s = every_s or period_s(store)
        self._attempts = itertools.count(1)  # one row of numbers for all: memory does not grow with partitions
        self._lock = threading.Lock()
        self._running: dict[str, TaskSpec] = {}
        self._under_way: dict[str, TaskSpec] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_PATIENCE_S)

    def begun(self, spec: TaskSpec) -> TaskSpec:
        """Return a task with the place where it tells how it goes; it is watched from now on."""
        live = f"{self._folder}/live/{spec.step}/{spec.partition}.json"
        spec = dataclasses.replace(spec, live=live, attempt=next(self._attempts))
        with self._lock:
            self._under_way[spec.name] = spec
            if _is_watched(spec):
                self._running[spec.partition] = spec
        return spec

    def ended(self, spec: TaskSpec, telemetry: Mapping[str, JsonValue] | None) -> None:
        """Leave a task alone that ended, with its last values, or without where it failed."""
        with self._lock:
            self._under_way.pop(spec.name, None)
            if _is_watched(spec):
                self._running.pop(spec.partition, None)
                self._ended(spec.partition, telemetry)

    def told(self, step: str, partition: str) -> Told | None:
        """Return what a task under way told last, of whatever step; None where it told nothing or is not under way."""
        with self._lock:
            spec = self._under_way.get(f"{step}/{partition}")
        return self._told(spec) if spec else None

    def look(self) -> None:
        """Read what the tasks under way told last, once."""
        with self._lock:
            specs = list(self._running.values())
        told = self._read(specs)
        with self._lock:  # what ended meanwhile is no longer under way
            if specs:
                self._heard({s.partition: values for s, values in told if self._running.get(s.partition) is s})

    def _look_on(self) -> None:
        while not self._stop.wait(self._every_s):
            self.look()

    def _read(self, specs: Sequence[TaskSpec]) -> list[tuple[TaskSpec, Mapping[str, JsonValue]]]:
        if not specs:
            return []
        with ThreadPoolExecutor(min(_READERS, len(specs)), "watch") as pool:
            found = list(zip(specs, pool.map(self._told, specs), strict=True))
        return [(spec, told.values) for spec, told in found if told and told.values]

    def _told(self, spec: TaskSpec) -> Told | None:
        """Return a task's last values; None where there are none yet, or only those of an earlier attempt."""
        try:
            document = json.loads(self._store.read(spec.live))
        except Exception:  # noqa: BLE001  (stores raise errors of their own; a picture that is missed hurts no work)
            return None
        is_its_own = document.get("attempt") == spec.attempt
        return Told(document["values"], str(document.get("node", ""))) if is_its_own else None


def _is_watched(spec: TaskSpec) -> bool:
    return spec.step == WATCHED and not is_archive(spec.partition)

"""What the downloads of a run come to so far: counts over finished and running partitions, and the speed just now."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

from manifests.canonical import JsonValue
from manifests.reasons import reasons

_STALE_LOOKS = 3  # a task that told nothing new for so many looks stands still


@dataclass(frozen=True, slots=True)
class Counts:
    """Urls that were settled, and what they gave.

    Attributes:
        urls: How many were to be asked for.
        answered: How many are settled.
        images: How many of those gave an image.
        bytes: Of the images.
        attempts: Requests made.
        left: Reason to how many gave none.
    """

    urls: int = 0
    answered: int = 0
    images: int = 0
    bytes: int = 0
    attempts: int = 0
    left: Mapping[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The share of the settled urls that gave an image, 0 to 1."""
        return self.images / self.answered if self.answered else 0.0


@dataclass(frozen=True, slots=True)
class Host:
    """One of the slowest hosts."""

    name: str
    requests: int
    failed: int
    mean_s: float


@dataclass(frozen=True, slots=True)
class Now:
    """The picture at one moment.

    Attributes:
        counts: Over all partitions of this run, finished and running; a url asked again in a later round counts once.
        running: Tasks that have told how they go.
        images_s: Images a second over the last interval, all running tasks together.
        bytes_s: Bytes a second, likewise.
        hosts: The slowest first.
    """

    counts: Counts
    running: int
    images_s: float
    bytes_s: float
    hosts: list[Host]


@dataclass(slots=True)
class _Task:
    told: Mapping[str, JsonValue]
    counts: Counts
    images_s: float = 0.0
    bytes_s: float = 0.0
    unchanged: int = 0


class Picture:
    """Puts together what tasks tell (`stages.download.meter.Meter`). May be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._finished: dict[str, Counts] = {}
        self._running: dict[str, _Task] = {}

    def heard(self, told: Mapping[str, Mapping[str, JsonValue]]) -> None:
        """Take in what the running tasks told last, by partition; those that told nothing are not running."""
        with self._lock:
            self._running = {name: _next(self._running.get(name), values) for name, values in told.items()}

    def ended(self, partition: str, values: Mapping[str, JsonValue] | None) -> None:
        """Take in a task's last values. None: it failed, and what it told comes again with the next attempt."""
        with self._lock:
            self._running.pop(partition, None)
            if values:
                self._finished[partition] = _with_round(self._finished.get(partition), _counts(values))

    def now(self) -> Now:
        """Return the picture at this moment."""
        with self._lock:
            tasks = dict(self._running)
            running = [_with_round(self._finished.get(name), task.counts) for name, task in tasks.items()]
            finished = [counts for name, counts in self._finished.items() if name not in tasks]
        moving = [task for task in tasks.values() if task.unchanged < _STALE_LOOKS]
        return Now(
            counts=_sum([*finished, *running]),
            running=len(tasks),
            images_s=sum(task.images_s for task in moving),
            bytes_s=sum(task.bytes_s for task in moving),
            hosts=_slowest(tasks.values()),
        )


def _next(before: _Task | None, values: Mapping[str, JsonValue]) -> _Task:
    """Return a task's state after it told ``values``; its own clock says over how long its counts grew."""
    counts = _counts(values)
    if before is None:
        before = _Task({}, Counts())
    elif before.told == values:
        before.unchanged += 1
        return before
    seconds = _number(values, "seconds") - _number(before.told, "seconds")
    if seconds <= 0:  # an attempt that began anew
        return _Task(values, counts)
    images, size = counts.images - before.counts.images, counts.bytes - before.counts.bytes
    return _Task(values, counts, max(0, images) / seconds, max(0, size) / seconds)


def _with_round(earlier: Counts | None, later: Counts) -> Counts:
    """Add a partition's later round to its earlier ones: it asks again for the urls that were deferred there."""
    if earlier is None:
        return later
    known = reasons()
    settled = {name: urls for name, urls in earlier.left.items() if not (name in known and known[name].transient)}
    again = sum(earlier.left.values()) - sum(settled.values())
    first = Counts(
        earlier.answered - again, earlier.answered - again, earlier.images, earlier.bytes, earlier.attempts, settled
    )
    return _sum([first, later])


def _sum(parts: Iterable[Counts]) -> Counts:
    parts = list(parts)
    left: Counter[str] = Counter()
    for part in parts:
        left.update(part.left)
    return Counts(
        urls=sum(p.urls for p in parts),
        answered=sum(p.answered for p in parts),
        images=sum(p.images for p in parts),
        bytes=sum(p.bytes for p in parts),
        attempts=sum(p.attempts for p in parts),
        left=dict(left),
    )


def _counts(values: Mapping[str, JsonValue]) -> Counts:
    left = cast("Mapping[str, int]", values.get("reasons") or {})
    numbers = {name: int(_number(values, name)) for name in ("urls", "answered", "images", "bytes", "attempts")}
    return Counts(**numbers, left=left)


def _number(values: Mapping[str, JsonValue], name: str) -> float:
    return cast("float", values.get(name, 0))


def _slowest(tasks: Iterable[_Task]) -> list[Host]:
    """Return the slowest hosts of all tasks; one that several tasks ask is told of once."""
    sums: dict[str, list[float]] = {}
    for task in tasks:
        for host in cast("list[Mapping[str, JsonValue]]", task.told.get("hosts") or []):
            counts = sums.setdefault(str(host["host"]), [0, 0, 0.0])
            requests = _number(host, "requests")
            counts[0] += requests
            counts[1] += _number(host, "failed")
            counts[2] += requests * _number(host, "mean_s")
    hosts = [Host(name, int(c[0]), int(c[1]), c[2] / c[0]) for name, c in sums.items() if c[0]]
    return sorted(hosts, key=lambda host: (-host.mean_s, host.name))

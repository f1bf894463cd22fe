"""A run at one moment, as a document: what every view shows, and what `status --watch` reads from another machine."""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, JsonValue

from pipeline.causes import by_cause
from pipeline.events import Event
from pipeline.picture import Now
from pipeline.watching.step_tally import StepTally
from pipeline.watching.tally import State, Tally

_HOSTS = 5
_CAUSES = 8


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class RowsNow(_Document):
    """Rows of one source in one step: ``in = kept + dropped + failed + deferred``."""

    seen: int = Field(validation_alias=AliasChoices("in", "seen"), serialization_alias="in")
    kept: int
    dropped: int
    failed: int
    deferred: int


class PartitionsNow(_Document):
    """Partitions of a step by state; they add up to ``total``."""

    total: int
    done: int
    open: int
    failed: int
    running: int
    todo: int


class StepNow(_Document):
    """One step; `pipeline.watching.step_tally.StepTally` says what the counts are.

    ``left`` is class to reason to rows; ``buckets`` counts tasks by seconds (`BUCKETS_S`, and one more for the rest).
    """

    step: str
    partitions: PartitionsNow
    rows: dict[str, RowsNow]
    left: dict[str, dict[str, int]]
    ended: bool
    seconds: float
    rows_s: float
    rows_s_now: float
    eta_s: float | None
    device: str
    rows_per_gpu_s: float | None
    attempts: int
    retries: int
    written_bytes: int
    tasks: int
    task_s: float
    commit_s: float
    buckets: list[int]

    def total(self, name: str) -> int:
        """Return one count (a field of `RowsNow`) over all sources."""
        return sum(int(getattr(rows, name)) for rows in self.rows.values())


class StalledNow(_Document):
    """A partition that stands still, with the last it told; ``node`` is empty where it is not known."""

    step: str
    partition: str
    attempt: int
    since: str
    seconds: float
    node: str = ""
    told: dict[str, JsonValue] = {}


class HostNow(_Document):
    """One of the slowest hosts."""

    host: str
    requests: int
    failed: int
    mean_s: float


class DownloadsNow(_Document):
    """How downloads go (`pipeline.picture.Now`); ``fails`` is what is the matter, the most frequent first."""

    running: int
    urls: int
    answered: int
    images: int
    bytes: int
    attempts: int
    images_s: float
    bytes_s: float
    fails: list[tuple[str, int]]
    hosts: list[HostNow]


class DriverNow(_Document):
    """The driver's process."""

    host: str
    pid: int
    rss_bytes: int
    cpu_s: float


class RunNow(_Document):
    """A run at one moment.

    ``seq`` counts documents: one that does not grow for several times ``every_s`` is a run's that is dead. ``state`` is
    ``stopped`` where an error ended the run; ``failures`` is how attempts failed, by kind; ``last`` holds the last
    events but those that are many.
    """

    format: Literal[1] = 1
    run: str
    recipe: str
    scope: str
    seq: int
    t: str
    every_s: float
    state: State
    exit_code: int | None
    error: str
    started: str
    seconds: float
    last_event: str
    events: int
    steps: list[StepNow]
    waiting: dict[str, list[str]]
    stalled: list[StalledNow]
    failures: dict[str, int]
    nodes_lost: int
    dashboard: str
    downloads: DownloadsNow | None
    driver: DriverNow
    last: list[dict[str, JsonValue]]


class Snapshots:
    """Makes documents of one run, each with the next number.

    Args:
        tally: Its counts.
        scope: What the run works on: ``run``, or a slice.
        every_s: Seconds between two documents.
    """

    def __init__(self, tally: Tally, scope: str, every_s: float) -> None:
        self._tally = tally
        self._scope = scope
        self._every_s = every_s
        self._begun_s = tally.clock()
        self._seq = 0

    def take(self, downloads: Now | None) -> RunNow:
        """Return the run as it is now."""
        self._seq += 1
        with self._tally.lock:
            run = self._tally.run
            return RunNow(
                run=run.folder,
                recipe=run.recipe,
                scope=self._scope,
                seq=self._seq,
                t=datetime.now(UTC).isoformat(timespec="milliseconds"),
                every_s=self._every_s,
                state=run.state,
                exit_code=run.exit_code,
                error=run.error,
                started=run.started,
                seconds=round(self._tally.clock() - self._begun_s, 3),
                last_event=run.last_event,
                events=run.events,
                steps=[_step(name, step) for name, step in self._tally.steps.items()],
                waiting={name: list(names) for name, names in run.waiting.items()},
                stalled=[stalled_now(event) for event in run.stalled.values()],
                failures=dict(run.failures),
                nodes_lost=run.nodes_lost,
                dashboard=run.dashboard,
                downloads=_downloads(downloads) if downloads and downloads.counts.urls else None,
                driver=_driver(),
                last=[dict(event) for event in run.last],
            )


def stalled_now(event: Event) -> StalledNow:
    """Return what ``partition_stalled`` told, with the seconds that have passed by now."""
    told = StalledNow.model_validate(event)
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(told.since)).total_seconds()
    except (ValueError, TypeError):
        return told
    return told.model_copy(update={"seconds": round(max(seconds, told.seconds), 1)})


def _step(name: str, step: StepTally) -> StepNow:
    left: dict[str, dict[str, int]] = {}
    for (class_, reason), rows in sorted(step.reasons.items()):
        if rows:
            left.setdefault(class_, {})[reason] = rows
    per_gpu = step.rows_per_gpu_s
    return StepNow(
        step=name,
        partitions=PartitionsNow(
            total=step.partitions,
            done=step.settled,
            open=step.open,
            failed=step.failed,
            running=len(step.running),
            todo=step.todo,
        ),
        rows={
            source: RowsNow(seen=r.seen, kept=r.kept, dropped=r.dropped, failed=r.failed, deferred=r.deferred)
            for source, r in sorted(step.rows.items())
        },
        left=left,
        ended=bool(step.ended_s),
        seconds=round(step.seconds, 3),
        rows_s=round(step.rate, 3),
        rows_s_now=round(step.rate_now, 3),
        eta_s=None if step.eta_s is None else round(step.eta_s, 1),
        device=step.device,
        rows_per_gpu_s=None if per_gpu is None else round(per_gpu, 3),
        attempts=step.attempts,
        retries=step.retries,
        written_bytes=step.written_bytes,
        tasks=step.tasks,
        task_s=round(step.task_s, 3),
        commit_s=round(step.commit_s, 4),
        buckets=list(step.buckets),
    )


def _downloads(now: Now) -> DownloadsNow:
    counts = now.counts
    return DownloadsNow(
        running=now.running,
        urls=counts.urls,
        answered=counts.answered,
        images=counts.images,
        bytes=counts.bytes,
        attempts=counts.attempts,
        images_s=round(now.images_s, 3),
        bytes_s=round(now.bytes_s, 1),
        fails=by_cause(counts)[:_CAUSES],
        hosts=[
            HostNow(host=h.name, requests=h.requests, failed=h.failed, mean_s=round(h.mean_s, 3))
            for h in now.hosts[:_HOSTS]
        ],
    )


def _driver() -> DriverNow:
    return DriverNow(
        host=socket.gethostname(), pid=os.getpid(), rss_bytes=_rss_bytes(), cpu_s=round(time.process_time(), 2)
    )


def _rss_bytes() -> int:
    """Return the resident memory of this process; where the system does not tell, its peak."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak << 10

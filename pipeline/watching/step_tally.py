"""What one step's events come to. Memory grows with partitions under way and open ones, not with those done."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import TypeAlias, cast

from pipeline.events import Event

BUCKETS_S = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
"""Upper bounds of the histogram of seconds a partition took."""

CLASSES = ("dropped", "failed", "deferred")

_TIMES_KEPT = 101
_MARKS = 64
_MARK_S = 1.0

Books: TypeAlias = Mapping[str, Mapping[str, object]]


@dataclass(slots=True)
class SourceRows:
    """Rows of one source in one step: ``seen = kept + dropped + failed + deferred``."""

    seen: int = 0
    kept: int = 0
    dropped: int = 0
    failed: int = 0
    deferred: int = 0


@dataclass(frozen=True, slots=True)
class Running:
    """A partition under way: which attempt of its round, and since when, in seconds of the tally's clock."""

    attempt: int
    begun_s: float


@dataclass(slots=True)
class StepTally:
    """One step's counts in this run.

    Attributes:
        partitions: All of them.
        before: Those that were settled when this run came to the step.
        settled: Those settled now.
        open: Committed in this round with rows still deferred.
        failed: Given up.
        running: Under way, by name.
        rows: By source; a partition that is done again in a later round counts once.
        reasons: Class and reason to how many rows.
        attempts: Tasks started.
        retries: Attempts that failed and were to be made again.
        written_bytes: What workers stored.
        task_s: Seconds of all tasks that worked.
        commit_s: Seconds the driver took to check and commit them.
        tasks: How many worked.
        buckets: Their seconds, by `BUCKETS_S` and one more for the rest.
        device: ``cuda`` or ``cpu``.
        gpus: Of one task; 0 without.
        started_s, ended_s: On the tally's clock; 0 before the end.
    """

    clock: Callable[[], float]
    partitions: int = 0
    before: int = 0
    settled: int = 0
    open: int = 0
    failed: int = 0
    running: dict[str, Running] = field(default_factory=dict)
    rows: dict[str, SourceRows] = field(default_factory=dict)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    attempts: int = 0
    retries: int = 0
    written_bytes: int = 0
    task_s: float = 0.0
    commit_s: float = 0.0
    tasks: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    device: str = "cpu"
    gpus: float = 0.0
    started_s: float = 0.0
    ended_s: float = 0.0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMES_KEPT))
    marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_MARKS))
    open_books: dict[str, Books] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Partitions committed: settled or open."""
        return self.settled + self.open

    @property
    def todo(self) -> int:
        """Partitions neither committed, failed nor under way."""
        return max(0, self.partitions - self.done - self.failed - len(self.running))

    @property
    def seconds(self) -> float:
        """Seconds since the step started, or that it took."""
        return (self.ended_s or self.clock()) - self.started_s

    @property
    def rate(self) -> float:
        """Rows a second since the step started."""
        return self.total("seen") / self.seconds if self.seconds > 0 else 0.0

    @property
    def rate_now(self) -> float:
        """Rows a second over about the last minute in which rows came; the whole step's while that is shorter."""
        if self.ended_s or not self.marks:
            return self.rate
        since_s, rows = self.marks[0]
        seconds = self.clock() - since_s
        return max(0, self.total("seen") - rows) / seconds if seconds > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds to go at the speed so far; None while nothing is done, and when nothing is left to do."""
        worked = self.done - self.before
        remaining = self.partitions - self.done - self.failed
        return self.seconds / worked * remaining if worked > 0 and remaining > 0 and not self.ended_s else None

    @property
    def median_s(self) -> float | None:
        """Median seconds of the last tasks that worked; None before the first."""
        return median(self.recent) if self.recent else None

    @property
    def rows_per_gpu_s(self) -> float | None:
        """Rows a second and GPU while it is held; None where none is."""
        return self.total("seen") / (self.task_s * self.gpus) if self.gpus and self.task_s else None

    def total(self, name: str) -> int:
        """Return one count (a field of `SourceRows`) over all sources."""
        return sum(int(getattr(rows, name)) for rows in self.rows.values())

    def begin(self, event: Event) -> None:
        """Take in ``step_started``: a round begins."""
        self.started_s = self.started_s or self.clock()
        self.ended_s, self.open = 0.0, 0
        self.partitions = cast("int", event["partitions"])
        first = not self.attempts
        self.settled = cast("int", event["done"])
        self.before = self.settled if first else self.before
        self.device = str(event.get("device", "cpu"))
        self.gpus = float(cast("float", event.get("gpus", 1.0))) if self.device == "cuda" else 0.0

    def commit(self, partition: str, event: Event) -> None:
        """Take in ``partition_done``."""
        books = cast("Books", event["rows"])
        earlier = self.open_books.pop(partition, None)
        if earlier is not None:
            self._add(earlier, -1)
        self._add(books, 1)
        if any(rows["deferred"] for rows in books.values()):
            self.open_books[partition] = books
            self.open += 1
        else:
            self.settled += 1
        seconds = float(cast("float", event.get("seconds", 0.0)))
        self.tasks += 1
        self.task_s += seconds
        self.commit_s += float(cast("float", event.get("commit_s", 0.0)))
        self.written_bytes += cast("int", event.get("bytes", 0))
        self.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self.recent.append(seconds)
        self._mark()

    def _mark(self) -> None:
        now_s = self.clock()
        if not self.marks:
            self.marks.append((self.started_s, 0))
        if now_s - self.marks[-1][0] >= _MARK_S:
            self.marks.append((now_s, self.total("seen")))

    def _add(self, books: Books, sign: int) -> None:
        for source, given in books.items():
            rows = self.rows.get(source)
            if rows is None:
                rows = self.rows[source] = SourceRows()
            rows.seen += sign * cast("int", given["in"])
            rows.kept += sign * cast("int", given["kept"])
            for class_ in CLASSES:
                reasons = cast("Mapping[str, int]", given[class_])
                if reasons:
                    for reason, count in reasons.items():
                        self.reasons[class_, reason] += sign * count
                    setattr(rows, class_, getattr(rows, class_) + sign * sum(reasons.values()))

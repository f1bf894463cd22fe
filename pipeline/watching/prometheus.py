"""A run's document as Prometheus metrics. Labels are names of steps, sources, reasons: few, whatever the run's size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.watching.snapshot import RunNow, StepNow
from pipeline.watching.step_tally import BUCKETS_S

_STATES = ("done", "open", "failed", "running", "todo")


class Metrics(Collector):
    """Tells the newest document's numbers to whoever collects: a file, a port.

    Attributes:
        registry: A registry of its own, so that nothing else in the process is told.
    """

    def __init__(self) -> None:
        self._now: RunNow | None = None
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def update(self, now: RunNow) -> None:
        """Take a newer document."""
        self._now = now

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterable[Metric]:
        """Return the metrics; called by the registry."""
        now = self._now
        return [] if now is None else [_scoped(family, now) for family in _families(now)]


def _scoped(family: Metric, now: RunNow) -> Metric:
    """Add what tells runs apart that are collected in one place: the recipe, and the slice of an array task."""
    for number, sample in enumerate(family.samples):
        labels = {"recipe": now.recipe, "scope": now.scope, **sample.labels}
        family.samples[number] = sample._replace(labels=labels)
    return family


def _families(now: RunNow) -> Iterator[Metric]:
    yield from _of_rows(now.steps)
    yield from _of_partitions(now)
    yield from _of_time(now.steps)
    yield from _of_run(now)
    yield from _of_downloads(now)


def _of_rows(steps: list[StepNow]) -> Iterator[Metric]:
    rows = CounterMetricFamily(
        "rs5m_rows", "Rows of this run: in, and kept, dropped or failed.", labels=["step", "source", "outcome"]
    )
    deferred = GaugeMetricFamily(
        "rs5m_rows_deferred", "Rows put off to the next round.", labels=["step", "source"]
    )  # not part of the counter: in the next round there are fewer
    left = CounterMetricFamily(
        "rs5m_rows_left", "Rows that left, by reason (manifests/reasons.toml).", labels=["step", "class", "reason"]
    )
    for step in steps:
        for source, counts in step.rows.items():
            for outcome, count in (
                ("in", counts.seen), ("kept", counts.kept), ("dropped", counts.dropped), ("failed", counts.failed),
            ):  # fmt: skip
                rows.add_metric([step.step, source, outcome], count)
            deferred.add_metric([step.step, source], counts.deferred)
        for class_ in ("dropped", "failed"):
            for reason, count in step.left.get(class_, {}).items():
                left.add_metric([step.step, class_, reason], count)
    yield from (rows, deferred, left)
    written = CounterMetricFamily("rs5m_written_bytes", "Bytes of tables and tars that were stored.", labels=["step"])
    rate = GaugeMetricFamily("rs5m_rows_per_second", "Rows a second over about a minute.", labels=["step"])
    per_gpu = GaugeMetricFamily(
        "rs5m_images_per_gpu_second", "Images a second while a GPU is held, for each GPU.", labels=["step"]
    )
    for step in steps:
        written.add_metric([step.step], step.written_bytes)
        rate.add_metric([step.step], 0.0 if step.ended else step.rows_s_now)
        if step.rows_per_gpu_s is not None:
            per_gpu.add_metric([step.step], step.rows_per_gpu_s)
    yield from (written, rate, per_gpu)


def _of_partitions(now: RunNow) -> Iterator[Metric]:
    partitions = GaugeMetricFamily("rs5m_partitions", "Partitions by state.", labels=["step", "state"])
    attempts = CounterMetricFamily("rs5m_attempts", "Tasks started.", labels=["step"])
    retries = CounterMetricFamily("rs5m_retries", "Attempts that failed and are made again.", labels=["step"])
    stalled = GaugeMetricFamily("rs5m_partitions_stalled", "Partitions that stand still.", labels=["step"])
    for step in now.steps:
        for state in _STATES:
            partitions.add_metric([step.step, state], getattr(step.partitions, state))
        attempts.add_metric([step.step], step.attempts)
        retries.add_metric([step.step], step.retries)
        stalled.add_metric([step.step], sum(s.step == step.step for s in now.stalled))
    failures = CounterMetricFamily("rs5m_attempt_failures", "Attempts that failed, by kind.", labels=["kind"])
    for kind, count in sorted(now.failures.items()):
        failures.add_metric([kind], count)
    yield from (partitions, attempts, retries, stalled, failures)


def _of_time(steps: list[StepNow]) -> Iterator[Metric]:
    seconds = HistogramMetricFamily("rs5m_partition_seconds", "Seconds of tasks that worked.", labels=["step"])
    commits = CounterMetricFamily("rs5m_commit_seconds", "Seconds the driver took to commit.", labels=["step"])
    for step in steps:
        buckets, below = [], 0
        for bound, count in zip([*(f"{b:g}" for b in BUCKETS_S), "+Inf"], step.buckets, strict=True):
            below += count
            buckets.append((bound, float(below)))
        seconds.add_metric([step.step], buckets, step.task_s)
        commits.add_metric([step.step], step.commit_s)
    yield from (seconds, commits)


def _of_run(now: RunNow) -> Iterator[Metric]:
    yield GaugeMetricFamily("rs5m_run_up", "1 while the run goes on.", value=float(now.state == "running"))
    if now.exit_code is not None:
        yield GaugeMetricFamily("rs5m_run_exit_code", "Exit code, once it ended.", value=now.exit_code)
    for name, text, when in (
        ("rs5m_run_start_time_seconds", "When the run began, in Unix time.", now.started),
        ("rs5m_last_event_time_seconds", "When something last happened, in Unix time.", now.last_event),
        ("rs5m_metrics_time_seconds", "When these numbers were taken, in Unix time.", now.t),
    ):
        if when:
            yield GaugeMetricFamily(name, text, value=datetime.fromisoformat(when).timestamp())
    yield CounterMetricFamily("rs5m_events", "Events so far.", value=now.events)
    yield CounterMetricFamily("rs5m_nodes_lost", "Nodes that were lost.", value=now.nodes_lost)
    yield GaugeMetricFamily(
        "rs5m_driver_resident_memory_bytes", "Memory of the driver's process.", value=now.driver.rss_bytes
    )
    yield CounterMetricFamily("rs5m_driver_cpu_seconds", "CPU time of the driver's process.", value=now.driver.cpu_s)


def _of_downloads(now: RunNow) -> Iterator[Metric]:
    if not now.downloads:
        return
    told = now.downloads
    for name, text, count in (
        ("rs5m_download_urls", "Urls that are settled, of finished and running partitions.", told.answered),
        ("rs5m_download_images", "Urls that gave an image.", told.images),
        ("rs5m_download_bytes", "Bytes of those images.", told.bytes),
        ("rs5m_download_requests", "Requests that ended.", told.attempts),
    ):
        yield CounterMetricFamily(name, text, value=count)
    yield GaugeMetricFamily("rs5m_download_images_per_second", "Images a second just now.", value=told.images_s)
    yield GaugeMetricFamily("rs5m_download_bytes_per_second", "Bytes a second just now.", value=told.bytes_s)

"""Partitions that stand still: named with the last they told, once, and told of when they go on or end."""

import io

import pytest
from rich.console import Console

from manifests.store import Store
from pipeline.events import Events
from pipeline.executors.inprocess import InProcess
from pipeline.live import Watch
from pipeline.poster import Poster
from pipeline.progress import Progress
from pipeline.watching.prometheus import Metrics
from pipeline.watching.snapshot import RunNow, Snapshots
from pipeline.watching.stalls import LEAST_S, Stalls, Told
from pipeline.watching.tally import Tally
from pipeline.worker import TaskSpec
from tests.pipeline.watching.test_tally import Clock, begun, of, rows
from tests.world_building import wait_for


class Case:
    """A run whose clock is the test's, and what its tasks told by name."""

    def __init__(self, after_s=0.0, deadline_s=3600.0, read=None):
        self.clock, self.heard, self.told = Clock(), [], {}
        self.tally, self.events = Tally(self.clock), Events()
        self.events.listen(self.tally.take)
        self.events.listen(self.hear)
        found = read or (lambda step, partition: self.told.get(f"{step}/{partition}"))
        self.stalls = Stalls(self.tally, self.events, found, after_s, deadline_s)
        self.send(begun(9), begun(9, step="download.fetch"))

    def hear(self, event):
        if event["event"] in ("partition_stalled", "partition_resumed"):
            self.heard.append(event)

    def send(self, *events):
        for event in events:
            self.events(**event)

    def later(self, seconds):
        self.clock.now_s += seconds
        self.heard.clear()
        self.stalls.look()
        return [(e["event"].removeprefix("partition_"), e["partition"]) for e in self.heard]

    def stalled_gauge(self, step):
        metrics = Metrics()
        metrics.update(Snapshots(self.tally, "run", 5.0).take(None))
        (line,) = [x for x in metrics.text().decode().splitlines() if "partitions_stalled{" in x and f'"{step}"' in x]
        return float(line.split()[-1])


def test_one_that_tells_nothing_stands_still_after_five_times_the_median_and_five_minutes():
    case = Case()
    for number in range(3):
        case.send(of("started", f"p{number}", attempt=1), of("done", f"p{number}", rows=rows(1, 1), seconds=80.0))
    case.send(of("started", "slow", attempt=1))
    assert case.later(399) == []
    assert case.later(2) == [("stalled", "slow")]
    (event,) = case.heard
    assert (event["step"], event["attempt"], event["seconds"]) == ("a.b", 1, 401)
    assert "since" in event
    assert "told" not in event
    assert case.stalled_gauge("a.b") == 1
    assert case.later(1000) == [], "it is named once"
    case.send(of("done", "slow", rows=rows(1, 1), seconds=1400.0))
    assert case.stalled_gauge("a.b") == 0
    assert case.later(1) == [("resumed", "slow")]
    assert case.heard[0]["ended"] is True


def test_before_one_has_worked_half_the_deadline_is_waited_for():
    case = Case(deadline_s=2000)
    case.send(of("started", "first", attempt=1))
    assert case.later(999) == []
    assert case.later(2) == [("stalled", "first")]


def test_one_that_tells_how_it_goes_may_take_long_but_not_stand():
    case = Case(after_s=60)
    case.send(of("started", "web-0001", "download.fetch", attempt=2))
    for answered in range(10):
        case.told["download.fetch/web-0001"] = Told({"answered": answered, "hosts": [{"host": "x"}]}, "node7")
        assert case.later(61) == [], "it told something new"
    assert case.later(61) == [("stalled", "web-0001")]
    (event,) = case.heard
    assert (event["told"], event["node"], event["attempt"]) == ({"answered": 9}, "node7", 2)
    case.told["download.fetch/web-0001"] = Told({"answered": 10}, "node7")
    assert case.later(1) == [("resumed", "web-0001")]
    assert case.heard[0]["ended"] is False
    assert case.later(61) == [("stalled", "web-0001")]


def test_without_a_setting_one_that_tells_stands_still_after_five_minutes():
    case = Case()
    case.told["download.fetch/web-0001"] = Told({"answered": 1})
    case.send(of("started", "web-0001", "download.fetch", attempt=1))
    assert case.later(1801) == []
    assert case.later(LEAST_S - 2) == []
    assert case.later(3) == [("stalled", "web-0001")]


def test_another_attempt_begins_anew():
    case = Case(after_s=60)
    case.send(of("started", "p", attempt=1))
    assert case.later(61) == [("stalled", "p")]
    case.send(of("retried", "p", kind="deadline", error="late"), of("started", "p", attempt=2))
    assert case.later(1) == [("resumed", "p")]
    assert case.later(50) == []
    assert case.later(11) == [("stalled", "p")]
    assert case.heard[0]["attempt"] == 2


@pytest.mark.parametrize("step", ["download.fetch", "dedup.inspect"])
def test_what_a_worker_left_in_the_runs_folder_is_what_it_told_last(tmp_path, step):
    store = Store(str(tmp_path))
    watch = Watch(store, "runs/x", print, print)
    case = Case(after_s=60, read=watch.told)
    spec = watch.begun(TaskSpec(step, "web-0001", {}, {}, final=False))
    case.send(of("started", "web-0001", step, attempt=1))
    with Poster(store, spec.live, spec.attempt, 60.0) as poster:
        poster.post({"answered": 30, "urls": 300})
    assert case.later(61) == []
    assert case.later(61) == [("stalled", "web-0001")]
    assert case.heard[0]["told"] == {"answered": 30, "urls": 300}
    assert case.heard[0]["node"]
    watch.ended(spec, None)
    assert watch.told(step, "web-0001") is None


def test_progress_names_it(monkeypatch):
    case, out = Case(after_s=60), io.StringIO()
    with Progress(Console(file=out, width=200)) as shown:
        case.events.listen(shown.listen)
        case.told["download.fetch/web-0001"] = Told({"answered": 30, "urls": 300}, "node\x1b[31m7")
        case.send(of("started", "web-0001", "download.fetch", attempt=1))
        case.later(61)
        case.later(100)
        case.send(of("done", "web-0001", "download.fetch", rows=rows(1, 1), seconds=1.0))
        case.later(1)
    first, second = [line for line in out.getvalue().splitlines() if "web-0001" in line]
    assert first == (
        "download.fetch/web-0001 stands still for 100 s (attempt 1 on node?[31m7); last told: answered 30, urls 300"
    )
    assert second == "download.fetch/web-0001 ended after standing still for 101 s"


def test_a_run_names_the_partition_whose_worker_hangs_and_says_when_it_ended(fresh, monkeypatch):
    hung, wait = [], InProcess.wait

    def hang_once(executor, timeout_s):
        finished = wait(executor, timeout_s)
        if finished and not hung:
            hung.append(finished[0].spec.partition)
            wait_for(lambda: any(e["event"] == "partition_stalled" for e in fresh.events()), 20)
        return finished

    monkeypatch.setattr(InProcess, "wait", hang_once)
    settings = ("run.stalled_after_s=1", "run.metrics_every_s=0.05")
    assert fresh.run(*settings, stage="filter.match").exit_code == 0
    told = [event for event in fresh.events() if event["event"] in ("partition_stalled", "partition_resumed")]
    of_it = [(e["event"], e["step"]) for e in told if e["partition"] == hung[0]]
    assert of_it == [("partition_stalled", "filter.match"), ("partition_resumed", "filter.match")]
    (newest,) = (fresh.path / "runs").glob("*/now.json")
    assert RunNow.model_validate_json(newest.read_bytes()).stalled == []

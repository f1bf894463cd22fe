"""A run's metrics say what its report says, in every form, and they cost next to nothing."""

import json
import socket
import time
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from manifests.store import Store
from pipeline.build import planner_over
from pipeline.report import make_report
from pipeline.watching.of_run import kept
from pipeline.watching.prometheus import Metrics
from pipeline.watching.sinks import NOW, Port, TextFile
from pipeline.watching.snapshot import RunNow, Snapshots
from pipeline.watching.step_tally import BUCKETS_S
from pipeline.watching.tally import Tally


def _samples(text):
    """Return name and labels, without those that are the same for all, to value."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name not in ("recipe", "scope")}
            key = (sample.name, tuple(sorted(labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def _of(samples, name, **labels):
    return samples.get((name, tuple(sorted(labels.items()))), 0)


@pytest.fixture(scope="module")
def folder(built):
    (run,) = [path.parent for path in (built.path / "runs").glob("*/metrics.prom")]
    return run


@pytest.fixture(scope="module")
def report(built):
    recipe, store = built.recipe(), Store(str(built.path))
    return make_report(recipe, store, planner_over(recipe, store, reading=True)[0])


def test_the_prometheus_text_has_the_rows_of_the_report_by_step_source_and_outcome(folder, report):
    samples = _samples((folder / "metrics.prom").read_text())
    told = {(step["step"], step["source"]) for step in report["steps"] if step["in"]}
    assert len({step for step, _ in told}) >= 13
    for step in report["steps"]:
        if not step["in"]:
            continue
        place = {"step": step["step"], "source": step["source"]}
        for outcome in ("in", "kept"):
            assert _of(samples, "rs5m_rows_total", **place, outcome=outcome) == step[outcome], place
        for outcome in ("dropped", "failed"):
            assert _of(samples, "rs5m_rows_total", **place, outcome=outcome) == sum(step[outcome].values()), place
        assert _of(samples, "rs5m_rows_deferred", **place) == sum(step["deferred"].values()) == 0
    for class_ in ("dropped", "failed"):
        reasons = {(step["step"], reason) for step in report["steps"] for reason in step[class_]}
        for name, reason in reasons:
            rows = sum(step[class_].get(reason, 0) for step in report["steps"] if step["step"] == name)
            told_rows = _of(samples, "rs5m_rows_left_total", **{"step": name, "class": class_, "reason": reason})
            assert told_rows == rows, reason
    assert any(step["failed"] for step in report["steps"])


def test_partitions_attempts_and_seconds_add_up(built, folder):
    samples = _samples((folder / "metrics.prom").read_text())
    commits = built.manifests()
    for step in {name.split("/")[0] for name in commits}:
        count = sum(name.split("/")[0] == step for name in commits)
        assert _of(samples, "rs5m_partitions", step=step, state="done") == count
        for state in ("open", "failed", "running", "todo"):
            assert _of(samples, "rs5m_partitions", step=step, state=state) == 0
        attempts = _of(samples, "rs5m_attempts_total", step=step)
        assert attempts == _of(samples, "rs5m_partition_seconds_count", step=step) >= count
        below = [_of(samples, "rs5m_partition_seconds_bucket", step=step, le=f"{b:g}") for b in BUCKETS_S if b < 1]
        assert below == sorted(below)
        assert _of(samples, "rs5m_written_bytes_total", step=step) > 0
    rounds = [e for e in built.events() if e["event"] == "partition_started" and e["step"] == "download.fetch"]
    assert _of(samples, "rs5m_attempts_total", step="download.fetch") == len(rounds)
    assert _of(samples, "rs5m_run_up") == 0
    assert _of(samples, "rs5m_run_exit_code") == 0
    assert _of(samples, "rs5m_download_images_total") > 10


def test_labels_are_few_and_name_no_url_and_no_partition(folder):
    text = (folder / "metrics.prom").read_text()
    names = {label for f in text_string_to_metric_families(text) for s in f.samples for label in s.labels}
    assert names <= {"recipe", "scope", "step", "source", "outcome", "class", "reason", "state", "kind", "le"}
    assert "web-0" not in text
    assert "http://" not in text


def test_lines_and_the_newest_document_have_the_same_numbers(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    now = RunNow.model_validate_json((folder / NOW).read_bytes())
    assert [line["seq"] for line in lines] == sorted(line["seq"] for line in lines)
    newest = {step["step"]: step for line in lines for step in line["steps"]}
    assert {s.step: s.model_dump(mode="json", by_alias=True)["rows"] for s in now.steps} == {
        name: step["rows"] for name, step in newest.items()
    }
    assert lines[-1]["state"] == now.state == "finished"
    assert lines[-1]["driver"]["rss_bytes"] > 1 << 20
    samples = _samples((folder / "metrics.prom").read_text())
    assert _of(samples, "rs5m_events_total") == now.events == lines[-1]["events"]


def _document(tally=None, scope="run"):
    tally = tally or Tally()
    tally.take({"t": "2026-01-01T00:00:00+00:00", "event": "run_started", "recipe": "nano", "folder": "runs/x"})
    tally.take({"t": "2026-01-01T00:00:01+00:00", "event": "step_started", "step": "a.b", "partitions": 2, "done": 0})
    return Snapshots(tally, scope, 5.0).take(None)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_port_answers_with_the_newest_numbers_until_it_is_closed():
    metrics, port = Metrics(), free_port()
    answering = Port("127.0.0.1", port, metrics)
    for scope in ("first", "second"):
        metrics.update(_document(scope=scope))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert f'scope="{scope}"' in answer.read().decode()
    answering.close()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)


def test_the_textfile_of_an_array_task_is_its_own_and_is_replaced_whole(tmp_path):
    metrics = Metrics()
    metrics.update(_document(scope="filter.match.0of2"))
    for _ in range(2):
        TextFile(str(tmp_path / "rs5m-{scope}.prom"), "filter.match.0of2", metrics).put(_document())
    (file,) = tmp_path.iterdir()
    assert file.name == "rs5m-filter.match.0of2.prom"
    assert file.stat().st_mode & 0o777 == 0o644, "the collector is another user"
    assert _of(_samples(file.read_text()), "rs5m_partitions", step="a.b", state="todo") == 2


def test_a_gpus_speed_is_told_by_the_seconds_it_was_held():
    tally = Tally()
    on = {"event": "step_started", "step": "outlier.embed", "partitions": 4, "done": 0, "device": "cuda"}
    tally.take({**on, "gpus": 0.5})
    rows = {"cc3m": {"in": 300, "kept": 300, "dropped": {}, "failed": {}, "deferred": {}}}
    for number in range(2):
        done = {"event": "partition_done", "step": "outlier.embed", "partition": f"p{number}", "rows": rows}
        tally.take({**done, "seconds": 10.0, "bytes": 1, "commit_s": 0.01})
    metrics = Metrics()
    metrics.update(Snapshots(tally, "run", 5.0).take(None))
    samples = _samples(metrics.text().decode())
    assert _of(samples, "rs5m_images_per_gpu_second", step="outlier.embed") == 60
    assert _of(samples, "rs5m_commit_seconds_total", step="outlier.embed") == pytest.approx(0.02)


class _Full(Store):
    """A store on which nothing more can be written."""

    def replace(self, path, data):  # noqa: ARG002
        raise OSError(28, "No space left on device", path)


def test_what_cannot_be_written_is_said_once_and_hurts_nothing(tmp_path, fresh):
    from pipeline.events import Events
    from pipeline.live import Watch
    from pipeline.picture import Picture

    taken, port = socket.socket(), 0
    with taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        recipe = fresh.recipe(
            "run.metrics_every_s=0.02", f"run.metrics_port={port}", f'run.metrics_file="{tmp_path}/none/x.prom"'
        )
        store, events, tally, heard = _Full(str(tmp_path)), Events(), Tally(), []
        events.listen(tally.take)
        events.listen(heard.append)
        watch = Watch(store, "runs/x", print, print)
        with kept(recipe, store, "runs/x", "run", events, tally, watch, Picture()):
            time.sleep(0.3)
    notes = [event["text"] for event in heard]
    assert len(notes) == 3, notes
    assert all(note.startswith("metrics do not go to ") and note.endswith("the run goes on without") for note in notes)
    assert any("No space left" in note for note in notes)
    assert any("Address already in use" in note for note in notes)

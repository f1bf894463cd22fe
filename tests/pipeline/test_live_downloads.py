"""Downloads tell how they go whatever runs them; it ends in the run's own folder and never in the release."""

import dataclasses
import json
import socket

import pytest

from manifests.commits import CommitStore
from manifests.store import Store
from pipeline.build import watched
from pipeline.events import Events
from pipeline.executors.inprocess import InProcess
from pipeline.line import select
from pipeline.metadata import metadata_slices
from pipeline.picture import Picture
from pipeline.planner import Planner
from pipeline.progress import Progress
from pipeline.runner import Runner

NUMBERS = {"urls", "answered", "images", "bytes", "seconds", "attempts", "reasons", "hosts"}


@pytest.mark.parametrize(("executor", "workers"), [("local", 1), ("local", 2), ("ray", 1)])
def test_downloads_leave_what_they_told_in_the_runs_folder_and_in_one_event(fresh, executor, workers):
    ended = fresh.run(f"run.executor={executor}", f"run.workers={workers}", "run.rounds=1", until="download")
    assert ended.exit_code == 0
    (folder,) = {file.parents[2] for file in (fresh.path / "runs").rglob("live/*/*.json")}
    files = {file.stem: json.loads(file.read_text()) for file in folder.rglob("live/download.fetch/web-*.json")}
    done = {
        e["partition"]: e for e in fresh.events() if (e["event"], e.get("step")) == ("partition_done", "download.fetch")
    }
    assert files.keys() == {name for name in done if name.startswith("web-")}
    for name, file in files.items():
        values = file["values"]
        assert values == done[name]["telemetry"]
        assert file["node"] == socket.gethostname()
        assert values.keys() >= NUMBERS
        assert values["answered"] == values["urls"] == values["images"] + sum(values["reasons"].values())
    assert len({file["attempt"] for file in files.values()}) == len(files)
    assert sum(file["values"]["images"] for file in files.values()) > 10
    assert all("telemetry" not in event for event in fresh.events() if event["event"] != "partition_done")


def test_no_byte_of_a_build_depends_on_it(built, reference, fresh):
    told = list((built.path / "runs").rglob("live/download.fetch/*.json"))
    assert told
    assert not [file for file in built.path.rglob("*") if file.is_file() and b'"mean_s"' in file.read_bytes()
                and "runs" not in file.relative_to(built.path).parts]  # fmt: skip


class Telling(InProcess):
    """Runs tasks, and lets ``change`` have its say about what came of them."""

    def __init__(self, workdir, change):
        super().__init__(Store(str(workdir.path)), 60)
        self._change = change

    def wait(self, timeout_s):
        return [dataclasses.replace(f, outcome=self._change(f.spec, f.outcome)) for f in super().wait(timeout_s)]


def _run(workdir, change, stage="filter.match"):
    store, recipe = Store(str(workdir.path)), workdir.recipe()
    commits, sent, events = CommitStore(store), [], Events()
    events.listen(sent.append)
    watch = watched(store, "runs/x", events, Progress(), Picture())
    planner = Planner(recipe, store, commits, metadata_slices(recipe, store))
    executor = Telling(workdir, change)
    Runner(recipe, store, planner, commits, lambda: executor, events, lambda: False, watch=watch).run(select(stage, ""))
    return sent


def test_suspicions_are_said_once_a_run_whatever_their_numbers(fresh):
    def change(spec, outcome):
        line = f"{'cc12m' if spec.partition < 'l' else 'cc3m'}: {len(spec.partition)}.5% of 1,000 hashes differ"
        return dataclasses.replace(outcome, facts={**outcome.facts, "suspicions": [line, "one more"]})

    notes = [event["text"] for event in _run(fresh, change) if event["event"] == "note"]
    assert len(notes) == 3
    assert sorted(note.split(":")[0] for note in notes) == ["cc12m", "cc3m", "one more"]


def test_a_commit_holds_nothing_of_what_was_told(fresh):
    def change(spec, outcome):
        return dataclasses.replace(outcome, telemetry={"images": 1, "seconds": 2.5})

    done = [event for event in _run(fresh, change) if event["event"] == "partition_done"]
    assert done
    assert all(event["telemetry"] == {"images": 1, "seconds": 2.5} for event in done)
    for manifest in fresh.path.rglob("commits/filter.match/*.json"):
        assert b"2.5" not in manifest.read_bytes()


def test_too_many_failures_of_one_class_are_said_once_with_their_cause(fresh):
    fresh.run(until="filter")
    values = {"urls": 300, "answered": 300, "images": 100, "bytes": 1, "seconds": 1.0, "attempts": 300,
              "reasons": {"download.dns_temporary": 200}, "hosts": []}  # fmt: skip

    def change(spec, outcome):
        return dataclasses.replace(outcome, telemetry=values)

    from pipeline.worlds import served  # the world's server answers these downloads

    with served(fresh.recipe(), Store(str(fresh.path))) as recipe:
        workdir = dataclasses.replace(fresh, overrides=fresh.overrides)
        workdir.recipe = lambda: recipe
        notes = [event["text"] for event in _run(workdir, change, "download.fetch") if event["event"] == "note"]
    (note,) = [text for text in notes if "DNS" in text]
    assert note.startswith("67% of rows fail in DNS (download.dns_temporary 200 of 300): the name servers")

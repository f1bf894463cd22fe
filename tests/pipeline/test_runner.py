"""The runner: attempts and rounds, what it refuses to commit, and how it stops."""

import dataclasses
import errno
import re
from collections import Counter
from typing import ClassVar

import pytest

from manifests.commits import CommitStore
from manifests.store import Store
from pipeline.events import Events
from pipeline.executors.base import TaskFailure
from pipeline.executors.inprocess import InProcess
from pipeline.line import select, step_named
from pipeline.locks import LockHeldError
from pipeline.metadata import metadata_slices
from pipeline.planner import Planner
from pipeline.runner import NODE_LOSSES, NoSpaceError, Runner
from pipeline.selection import Selection
from stages.step import ModelMissingError
from tests.pipeline.read_commands import files_of_rows
from tests.world_building import Workdir


class Tampering(InProcess):
    """Runs tasks in this process and then puts ``change(spec, finished, attempt)`` in place of what came of them.

    Attributes:
        submitted: How often each task was taken.
        closed: What `close` was told.
    """

    capacity = 3
    gpu_capacity = 1

    def __init__(self, workdir: Workdir, change) -> None:
        super().__init__(Store(str(workdir.path)), 60)
        self._change = change
        self.submitted: Counter[str] = Counter()
        self.closed: list[bool] = []

    def submit(self, spec) -> None:
        self.submitted[spec.name] += 1
        super().submit(spec)

    def wait(self, timeout_s):
        return [self._change(f, self.submitted[f.spec.name]) for f in super().wait(timeout_s)]

    def close(self, *, kill) -> None:
        self.closed.append(kill)


class Run:
    """A runner over the filter stage, which needs no web."""

    def __init__(self, workdir: Workdir, change, *overrides: str, draining=lambda: False, locks=()) -> None:
        store, recipe = Store(str(workdir.path)), workdir.recipe(*overrides)
        commits, self.events = CommitStore(store), []
        send = Events()
        send.listen(self.events.append)
        self.executor = Tampering(workdir, change)
        planner = Planner(recipe, store, commits, metadata_slices(recipe, store))
        self._runner = Runner(recipe, store, planner, commits, lambda: self.executor, send, draining, locks)

    @property
    def summary(self):
        return self._runner.summary

    def go(self, stage: str = "filter"):
        return self._runner.run(select(stage))

    def named(self, event: str) -> list[str]:
        return [f"{e['step']}/{e['partition']}" for e in self.events if e["event"] == event]


def _committed(workdir: Workdir, step: str) -> list[str]:
    return sorted(path.name.split("@")[0] for path in (workdir.path / "commits" / step).glob("*.json"))


def _as_is(finished, attempt):
    return finished


def _fail(source, kind="error", until=99):
    def change(finished, attempt):
        if finished.spec.partition.startswith(source) and attempt <= until:
            return dataclasses.replace(finished, outcome=TaskFailure(kind, f"{kind} {attempt}"))
        return finished

    return change


@pytest.mark.parametrize("kind", ["error", "deadline", "lost"])
def test_a_partition_is_tried_again_and_then_reported_while_the_others_finish(fresh, kind):
    run = Run(fresh, _fail("cc12m", kind), "run.retries=2")
    summary = run.go()
    ((name, message),) = summary.failed.items()
    assert name.startswith("filter.match/cc12m-")
    assert message == f"{kind} 3"
    assert run.executor.submitted[name] == 3
    assert run.named("partition_retried") == [name] * 2
    assert run.named("partition_failed") == [name]
    assert summary.worked == len(_committed(fresh, "filter.match")) == len(run.executor.submitted) - 1
    assert all(count == 1 for task, count in run.executor.submitted.items() if task != name)
    assert summary.skipped == {"filter.pool": [name]}
    assert run.executor.closed == [False]


def test_a_lost_node_is_no_attempt_of_a_partition_but_has_a_bound_of_its_own(fresh):
    run = Run(fresh, _fail("cc12m", "node_lost", until=NODE_LOSSES), "run.retries=0")
    assert run.go().failed == {}
    assert len(run.named("partition_retried")) == NODE_LOSSES


def test_a_partition_under_which_node_after_node_is_lost_is_reported(fresh):
    run = Run(fresh, _fail("cc12m", "node_lost"), "run.retries=0")
    ((name, message),) = run.go().failed.items()
    assert message == f"node_lost {NODE_LOSSES + 1}; {NODE_LOSSES + 1} nodes were lost under it, and it is given up"
    assert run.executor.submitted[name] == NODE_LOSSES + 1


@pytest.mark.parametrize("error", ["MetadataError", "ChangedFileError"])
def test_what_another_attempt_would_meet_again_fails_at_once(fresh, error):
    def change(finished, attempt):
        if finished.spec.partition.startswith("cc12m"):
            return dataclasses.replace(finished, outcome=TaskFailure("error", f"{error}: x.tsv: is at fault"))
        return finished

    run = Run(fresh, change, "run.retries=2")
    ((name, message),) = run.go().failed.items()
    assert message == f"{error}: x.tsv: is at fault"
    assert run.executor.submitted[name] == 1
    assert run.named("partition_retried") == []
    assert run.named("partition_failed") == [name]


def test_a_partition_that_works_in_the_end_is_no_failure(fresh):
    run = Run(fresh, _fail("", until=2), "run.retries=2")
    summary = run.go()
    assert (summary.failed, summary.skipped, summary.broken) == ({}, {}, "")
    assert set(run.executor.submitted.values()) == {3}


def test_without_retries_one_attempt_is_made(fresh):
    run = Run(fresh, _fail("cc12m", until=1), "run.retries=0")
    assert len(run.go().failed) == 1
    assert set(run.executor.submitted.values()) == {1}


def test_what_failed_is_done_by_the_next_run(fresh):
    Run(fresh, _fail("cc12m")).go()
    run = Run(fresh, _as_is)
    assert run.go().failed == {}
    assert [name.split("-")[0] for name in run.executor.submitted] == ["filter.match/cc12m", "filter.pool/all"]


def test_a_full_disk_stops_the_run_and_the_next_one_resumes(fresh):
    run = Run(fresh, _fail("laion2b", "no_space"))
    with pytest.raises(NoSpaceError, match=r"^filter\.match/laion2b-.*no_space 1; free some space, then run again"):
        run.go()
    assert run.executor.closed == [True]
    done = _committed(fresh, "filter.match")
    again = Run(fresh, _as_is)
    assert again.go().failed == {}
    assert not set(done) & {name.split("/")[1] for name in again.executor.submitted if "match" in name}


def _rows(outcome, **more):
    return dataclasses.replace(outcome, **{k: {s: n + more[k] for s, n in getattr(outcome, k).items()} for k in more})


def _one_row_fewer(outcome):
    outputs = [o.model_copy(update={"rows": o.rows - 1}) for o in outcome.outputs[:1]] + outcome.outputs[1:]
    source = next(iter(outcome.seen))
    seen = outcome.seen | {source: outcome.seen[source] - 1}
    kept = outcome.kept | {source: outcome.kept[source] - 1}
    return dataclasses.replace(outcome, outputs=outputs, seen=seen, kept=kept)


@pytest.mark.parametrize(
    ("step", "change", "says"),
    [
        ("filter.match", lambda o: _rows(o, seen=1), r"rows in, \d+ kept \+ \d+ left; the partition is refused"),
        ("filter.match", lambda o: _rows(o, seen=1, kept=1), r"candidates holds \d+ rows, the books say \d+"),
        ("filter.match", lambda o: dataclasses.replace(o, left=[("cc3m", "dropped", "filter.bad_row", 9)]), "refused"),
        ("filter.pool", _one_row_fewer, r"filter\.match handed over \d+ rows, the books say \d+"),
    ],
)
def test_books_that_do_not_close_are_refused_and_stop_the_run(fresh, step, change, says):
    def tamper(finished, attempt):
        if finished.spec.step == step:
            return dataclasses.replace(finished, outcome=change(finished.outcome))
        return finished

    run = Run(fresh, tamper)
    summary = run.go()
    assert summary.broken
    assert re.search(says, summary.broken)
    assert _committed(fresh, step) == []
    assert summary.worked == (0 if step == "filter.match" else files_of_rows(fresh))
    assert run.executor.submitted.total() <= summary.worked + run.executor.capacity


def test_a_broken_law_is_exit_code_4(fresh, monkeypatch):
    pool = type(step_named("filter.pool"))
    honest = pool.process

    def lossy(self, task, tables, prior):
        result = honest(self, task, tables, prior)
        result.seen["cc3m"] += 1
        return result

    monkeypatch.setattr(pool, "process", lossy)
    ended = fresh.run(until="download")
    assert ended.exit_code == 4
    assert "filter.pool/all, cc3m" in ended.summary.broken
    assert _committed(fresh, "filter.pool") == []
    assert _committed(fresh, "download.fetch") == []


def test_one_round_calls_what_would_be_deferred_failed(fresh):
    assert fresh.run("run.rounds=1", until="download").exit_code == 0
    manifests = [m for name, m in fresh.manifests().items() if name.startswith("download.fetch/")]
    assert not any(counts.deferred for m in manifests for counts in m.rows.values())
    assert {path.name.rsplit(".", 2)[1] for path in (fresh.path / "commits/download.fetch").iterdir()} == {"0000"}


def test_each_round_is_a_pass_and_the_last_one_closes(built):
    passes = Counter(path.name.rsplit(".", 2)[1] for path in (built.path / "commits/download.fetch").iterdir())
    assert passes["0001"] > 0
    started = [e for e in built.events() if e["event"] == "step_started" and e["step"] == "download.fetch"]
    assert [(e["round"], e["done"], e["partitions"]) for e in started] == [(0, 0, 6), (1, 6 - passes["0001"], 6)]


def test_nothing_new_is_started_while_draining(fresh):
    run = Run(fresh, _as_is, draining=lambda: run.summary.worked > 0)
    summary = run.go()
    assert summary.stopped
    assert 0 < summary.worked == run.executor.submitted.total() <= run.executor.capacity
    assert summary.failed == {}
    assert run.executor.closed == [False]


def test_a_time_limit_drains(fresh):
    ended = fresh.run("run.time_limit_s=0.000001")
    assert (ended.exit_code, ended.summary.stopped, ended.summary.worked) == (143, True, 0)


def test_a_lock_that_was_lost_means_no_further_commit(fresh):
    class Lost:
        lost = True

    run = Run(fresh, _as_is, locks=[Lost()])
    with pytest.raises(LockHeldError, match="nothing more is committed"):
        run.go()
    assert _committed(fresh, "filter.match") == []
    assert run.executor.closed == [True]


def test_a_slice_reports_its_own_partitions(fresh):
    assert fresh.run(stage="filter.match", selection=Selection(index=0, count=3)).exit_code == 0
    (started,) = [e for e in fresh.events() if e["event"] == "step_started"]
    files = files_of_rows(fresh)
    ours = len(range(0, files, 3))
    assert (started["done"], started["partitions"]) == (0, ours)
    assert fresh.run(stage="filter.match").exit_code == 0
    started = [e for e in fresh.events() if e["event"] == "step_started"][-1]
    assert (started["done"], started["partitions"]) == (ours, files)


def test_tars_that_a_smaller_release_has_no_place_for_go_and_come_back(settled, reference):
    def tars():
        return sorted(path.name for path in (settled.path / "release").glob("*/*.tar"))

    kept = settled.path / "release/report/notes.txt"
    kept.parent.mkdir()
    kept.write_text("of the user's own\n")
    both = tars()
    assert settled.run("shard.tars_per_split=1").exit_code == 0
    assert tars() == [name for name in both if "-0000" in name]
    assert all("-0001" not in name for name in _committed(settled, "shard.pack"))
    assert settled.run().exit_code == 0
    assert tars() == both
    assert kept.read_text() == "of the user's own\n"
    kept.unlink()
    assert settled.snapshot().release == reference.release


class Full(Store):
    """Has room for a number of writes below ``folder``."""

    def __init__(self, path, folder: str, room: int) -> None:
        super().__init__(str(path))
        self._folder, self._room = folder, room

    def _take(self, path: str) -> None:
        if path.startswith(self._folder):
            self._room -= 1
            if self._room < 0:
                raise OSError(errno.ENOSPC, "No space left on device", path)

    def move(self, local, path):
        self._take(path)
        super().move(local, path)

    def create(self, path, data):
        self._take(path)
        super().create(path, data)


@pytest.mark.parametrize(
    ("folder", "error"), [("data/", NoSpaceError), ("ledger/", NoSpaceError), ("commits/", OSError)]
)
def test_a_disk_that_fills_up_anywhere_leaves_a_build_that_resumes(fresh, folder, error):
    with pytest.raises(error):
        fresh.run(until="filter", store=Full(fresh.path, folder, 4))
    assert len(_committed(fresh, "filter.match")) == 4
    assert list((fresh.path / "locks").iterdir()) == []
    ended = fresh.run(until="filter")
    assert (ended.exit_code, ended.summary.worked) == (0, files_of_rows(fresh) - 4 + 1)


def _too_large(batch: int):
    def change(finished, attempt):
        if finished.spec.partition == "web-0000" and finished.spec.params["batch"] > batch:
            return dataclasses.replace(finished, outcome=TaskFailure("out_of_memory", "no memory"))
        return finished

    return change


def _forget_scores(workdir: Workdir) -> None:
    for file in (workdir.path / "commits" / "outlier.embed").glob("*.json"):
        file.unlink()


def test_out_of_memory_halves_the_batch_of_that_partition_where_profiles_may_be_mixed(settled):
    _forget_scores(settled)
    run = Run(settled, _too_large(16), "run.allow_mixed_profile=true")
    summary = run.go("outlier.embed")
    assert (summary.failed, summary.broken) == ({}, "")
    assert run.executor.submitted["outlier.embed/web-0000"] == 2
    assert run.named("partition_halved") == ["outlier.embed/web-0000"]
    profiles = {n: m.parts.profile["batch"] for n, m in settled.manifests().items() if n.startswith("outlier.embed/")}
    assert profiles.pop("outlier.embed/web-0000") == "16"
    assert set(profiles.values()) == {"32"}
    again = Run(settled, _as_is)
    assert again.go("outlier.embed").worked == 0
    assert not again.executor.submitted


def test_out_of_memory_fails_the_partition_where_profiles_may_not_be_mixed(settled):
    _forget_scores(settled)
    run = Run(settled, _too_large(16))
    ((name, message),) = run.go("outlier.embed").failed.items()
    assert name == "outlier.embed/web-0000"
    assert "--allow-mixed-profile" in message
    assert run.executor.submitted[name] == 1


def test_a_batch_of_one_that_does_not_fit_fails(settled):
    _forget_scores(settled)
    run = Run(settled, _too_large(0), "run.allow_mixed_profile=true", "outlier.batch=4", "run.retries=2")
    assert list(run.go("outlier.embed").failed) == ["outlier.embed/web-0000"]
    assert run.executor.submitted["outlier.embed/web-0000"] == 3


def test_a_model_that_is_missing_stops_the_run(settled):
    _forget_scores(settled)
    run = Run(settled, _fail("web-0001", "environment"))
    with pytest.raises(ModelMissingError, match="environment 1"):
        run.go("outlier.embed")
    assert run.executor.closed == [True]


def test_a_commit_that_an_earlier_run_made_stands(fresh):
    class Late(Store):
        """Its first commit is there already, though no list showed it; made otherwise."""

        met: ClassVar[list[str]] = []

        def create(self, path, data):
            if path.startswith("commits/") and not self.met:
                self.met.append(path)
                super().create(path, data.replace(b'"facts":{', b'"facts":{"an_earlier_run":1,').replace(b",}", b"}"))
            super().create(path, data)

    store = Late(str(fresh.path))
    assert fresh.run(store=store, until="filter").exit_code == 0
    assert b"an_earlier_run" in store.read(store.met[0])
    assert [e["text"] for e in fresh.events() if e["event"] == "note" and "that stands" in e["text"]]


def test_a_step_is_listed_once_whatever_is_committed_meanwhile(fresh, monkeypatch):
    listed, step = Counter(), CommitStore.step
    monkeypatch.setattr(CommitStore, "step", lambda self, name: listed.update([name]) or step(self, name))
    summary = Run(fresh, _fail("", until=1), "run.retries=2").go()
    assert (summary.failed, summary.left_open) == ({}, [])
    assert listed == {"filter.match": 1, "filter.pool": 1}

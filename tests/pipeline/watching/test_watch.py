"""`status --watch`: a finished, a running, a stopped and a killed run, from its folder alone, whatever stands in it."""

import io
import json
import os
import signal
import sys
import time
import urllib.request

import pytest
from rich.console import Console
from typer.testing import CliRunner

from manifests.store import Store
from pipeline.cli import app
from pipeline.errors import UserError
from pipeline.watching.follow import watch_run
from pipeline.watching.looks import Looks
from pipeline.watching.sinks import NOW
from pipeline.watching.snapshot import RunNow, Snapshots
from pipeline.watching.tally import Tally
from pipeline.watching.view import picture
from tests.pipeline.watching.test_metrics import free_port
from tests.pipeline.watching.test_tally import Clock, begun, of, rows
from tests.world_building import wait_for

HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202e[bold]\r\n" + "y" * 5000


def _watch(workdir, *arguments):
    return CliRunner().invoke(app, ["status", "-w", str(workdir.path), "--watch", *arguments])


def test_a_finished_run_is_shown_once_with_its_exit_code(built):
    result = _watch(built)
    assert result.exit_code == 0, result.output
    assert "ended with exit code 0" in result.output
    assert "download.fetch      6/6" in result.output
    assert result.output.count("filter.match ") == 1 + result.output.count("step_finished filter.match")
    (line,) = _watch(built, "--json").stdout.splitlines()
    document = json.loads(line)
    assert (document["life"], document["run"]["exit_code"], document["others"]) == ("ended", 0, [])
    assert {step["step"] for step in document["run"]["steps"]} >= {"filter.match", "shard.index"}


def test_a_workdir_without_a_run_and_a_run_without_numbers_are_said_so(bare, built):
    assert _watch(bare).exit_code == 2
    result = _watch(built, "--run", "../../x")
    assert result.exit_code == 2
    assert "--run" in result.stderr
    result = _watch(built, "--run", "nosuch")
    (newest,) = sorted(path.name for path in (built.path / "runs").iterdir())[-1:]
    assert result.exit_code == 2
    assert f"no run nosuch in {built.path}; the newest is {newest}" in result.stderr


def test_a_run_is_followed_while_it_goes_on_and_found_dead_when_it_was_killed(fresh):
    port = free_port()
    metrics = ["--set", "run.metrics_every_s=0.1", "--set", f"run.metrics_port={port}"]
    process = fresh.start("--executor", "local", "--workers", "1", *metrics)
    try:
        store = Store(str(fresh.path))
        wait_for(lambda: any(store.size(f"runs/{name}/{NOW}") for name in store.folders("runs")), 60)
        looks = Looks(store, "", time.monotonic)
        wait_for(lambda: looks.look().now.steps, 60)
        first = looks.look()
        wait_for(lambda: looks.look().now.seq > first.now.seq, 20)
        assert looks.look().life == "alive"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        assert 'rs5m_run_up{recipe="nano",scope="run"} 1.0' in text
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    out = io.StringIO()
    began_s = time.monotonic()
    assert watch_run(store, "", 0.05, as_json=False, out=Console(file=out, width=160)) == 3
    assert time.monotonic() - began_s < 10
    assert "dead: no sign of life for" in out.getvalue()
    wait_for(lambda: looks.look().life == "dead", 10)
    assert fresh.run("run.lock_beat_s=0.02", stage="filter.match").exit_code == 0
    assert looks.look().life == "ended", "the watcher goes on with the run that followed"


def test_a_run_that_an_error_ends_is_not_taken_for_a_dead_one(fresh, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.runner.Runner.run", stop)
    with pytest.raises(KeyboardInterrupt):
        fresh.run()
    look = Looks(Store(str(fresh.path)), "", time.monotonic).look()
    assert (look.life, look.now.state, look.now.error) == ("ended", "stopped", "KeyboardInterrupt")


class Folder:
    """A run's folder that the test writes."""

    def __init__(self, path, name="20260101T000000.000000Z-aaaaaaaa", every_s=10.0):
        self.store, self.clock, self.path = Store(str(path)), Clock(), f"runs/{name}"
        self.tally = Tally(self.clock)
        self._snapshots = Snapshots(self.tally, "run", every_s)
        started = {"t": "2026-01-01T00:00:00+00:00", "event": "run_started", "recipe": "nano", "folder": self.path}
        self.tally.take(started)
        self.tally.take(begun(3))

    def write(self, change=lambda now: now):
        now = change(self._snapshots.take(None))
        self.store.replace(f"{self.path}/{NOW}", now.model_dump_json(by_alias=True).encode())

    def looks(self):
        return Looks(self.store, "", self.clock)


def _old(now):
    return now.model_copy(update={"t": "2026-01-01T00:00:00+00:00"})


def test_a_silent_run_is_first_guessed_and_then_found_dead_unless_its_lock_beats(tmp_path):
    folder = Folder(tmp_path)
    folder.write(_old)
    looks = folder.looks()
    assert looks.look().life == "seems dead"
    folder.clock.now_s += 59
    assert looks.look().life == "seems dead"
    folder.clock.now_s += 2
    assert looks.look().life == "dead"
    folder.write(_old)
    assert looks.look().life == "alive", "whatever its clock says"
    now = RunNow.model_validate_json(folder.store.read(f"{folder.path}/{NOW}"))
    for beat in range(10):
        lock = {"beat": beat, "host": now.driver.host, "pid": now.driver.pid}
        folder.store.replace("locks/run.json", json.dumps(lock).encode())
        folder.clock.now_s += 20
        last = looks.look().life
        assert last in ("alive", "late")
    assert last == "late"
    folder.clock.now_s += 61
    assert looks.look().life == "late", "it beat since it was looked at last"
    folder.clock.now_s += 61
    assert looks.look().life == "dead"


@pytest.mark.parametrize("half", [b"", b'{"format": 1, "run": "runs/', b'{"format": 2}', b"\xff\xfe"])
def test_nothing_half_written_breaks_it(tmp_path, half):
    folder = Folder(tmp_path)
    folder.write()
    looks = folder.looks()
    whole = looks.look()
    folder.store.replace(f"{folder.path}/{NOW}", half)
    look = looks.look()
    assert (look.now, look.life) == (whole.now, "alive")
    assert look.trouble
    assert "cannot be read" in _text(look)
    folder.store.remove(f"{folder.path}/{NOW}")
    assert "FileNotFoundError" in looks.look().trouble
    folder.write()
    assert looks.look().trouble == ""
    with pytest.raises(UserError, match="no run to watch"):
        Folder(tmp_path / "other").looks()


def test_runs_beside_it_are_told_of_and_followed_when_it_ended(tmp_path):
    first, second = Folder(tmp_path), Folder(tmp_path, "20260102T000000.000000Z-bbbbbbbb")
    first.write()
    second.write()
    second.clock = first.clock
    looks = first.looks()
    look = looks.look()
    assert look.now.run == second.path
    assert [other.run for other in look.others] == [first.path]
    assert "beside it: 20260101T000000" in _text(look)
    second.tally.take({"event": "run_finished", "exit_code": 3})
    second.write()
    assert looks.look().now.run == first.path, "it goes on"
    first.tally.take({"event": "run_finished", "exit_code": 0})
    first.write()
    assert looks.look().life == "ended"


def _text(look, **console):
    out = io.StringIO()
    Console(file=out, width=200, color_system=None, **console).print(picture(look))
    return out.getvalue()


def test_words_of_strangers_do_not_steer_the_terminal(tmp_path):
    folder = Folder(tmp_path)
    hostile = {"t": HOSTILE, "step": "a.b", "partition": HOSTILE}
    for event in (
        {**begun(2, step=HOSTILE), "t": HOSTILE},
        {**of("started", HOSTILE, HOSTILE), "t": HOSTILE},
        {"event": "partition_started", **hostile},
        {"event": "partition_stalled", "attempt": 1, "since": HOSTILE, "seconds": 5, "node": HOSTILE, **hostile},
        {"event": "partition_retried", "kind": HOSTILE, "error": HOSTILE, **hostile},
        {"event": "note", "t": HOSTILE, "text": HOSTILE},
        {"event": "dashboard", "t": HOSTILE, "url": HOSTILE},
        {"event": "step_skipped", "t": HOSTILE, "step": HOSTILE, "waiting": [HOSTILE]},
        {"event": HOSTILE, "t": HOSTILE},
    ):
        folder.tally.take(event)
    books = {HOSTILE: rows(3, 2, dropped=1)["cc3m"]}
    folder.tally.take(of("done", "p", rows=books, seconds=1.0))
    folder.write()
    look = folder.looks().look()
    text = _text(look)
    assert "owned" in text
    assert all(ch.isprintable() or ch == "\n" for ch in text)
    assert max(map(len, text.splitlines())) < 5000
    result = CliRunner().invoke(app, ["status", "-w", str(_workdir(tmp_path)), "--watch", "--json", "--every", "0.01"])
    assert "\x1b" not in result.output
    assert result.output.isascii()


def _workdir(path):
    (path / "workdir.json").write_text('{"format": 1, "recipe": "nano"}')
    (path / "runs/20260101T000000.000000Z-aaaaaaaa/recipe.toml").write_text('extends = "nano"\nname = "nano"\n')
    folder = path / "runs/20260101T000000.000000Z-aaaaaaaa" / NOW
    now = json.loads(folder.read_text()) | {"state": "finished", "exit_code": 0}
    folder.write_text(json.dumps(now))
    return path


def test_ctrl_c_ends_the_watcher_without_an_error(tmp_path, monkeypatch):
    folder = Folder(tmp_path)
    folder.write()

    def pressed(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.watching.follow.time.sleep", pressed)
    assert watch_run(folder.store, "", 1, as_json=False, out=Console(file=io.StringIO())) == 0


def test_on_a_terminal_it_is_drawn_in_place(tmp_path):
    folder = Folder(tmp_path)
    folder.tally.take({"event": "run_finished", "exit_code": 143})
    folder.write()
    out = io.StringIO()
    assert watch_run(folder.store, "", 0, as_json=False, out=Console(file=out, force_terminal=True, width=140)) == 0
    assert "exit code 143" in out.getvalue()
    assert sys.stdout is not out

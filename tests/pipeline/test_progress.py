"""What a run shows while it works: plain lines without a terminal, a table on one, and the same rows counted once."""

import io
import re
import time

import pytest
from rich.console import Console

from pipeline import progress
from pipeline.progress import Progress
from tests.world_building import wait_for


def _rows(seen, kept, dropped=0, deferred=0, source="cc3m"):
    return {
        source: {
            "in": seen,
            "kept": kept,
            "dropped": {"download.not_image": dropped} if dropped else {},
            "failed": {},
            "deferred": {"download.timeout": deferred} if deferred else {},
        }
    }


def _started(partitions, done=0, step="download.fetch", number=0):
    return {"event": "step_started", "step": step, "partitions": partitions, "done": done, "round": number}


def _done(partition, rows, step="download.fetch"):
    return {"event": "partition_done", "step": step, "partition": partition, "rows": rows, "seconds": 0.1}


def _finished(step="download.fetch"):
    return {"event": "step_finished", "step": step, "rows": {}}


def _show(events, *, terminal=False):
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=terminal, width=140, color_system=None)) as shown:
        for event in events:
            shown.listen(event)
    return out.getvalue()


def test_without_a_terminal_a_step_says_one_line_at_its_end():
    text = _show([_started(2), _done("a", _rows(1500, 1000, 500)), _done("b", _rows(10, 10)), _finished(), _finished()])
    (line,) = text.splitlines()
    assert line.startswith("download.fetch: 2/2 partitions, 1,510 rows in ")
    assert line.endswith("1,010 kept, 500 left")
    assert "\x1b" not in text


def test_without_a_terminal_a_long_step_says_so_every_few_seconds(monkeypatch):
    monkeypatch.setattr(progress, "_LINE_S", 0.02)
    out = io.StringIO()
    with Progress(Console(file=out, width=140)) as shown:
        shown.listen(_started(4))
        shown.listen(_done("a", _rows(5, 5)))
        wait_for(lambda: out.getvalue().count("\n") >= 3, 5)
        assert shown._thread.is_alive()
    lines = out.getvalue().splitlines()
    assert all(re.match(r"download\.fetch: 1/4 partitions, 5 rows in .* left, \d+ s left$", line) for line in lines)
    assert not shown._thread.is_alive()
    before = out.getvalue()
    time.sleep(0.06)
    assert out.getvalue() == before


def test_a_partition_that_is_open_and_done_in_a_later_round_counts_once():
    events = [
        _started(2),
        _done("a", _rows(10, 6, deferred=4)),
        _done("b", _rows(5, 5)),
        _started(2, done=1, number=1),
        _done("a", _rows(10, 8, dropped=2)),
        _finished(),
    ]
    (line,) = _show(events).splitlines()
    assert line.startswith("download.fetch: 2/2 partitions, 15 rows in ")
    assert line.endswith("13 kept, 2 left")


def test_what_is_deferred_and_what_failed_is_told():
    failure = {
        "event": "partition_failed",
        "step": "download.fetch",
        "partition": "b",
        "error": "ValueError: no [b] good",
    }
    text = _show([_started(2), _done("a", _rows(10, 6, deferred=4)), failure, _finished()])
    assert "download.fetch/b: ValueError: no [b] good\n" in text
    assert "download.fetch: 1/2 partitions, 10 rows" in text
    assert ", 4 deferred" in text
    assert "s left" not in text, "what failed is not to come"


def test_on_a_terminal_there_is_a_table_of_steps():
    retried = {"event": "partition_retried", "step": "filter.match", "partition": "x", "error": "lost"}
    failed = {"event": "partition_failed", "step": "filter.match", "partition": "x", "error": "lost again"}
    events = [
        _started(3, step="filter.match"),
        _done("a", _rows(1234, 1000, 234), step="filter.match"),
        _done("b", _rows(1, 1, source="sbu"), step="filter.match"),
        retried,
        failed,
        _finished("filter.match"),
        _started(1),
    ]
    text = _show(events, terminal=True)
    assert "filter.match/x: lost\r" in text.replace("\n", "\r")
    table = text[text.rindex("partitions") :].splitlines()
    assert re.search(r"rows\s+rows/s\s+kept\s+left\s+deferred\s+time\s+to go", table[0])
    assert re.search(r"filter\.match\s+2/3 \(1 failed\)\s+1,235\s+[\d,]+\s+1,001\s+234\s+0\s+0\.\d s", table[1])
    assert re.search(r"download\.fetch\s+0/1\s+0\s+0\s+0\s+0\s+0\s+0\.\d s", table[2])


@pytest.mark.parametrize("terminal", [False, True])
def test_notes_skips_and_corrupt_files_are_said_once(terminal):
    events = [
        {"event": "run_started", "recipe": "nano", "steps": [], "folder": "runs/x"},
        {"event": "note", "text": "a [bold]note[/bold]"},
        {"event": "file_corrupt", "path": "data/x.tar", "what": "is gone", "removed": []},
        {"event": "step_skipped", "step": "filter.pool", "waiting": ["a", "b", "c", "d"]},
    ]
    text = _show(events, terminal=terminal)
    for said in (
        "a [bold]note[/bold]",
        "corrupted file data/x.tar: is gone; set aside, it is made again",
        "filter.pool not run: waits for a, b, c ...",
    ):
        assert text.count(said) == 1


def _telling(*tellings, terminal):
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=terminal, width=140, color_system=None)) as shown:
        shown.listen(_started(4))
        for line, lines in tellings:
            shown.tell("download.fetch", line, lines)
        if terminal:
            shown._live.refresh()
        else:
            wait_for(lambda: out.getvalue().count("\n") >= 2, 5)
    return out.getvalue()


def test_how_a_step_goes_is_part_of_the_one_line_of_a_plain_console(monkeypatch):
    monkeypatch.setattr(progress, "_LINE_S", 0.02)
    text = _telling(("old", ["old"]), ("5 images/s, slowest [red]a[/red].example 3.0 s", ["unused"]), terminal=False)
    assert "unused" not in text
    for line in text.splitlines():
        assert re.match(r"download\.fetch: 0/4 partitions, .* left; now 5 images/s, slowest \[red\]a\[/red\]\.", line)


def test_how_a_step_goes_stands_below_the_table_of_a_terminal():
    text = _telling(("unused", ["5 images/s", "slowest hosts: [red]a[/red].example 3.0 s"]), terminal=True)
    last = text[text.rindex("partitions") :]
    assert "download.fetch: 5 images/s" in last
    assert "download.fetch: slowest hosts: [red]a[/red].example 3.0 s" in last
    assert "unused" not in text


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_over_is_no_longer_said_to_go_on(terminal, monkeypatch):
    monkeypatch.setattr(progress, "_LINE_S", 0.02)
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=terminal, width=140, color_system=None)) as shown:
        shown.listen(_started(1))
        shown.tell("download.fetch", "5 images/s", ["5 images/s"])
        shown.listen(_done("a", _rows(1, 1)))
        shown.listen(_finished())
        before = len(out.getvalue())
        time.sleep(0.06)
    assert "5 images/s" not in out.getvalue()[before:]

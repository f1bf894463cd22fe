"""The tally: what events come to, and that it does not grow with what is done."""

import tracemalloc

from pipeline.watching.tally import Tally


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def rows(seen, kept, deferred=0, dropped=0):
    return {
        "cc3m": {
            "in": seen,
            "kept": kept,
            "dropped": {"download.not_image": dropped} if dropped else {},
            "failed": {},
            "deferred": {"download.timeout": deferred} if deferred else {},
        }
    }


def begun(partitions, done=0, step="a.b"):
    return {"event": "step_started", "step": step, "partitions": partitions, "done": done}


def of(event, partition, step="a.b", /, **fields):
    return {"event": f"partition_{event}", "step": step, "partition": partition, **fields}


def _take(tally, *events):
    for event in events:
        tally.take(event)
    return tally.steps["a.b"]


def _states(step):
    return (step.settled, step.open, step.failed, len(step.running), step.todo)


def test_partitions_are_in_one_state_each_through_rounds_and_retries():
    tally = Tally()
    step = _take(tally, begun(5, done=1))
    assert _states(step) == (1, 0, 0, 0, 4)
    _take(tally, of("started", "a", attempt=1), of("started", "b", attempt=1))
    assert _states(step) == (1, 0, 0, 2, 2)
    _take(tally, of("retried", "a", kind="lost", error="x"), of("done", "b", rows=rows(9, 5, deferred=4), seconds=1.0))
    assert _states(step) == (1, 1, 0, 0, 3)
    _take(tally, of("started", "a", attempt=2), of("failed", "a", kind="error", error="x"))
    _take(tally, of("started", "c", attempt=1), of("done", "c", rows=rows(1, 1), seconds=1.0))
    assert _states(step) == (2, 1, 1, 0, 1)
    _take(tally, begun(5, done=2))
    assert _states(step) == (2, 0, 1, 0, 2)
    _take(tally, of("started", "b", attempt=1), of("done", "b", rows=rows(9, 7, dropped=2), seconds=1.0))
    assert _states(step) == (3, 0, 1, 0, 1)
    assert (step.total("seen"), step.total("kept"), step.total("dropped"), step.total("deferred")) == (10, 8, 2, 0)
    assert +step.reasons == {("dropped", "download.not_image"): 2}
    assert (step.attempts, step.retries, dict(tally.run.failures)) == (5, 1, {"lost": 1, "error": 1})


def test_speed_is_that_of_the_last_minute_and_time_to_go_of_the_whole_step():
    clock = Clock()
    tally = Tally(clock)
    step = _take(tally, begun(200))
    for number in range(100):
        clock.now_s += 2
        _take(tally, of("started", f"p{number}"), of("done", f"p{number}", rows=rows(10, 10), seconds=2.0))
    assert step.rate_now == step.rate == 5
    assert step.eta_s == 200
    clock.now_s += 800
    assert step.rate == 1
    assert step.rate_now < 1
    assert step.median_s == 2


def test_memory_is_the_same_after_twenty_thousand_partitions_as_after_a_thousand():
    tally = Tally()
    _take(tally, begun(20_000))

    def work(first, last):
        for number in range(first, last):
            name = f"part-{number:06}"
            tally.take(of("started", name, attempt=1))
            tally.take(of("done", name, rows=rows(10, 9, dropped=1), seconds=0.01, bytes=7, commit_s=0.001))

    work(0, 1000)
    tracemalloc.start()
    work(1000, 20_000)
    grown_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown_bytes < 100_000, "5 bytes a partition would be more"
    assert tally.steps["a.b"].settled == 20_000


def test_the_last_events_are_few_and_short_however_much_failed():
    tally = Tally()
    for number in range(100):
        tally.take({"event": "note", "text": f"{number} " + "x" * 10_000})
    failed = {f"a.b/{number}": "y" * 1000 for number in range(10_000)}
    tally.take({"event": "step_skipped", "step": "c.d", "waiting": ["z" * 9000] * 20})
    tally.take({"event": "run_finished", "committed": 1, "failed": failed, "exit_code": 3})
    assert len(tally.run.last) == 20
    assert sum(len(str(event)) for event in tally.run.last) < 20_000
    assert tally.run.last[-1] == {"event": "run_finished", "committed": 1, "exit_code": 3}

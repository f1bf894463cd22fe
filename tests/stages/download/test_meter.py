"""The meter: what it counts, how often it tells, and that strangers cannot fill its memory."""

import json
import sys
import time

from hypothesis import given
from hypothesis import strategies as st

from stages.download.meter import SLOWEST, Meter


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def _meter(urls=10, every_s=2.0):
    clock, posts = Clock(), []
    return Meter(urls, posts.append, clock, every_s), clock, posts


def test_the_total_is_told_at_once_and_the_last_values_at_the_end():
    meter, clock, posts = _meter(urls=7)
    assert posts == [
        {"urls": 7, "answered": 0, "images": 0, "bytes": 0, "seconds": 0.0, "attempts": 0, "reasons": {}, "hosts": []}
    ]
    clock.now_s += 0.5
    meter.asked("a.example", 0.5, None)
    meter.answered(None, 1000)
    assert len(posts) == 1
    meter.close()
    assert posts[1:] == [
        {"urls": 7, "answered": 1, "images": 1, "bytes": 1000, "seconds": 0.5, "attempts": 1, "reasons": {},
         "hosts": []}
    ]  # fmt: skip


def test_it_tells_every_two_seconds_whichever_call_comes():
    meter, clock, posts = _meter()
    for step in range(1, 50):
        clock.now_s = 100.0 + step / 10
        (meter.asked("a.example", 0.1, None) if step % 2 else meter.answered("download.timeout", 0))
    assert [post["seconds"] for post in posts] == [0.0, 2.0, 4.0]


def test_reasons_are_counted_and_give_no_image():
    meter, _, posts = _meter()
    for reason, size in [("download.dns", 0), (None, 5), ("download.timeout", 0), ("download.dns", 0), (None, 0)]:
        meter.answered(reason, size)
    meter.close()
    last = posts[-1]
    assert (last["answered"], last["images"], last["bytes"]) == (5, 2, 5)
    assert last["reasons"] == {"download.dns": 2, "download.timeout": 1}
    assert json.loads(json.dumps(last)) == last


def test_the_slowest_hosts_are_told_by_their_mean_once_three_requests_say_it():
    meter, _, posts = _meter()
    for number in range(12):
        for _ in range(3):
            meter.asked(f"h{number:02}.example", float(number), "download.timeout" if number == 11 else None)
    meter.asked("once.example", 99.0, None)
    meter.asked("twice.example", 99.0, None)
    meter.asked("twice.example", 99.0, None)
    meter.close()
    hosts = posts[-1]["hosts"]
    assert [host["host"] for host in hosts] == [f"h{number:02}.example" for number in range(11, 1, -1)]
    assert hosts[0] == {"host": "h11.example", "requests": 3, "failed": 3, "mean_s": 11.0}
    assert hosts[1]["failed"] == 0


def test_hosts_by_the_100000_neither_fill_memory_nor_hide_the_slow_one():
    meter, _, posts = _meter()
    for number in range(100_000):
        meter.asked(f"host-{number}.example", 0.05, None)
        if number % 10_000 == 0:
            meter.asked("slow.example", 20.0, "download.timeout")
    meter.asked("x" * 60_000, 1.0, None)
    meter.close()
    assert posts[-1]["attempts"] == 100_011
    assert posts[-1]["hosts"] == [{"host": "slow.example", "requests": 10, "failed": 10, "mean_s": 20.0}]
    assert len(meter._hosts) <= 4096
    assert sum(sys.getsizeof(host) for host in meter._hosts) < 1 << 20


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.floats(0, 60), st.sampled_from([None, "download.timeout"])),
        max_size=40,
    )
)
def test_whatever_comes_the_hosts_are_sorted_and_bounded(calls):
    meter, _, posts = _meter()
    for host, seconds, reason in calls:
        meter.asked(host, seconds, reason)
    meter.close()
    hosts = posts[-1]["hosts"]
    assert [host["mean_s"] for host in hosts] == sorted((host["mean_s"] for host in hosts), reverse=True)
    assert {host["host"] for host in hosts} == {h for h, _, _ in calls if sum(h == other for other, _, _ in calls) >= 3}
    assert all(host["failed"] <= host["requests"] for host in hosts)
    assert len(hosts) <= SLOWEST


def test_a_call_costs_next_to_nothing():
    posts = []
    meter = Meter(1, posts.append, time.monotonic)
    names = [f"host-{number}.example" for number in range(1000)]
    best_s = float("inf")
    for _ in range(5):
        begun_s = time.perf_counter()
        for name in names:
            meter.asked(name, 0.1, None)
            meter.answered(None, 1)
        best_s = min(best_s, (time.perf_counter() - begun_s) / (2 * len(names)))
    assert best_s < 10e-6  # measured 0.4 us; room for a busy machine

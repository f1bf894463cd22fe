"""The picture of downloads: sums over partitions and rounds, and speed by the workers' own clocks."""

import pytest

from pipeline.picture import Host, Picture


def _values(seconds=0.0, answered=0, images=0, size=0, reasons=None, hosts=(), urls=100, attempts=0):
    return {"urls": urls, "answered": answered, "images": images, "bytes": size, "seconds": seconds,
            "attempts": attempts, "reasons": reasons or {}, "hosts": list(hosts)}  # fmt: skip


def _host(name, requests, failed, mean_s):
    return {"host": name, "requests": requests, "failed": failed, "mean_s": mean_s}


def test_nothing_is_known_at_first():
    now = Picture().now()
    assert (now.running, now.images_s, now.bytes_s, now.hosts, now.counts.answered) == (0, 0, 0, [], 0)
    assert now.counts.share == 0.0


def test_speed_is_over_the_last_interval_of_each_task_summed():
    picture = Picture()
    picture.heard({"a": _values(10.0, 100, 90, 9_000), "b": _values(0.0)})
    assert (picture.now().images_s, picture.now().bytes_s) == (9.0, 900.0)
    picture.heard({"a": _values(12.0, 150, 130, 19_000), "b": _values(4.0, 12, 8, 4_000)})
    now = picture.now()
    assert now.running == 2
    assert now.images_s == pytest.approx(40 / 2 + 8 / 4)
    assert now.bytes_s == pytest.approx(10_000 / 2 + 4_000 / 4)
    assert (now.counts.urls, now.counts.answered, now.counts.images) == (200, 162, 138)


def test_a_task_that_tells_nothing_new_keeps_its_speed_for_a_moment_and_then_stands_still():
    picture = Picture()
    told = _values(2.0, 10, 10, 10)
    speeds = []
    for _ in range(5):
        picture.heard({"a": told})
        speeds.append(picture.now().images_s)
    assert speeds == [5.0, 5.0, 5.0, 0.0, 0.0]
    picture.heard({"a": _values(20.0, 28, 28, 28)})
    assert picture.now().images_s == pytest.approx(1.0)


def test_finished_partitions_count_on_and_failed_attempts_do_not():
    picture = Picture()
    picture.heard({"a": _values(1.0, 5, 5), "b": _values(1.0, 50, 50)})
    picture.ended("a", _values(2.0, 10, 6, 600, {"download.dns": 4}, attempts=11))
    picture.ended("b", None)
    now = picture.now()
    assert (now.running, now.images_s) == (0, 0)
    assert (now.counts.answered, now.counts.images, now.counts.bytes, now.counts.attempts) == (10, 6, 600, 11)
    assert now.counts.left == {"download.dns": 4}
    assert now.counts.share == pytest.approx(0.6)


def test_a_url_that_is_asked_again_in_a_later_round_counts_once():
    picture = Picture()
    picture.ended("a", _values(1.0, 10, 4, 400, {"download.timeout": 4, "download.http_404": 2}))
    picture.heard({"a": _values(1.0, 2, 1, 100, {"download.timeout": 1}, urls=4)})
    counts = picture.now().counts
    assert (counts.urls, counts.answered, counts.images, counts.bytes) == (10, 8, 5, 500)
    assert counts.left == {"download.http_404": 2, "download.timeout": 1}
    picture.ended("a", _values(2.0, 4, 2, 200, {"download.timeout": 2}, urls=4))
    counts = picture.now().counts
    assert (counts.answered, counts.images, counts.bytes) == (10, 6, 600)
    assert counts.left == {"download.http_404": 2, "download.timeout": 2}


def test_an_attempt_that_began_anew_has_no_negative_speed():
    picture = Picture()
    picture.heard({"a": _values(100.0, 50, 50, 50)})
    picture.heard({"a": _values(0.0)})
    assert picture.now().images_s == 0
    picture.heard({"a": _values(2.0, 4, 4, 4)})
    assert picture.now().images_s == 2.0


def test_the_slowest_hosts_of_all_tasks_are_put_together():
    picture = Picture()
    picture.heard(
        {
            "a": _values(1.0, hosts=[_host("slow.example", 3, 1, 10.0), _host("x.example", 5, 0, 4.0)]),
            "b": _values(1.0, hosts=[_host("slow.example", 1, 1, 2.0), _host("y.example", 9, 9, 30.0)]),
        }
    )
    assert picture.now().hosts == [
        Host("y.example", 9, 9, 30.0), Host("slow.example", 4, 2, 8.0), Host("x.example", 5, 0, 4.0)
    ]  # fmt: skip


def test_a_task_that_told_nothing_is_not_running():
    picture = Picture()
    picture.heard({"a": _values(1.0, 5, 5)})
    picture.heard({})
    assert picture.now().running == 0

"""The live picture in words, strangers' names included."""

from pipeline.picture import Counts, Host, Now
from pipeline.picture_text import in_line, in_lines


def _now(running=2, hosts=(), **left):
    named = {f"download.{reason}": rows for reason, rows in left.items()}
    counts = Counts(5_000, 1_000, 1_000 - sum(left.values()), 0, 1_250, named)
    return Now(counts, running, 312.4, 41_230_000.0, list(hosts))


def test_nothing_is_said_while_nothing_runs():
    assert in_line(_now(running=0)) == ""
    assert in_lines(_now(running=0)) == []


def test_before_the_first_answer_there_is_no_share_of_failures():
    now = Now(Counts(urls=10), 1, 0.0, 0.0, [])
    assert in_line(now) == "0 images/s, 0.0 MB/s, 0% of 0 urls gave an image"
    assert in_lines(now) == ["0 images/s, 0.0 MB/s; 0% of 0 urls gave an image"]


def test_one_line_has_speed_share_the_first_classes_and_the_slowest_host():
    now = _now(hosts=[Host("slow.example", 4, 2, 12.34), Host("b.example", 3, 0, 1.0)], http_404=120, dns=50,
               timeout=30, tls=10)  # fmt: skip
    assert in_line(now) == (
        "312 images/s, 41.2 MB/s, 79% of 1,000 urls gave an image, fail: link gone 12.0%, DNS 5.0%, timeout 3.0%, ..., "
        "slowest slow.example 12.3 s"
    )


def test_lines_have_more_classes_and_hosts():
    hosts = [Host(f"h{number}.example", 10 + number, number, 9.0 - number) for number in range(7)]
    speed, failures, slowest = in_lines(_now(hosts=hosts, http_404=120, dns=50, timeout=30, tls=10))
    assert speed == "312 images/s, 41.2 MB/s; 79% of 1,000 urls gave an image, 1.2 requests a url"
    assert failures == "fail: link gone 12.0%, DNS 5.0%, timeout 3.0%, TLS 1.0%"
    assert slowest.startswith(
        "slowest hosts: h0.example 9.0 s a request (10); h1.example 8.0 s a request (11, 1 failed)"
    )
    assert slowest.count("a request") == 5


def test_names_of_hosts_are_made_harmless():
    hosts = [Host("[red]\x1b[2J\u202e\r\nmoc.elpmaxe", 3, 3, 1.0), Host("a" * 200 + ".shop.example", 3, 3, 1.0)]
    line, text = in_line(_now(hosts=hosts)), in_lines(_now(hosts=hosts))[-1]
    assert line.endswith("slowest [red]?[2J???moc.elpmaxe 1.0 s")
    assert "..." + "a" * 24 + ".shop.example 1.0 s" in text
    assert (line + text).isprintable()

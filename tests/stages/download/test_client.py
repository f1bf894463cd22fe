"""The downloader against a real server on loopback: every reason, retries, redirects, caps and deadlines."""

import asyncio
import collections
import contextlib
import errno
import functools
import gzip
import itertools
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from stages.download import client, watch
from stages.download.answers import Answer, Consent, Limits, Network
from stages.download.client import fetch_all, pause_s
from tests.stages.download.hostile_server import Asked, Play, self_signed, send
from tests.stages.download.name_server import NameServer, Reply, found

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8
HTML = b"<!DOCTYPE html><html><body>gone</body></html>" * 30
NO_ROBOTS = Consent(robots=False, headers=True, tdm=True)
LIMITS = Limits(10_000, frozenset({"jpeg", "png", "gif"}), 3, allow_private=True, consent=NO_ROBOTS)
NETWORK = Network(16, 4, 2.0, 2.0, 5.0, 2, 0.01, {}, "rs5m-build-test")

Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]
bytes_of = functools.partial(send, close=True)


class Site:
    """Two loopback servers: HTTP proper under *.web.test, hand-made bytes under *.raw.test."""

    def __init__(self, serve: Serve, serve_raw: Play) -> None:
        self.requests: collections.Counter[str] = collections.Counter()
        self.connections = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._serve = serve
        self._serve_raw = serve_raw

    async def _on_web(self, request: web.Request) -> web.StreamResponse:
        self.requests[f"{request.host}{request.path}"] += 1
        return await self._serve(request)

    async def _on_raw(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await self._serve_raw(Asked("", "", head, self.connections, 0.0), writer)
                if writer.is_closing():
                    break
        writer.close()

    @contextlib.asynccontextmanager
    async def up(self) -> Any:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._on_web)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        raw = await asyncio.start_server(self._on_raw, "127.0.0.1", 0)
        try:
            raw_port = raw.sockets[0].getsockname()[1]
            yield {
                ".web.test": f"127.0.0.1:{runner.addresses[0][1]}",
                ".raw.test": f"127.0.0.1:{raw_port}",
                "gone.test": "",
                "shut.test": "127.0.0.1:1",
            }
        finally:
            raw.close()
            for writer in self._open:
                writer.transport.abort()
            await runner.cleanup()
            await asyncio.sleep(0)


async def no_web(_request: web.Request) -> web.StreamResponse:
    return web.Response(body=JPEG, content_type="image/jpeg")


async def no_raw(_asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.close()


def fetch(
    urls: Sequence[str],
    serve: Serve = no_web,
    raw: Play = no_raw,
    limits: Limits = LIMITS,
    **network: Any,
) -> tuple[dict[str, Answer], Site]:
    """Fetch from a fresh site; fails when a url is answered twice or not at all."""
    site = Site(serve, raw)
    answers: list[Answer] = []

    async def main() -> None:
        async with site.up() as resolve:
            settings = replace(NETWORK, resolve={**resolve, **network.pop("resolve", {})}, **network)
            await fetch_all(urls, limits, settings, answers.append)

    asyncio.run(main())
    counted = collections.Counter(answer.url for answer in answers)
    assert counted == collections.Counter(set(urls))
    return {answer.url: answer for answer in answers}, site


def fetch_one(url: str, *args: Any, **kwargs: Any) -> Answer:
    return fetch([url], *args, **kwargs)[0][url]


def reply(status: int, body: bytes = b"", **headers: str) -> Serve:
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def serve(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=named)

    return serve


# -- what is accepted ------------------------------------------------------------------------------------------


def test_an_image_is_recorded_with_what_the_server_said() -> None:
    serve = reply(200, JPEG, Content_Type="image/jpeg; charset=x", ETag='"abc"')
    answer = fetch_one("http://a.web.test/x.jpg", serve)
    assert answer == Answer("http://a.web.test/x.jpg", None, JPEG, "jpeg", 200, None, "image/jpeg; charset=x", '"abc"')


def test_the_request_says_who_asks_and_sends_nothing_else() -> None:
    seen: list[web.Request] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        response = web.Response(body=JPEG)
        response.set_cookie("id", "1")
        return response

    fetch(["http://me:pw@a.web.test/1", "http://a.web.test/2"], serve, per_host=1)
    for request in seen:
        assert request.headers["User-Agent"] == "rs5m-build-test"
        assert request.headers["Accept-Encoding"] == "identity"
        assert not {"Cookie", "Authorization", "Referer"} & set(request.headers)


def test_an_empty_body_counts_as_downloaded() -> None:
    answer = fetch_one("http://a.web.test/", reply(200))
    assert (answer.reason, answer.media_type, answer.body) == (None, "empty", b"")


def test_the_bytes_decide_not_the_content_type() -> None:
    answer = fetch_one("http://a.web.test/", reply(200, b"GIF89a....", Content_Type="text/html"))
    assert (answer.reason, answer.media_type) == (None, "gif")


def test_a_body_compressed_against_our_wish_is_undone_within_the_limit() -> None:
    zipped = gzip.compress(JPEG, mtime=0)
    answer = fetch_one("http://a.web.test/", reply(200, zipped, Content_Encoding="gzip"))
    assert (answer.reason, answer.body) == (None, JPEG)
    bomb = gzip.compress(JPEG + bytes(5_000_000))
    assert len(bomb) < LIMITS.max_bytes
    answer = fetch_one("http://a.web.test/", reply(200, bomb, Content_Encoding="gzip"))
    assert (answer.reason, answer.value, answer.cut) == ("download.too_large", 10_001.0, 10_000.0)


@pytest.mark.parametrize(
    ("encoding", "body", "reason"),
    [
        ("br", JPEG, "download.not_image"),
        ("gzip", JPEG, "download.not_image"),
        ("gzip", gzip.compress(JPEG, mtime=0)[:-9], "download.short_body"),
        ("gzip", gzip.compress(JPEG, mtime=0)[:9], "download.short_body"),
        ("gzip", b"", None),
        ("identity", JPEG, None),
    ],
)
def test_odd_content_encodings(encoding: str, body: bytes, reason: str | None) -> None:
    answer = fetch_one("http://a.web.test/", reply(200, body, Content_Encoding=encoding))
    assert answer.reason == reason


# -- what is final ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, "http_404"),
        (410, "http_410"),
        (403, "http_403"),
        (401, "http_4xx"),
        (451, "http_4xx"),
        (300, "http_4xx"),
        (304, "http_4xx"),
        (999, "http_4xx"),
    ],
)
def test_final_statuses_are_asked_once(status: int, reason: str) -> None:
    answers, site = fetch(["http://a.web.test/x"], reply(status))
    answer = answers["http://a.web.test/x"]
    assert (answer.reason, answer.http_status) == (f"download.{reason}", status)
    assert answer.body == b""
    assert site.requests.total() == 1


def test_html_called_jpeg_is_not_an_image_and_names_what_it_is() -> None:
    answer = fetch_one("http://a.web.test/x.jpg", reply(200, HTML, Content_Type="image/jpeg"))
    assert (answer.reason, answer.http_status) == ("download.not_image", 200)
    assert answer.detail == "the body is HTML"


def test_a_format_outside_the_recipe_is_not_taken() -> None:
    answer = fetch_one("http://a.web.test/x", reply(200, b"RIFF\0\0\0\0WEBPVP8 "))
    assert (answer.reason, answer.detail) == ("download.not_image", "webp is not in download.media")


def test_too_large_by_declaration_reads_nothing_and_by_count_stops() -> None:
    declared = bytes_of(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", pause_s=0.2)
    answer = fetch_one("http://a.raw.test/", raw=declared, read_s=0.1, attempts=1)
    assert (answer.reason, answer.value, answer.cut) == ("download.too_large", 99_999.0, 10_000.0)
    endless = bytes_of(b"HTTP/1.1 200 OK\r\n\r\n" + JPEG, *[bytes(1000)] * 50)
    answer = fetch_one("http://a.raw.test/", raw=endless)
    assert (answer.reason, answer.value, answer.cut) == ("download.too_large", 10_001.0, 10_000.0)
    exact = replace(LIMITS, max_bytes=len(JPEG))
    assert fetch_one("http://a.web.test/", reply(200, JPEG), limits=exact).reason is None


@pytest.mark.parametrize(
    "url", ["ftp://a.web.test/x", "x.jpg", "", "http://", "http://[::1", "http://\ud800/", "http://a\0b/"]
)
def test_what_is_no_web_address_is_refused_with_a_detail(url: str) -> None:
    answer = fetch_one(url)
    assert answer.reason == "download.bad_scheme"
    assert answer.detail


def test_names_and_ports_that_are_not_there() -> None:
    answers, _ = fetch(["http://gone.test/x", "http://shut.test/x"])
    assert answers["http://gone.test/x"].reason == "download.dns"
    assert answers["http://shut.test/x"].reason == "download.refused"


def test_what_came_while_the_receiver_held_everything_up_is_no_timeout() -> None:
    site, answers = Site(no_web, no_raw), []

    def deliver(answer: Answer) -> None:
        if len(answers) in (40, 80):
            time.sleep(1.0)  # a disk that is behind
        answers.append(answer)

    async def main() -> None:
        async with site.up() as resolve:
            network = replace(NETWORK, resolve=resolve, connect_s=0.2, read_s=0.3, total_s=0.8, attempts=1)
            await fetch_all([f"http://h{n % 16}.web.test/{n}" for n in range(160)], LIMITS, network, deliver)

    asyncio.run(main())
    assert collections.Counter(answer.reason for answer in answers) == {None: 160}


def test_names_are_looked_up_before_their_turn() -> None:
    def slowly(name: str, kind: int, _before: int) -> Reply:
        return replace(found(name, kind, "192.0.2.1"), delay_s=0.05)

    async def main() -> tuple[list[Answer], NameServer]:
        answers: list[Answer] = []
        async with NameServer(slowly).up() as names:
            network = replace(NETWORK, connections=2, nameservers=(names.address,))
            urls = [f"http://h{number}.example/" for number in range(40)]
            await fetch_all(urls, replace(LIMITS, allow_private=False), network, answers.append)
        return answers, names

    answers, names = asyncio.run(main())
    assert collections.Counter(answer.reason for answer in answers) == {"download.private_address": 40}
    assert set(names.asked.values()) == {1}
    assert names.peak > 20  # not two at a time


def test_a_name_server_that_does_not_answer_is_a_passing_failure() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        answers, _ = fetch(["http://slow.example/", "http://busy.example/"], connect_s=0.1, nameservers=(server,))
    assert {answer.reason for answer in answers.values()} == {"download.dns_temporary"}


def test_certificates_are_checked_and_plain_text_is_not_tls() -> None:
    answers: list[Answer] = []
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        writer.close()

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello there\r\n")
        writer.close()

    async def main() -> None:
        secure = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=self_signed())
        plain = await asyncio.start_server(greet, "127.0.0.1", 0)
        resolve = {
            "a.raw.test": f"127.0.0.1:{secure.sockets[0].getsockname()[1]}",
            "b.raw.test": f"127.0.0.1:{plain.sockets[0].getsockname()[1]}",
        }
        async with secure, plain:
            network = replace(NETWORK, resolve=resolve)
            await fetch_all(["https://a.raw.test/", "https://b.raw.test/"], LIMITS, network, answers.append)
        await asyncio.sleep(0.05)  # the servers notice that their clients are gone

    asyncio.run(main())
    details = {answer.url: answer.detail for answer in answers}
    assert [answer.reason for answer in answers] == ["download.tls"] * 2
    assert "not trusted" in (details["https://a.raw.test/"] or "")
    assert served == 0


# -- what may pass ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (no_raw, "reset"),
        (bytes_of(b"SSH-2.0-OpenSSH\r\n\r\n"), "reset"),
        (bytes_of(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n"), "reset"),
        (bytes_of(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + JPEG), "short_body"),
        (bytes_of(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + JPEG), "reset"),
        (bytes_of(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n" + JPEG[:99]), "short_body"),
        (bytes_of(b"HTTP/1.1 206 Partial\r\nContent-Length: 4\r\n\r\n" + JPEG[:4]), "short_body"),
        (bytes_of(b"", pause_s=0.5), "timeout"),
        (bytes_of(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", JPEG, pause_s=0.5), "timeout"),
    ],
)
def test_servers_that_misbehave(raw: Play, reason: str) -> None:
    answers, site = fetch(["http://a.raw.test/x"], raw=raw, connect_s=0.1, read_s=0.1, attempts=2)
    assert answers["http://a.raw.test/x"].reason == f"download.{reason}"
    assert site.connections >= 2


def test_a_dripping_server_is_stopped_by_the_total_and_keeps_its_status() -> None:
    drip = bytes_of(b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n", *[JPEG[:70]] * 40, pause_s=0.05)
    begun = time.monotonic()
    answer = fetch_one("http://a.raw.test/x", raw=drip, total_s=0.3, attempts=1)
    assert time.monotonic() - begun < 1.5
    assert (answer.reason, answer.http_status) == ("download.timeout", 200)
    assert answer.detail == "not complete within total_s"


def test_the_total_spans_redirects() -> None:
    async def serve(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.15)
        return web.Response(status=302, headers={"Location": request.path + "x"})

    answer = fetch_one("http://a.web.test/x", serve, limits=replace(LIMITS, max_redirects=50), total_s=0.4, attempts=1)
    assert answer.reason == "download.timeout"


def flaky(failures_first: int, status: int, **headers: str) -> Serve:
    seen: collections.Counter[str] = collections.Counter()

    async def serve(request: web.Request) -> web.StreamResponse:
        seen[request.path] += 1
        if seen[request.path] <= failures_first:
            return web.Response(status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})
        return web.Response(body=JPEG)

    return serve


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_failures_are_tried_again_as_often_as_asked(status: int) -> None:
    answers, site = fetch(["http://a.web.test/x"], flaky(2, status), attempts=3)
    assert answers["http://a.web.test/x"].reason is None
    assert site.requests.total() == 3
    answers, site = fetch(["http://a.web.test/x"], flaky(2, status), attempts=2)
    reason = "download.http_429" if status == 429 else "download.http_5xx"
    assert (answers["http://a.web.test/x"].reason, site.requests.total()) == (reason, 2)


def test_retry_after_is_honoured_and_holds_the_whole_host() -> None:
    times: list[float] = []
    inner = flaky(1, 429, Retry_After="1")

    async def serve(request: web.Request) -> web.StreamResponse:
        times.append(time.monotonic())
        return await inner(request)

    urls = [f"http://a.web.test/{i}" for i in range(3)]
    answers, _ = fetch(urls, serve, per_host=1)
    assert {answer.reason for answer in answers.values()} == {None}
    gaps = sorted(b - a for a, b in itertools.pairwise(times))
    assert sum(gap > 0.9 for gap in gaps) >= 3  # each url was turned away once, and each time the host rested


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry_After": "3600"},
        {"Retry_After": "Thu, 01 Jan 2026 13:00:00 GMT", "Date": "Thu, 01 Jan 2026 12:00:00 GMT"},
    ],
)
def test_a_pause_longer_than_our_patience_is_left_to_the_next_round(headers: dict[str, str]) -> None:
    answers, site = fetch(["http://a.web.test/x"], flaky(1, 503, **headers), attempts=3)
    assert answers["http://a.web.test/x"].reason == "download.http_5xx"
    assert site.requests.total() == 1


def test_a_pause_that_cannot_be_read_is_our_own() -> None:
    answers, _ = fetch(["http://a.web.test/x"], flaky(1, 503, Retry_After="soon"))
    assert answers["http://a.web.test/x"].reason is None


def test_pauses_double_spread_and_are_the_same_every_time() -> None:
    pauses = [pause_s("http://a.test/", tries, 1.0) for tries in (1, 2, 3)]
    assert pauses == [pause_s("http://a.test/", tries, 1.0) for tries in (1, 2, 3)]
    assert all(0.5 <= pause / 2**i < 1.5 for i, pause in enumerate(pauses))
    assert pause_s("http://a.test/", 30, 1.0) == client.BACKOFF_MAX_S
    assert len({pause_s(f"http://a.test/{i}", 1, 1.0) for i in range(50)}) == 50


def test_a_server_that_never_answers_is_given_up() -> None:
    urls = [f"http://a.raw.test/{i}" for i in range(200)] + ["http://b.web.test/x"]
    answers, site = fetch(urls, attempts=1)
    reasons = collections.Counter(answer.reason for answer in answers.values())
    assert reasons == {"download.reset": 200, None: 1}
    skipped = [a for a in answers.values() if a.detail == "not asked: a.raw.test failed several times in a row"]
    assert len(skipped) >= 180
    assert site.connections < 40


def test_a_host_is_not_given_up_for_errors_it_answers_with() -> None:
    urls = [f"http://a.web.test/{i}" for i in range(40)]
    answers, site = fetch(urls, reply(404))
    assert {answer.reason for answer in answers.values()} == {"download.http_404"}
    assert site.requests.total() == 40


def test_a_server_that_only_asks_to_be_left_alone_is_left_alone() -> None:
    urls = [f"http://a.web.test/{i}" for i in range(100)]
    answers, site = fetch(urls, reply(429))
    assert {answer.reason for answer in answers.values()} == {"download.http_429"}
    assert site.requests.total() < 30


def test_foreign_headers_are_stored_as_short_clean_text() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nETag: \xff\xc3\xa9\tx\r\nContent-Type: " + b"a" * 500
    answer = fetch_one("http://a.raw.test/", raw=bytes_of(head + b"\r\n\r\n\xff\xd8\xff"))
    assert (answer.reason, answer.etag, answer.content_type) == (None, "?\u00e9?x", "a" * 200)


# -- redirects -------------------------------------------------------------------------------------------------


async def moving(request: web.Request) -> web.StreamResponse:
    match request.path.split("/"):
        case [_, "to", where]:
            places = {
                "image": "/image",
                "other": "http://b.web.test/image",
                "ftp": "ftp://b.web.test/image",
                "file": "file:///etc/passwd",
                "broken": "http://[::1",
                "gone": "http://gone.test/",
                "loop": "/to/loop",
                "nothing": "",
                "creds": "http://u:p@b.web.test/image",
            }
            return web.Response(status=302, headers={"Location": places[where]})
        case [_, "hop", left]:
            where = f"/hop/{int(left) - 1}" if int(left) > 1 else "/image"
            return web.Response(status=307, headers={"Location": where})
        case _:
            return web.Response(body=JPEG)


@pytest.mark.parametrize(
    ("path", "reason", "final"),
    [
        ("image", None, None),
        ("to/image", None, "http://a.web.test/image"),
        ("to/other", None, "http://b.web.test/image"),
        ("to/creds", None, "http://b.web.test/image"),
        ("hop/3", None, "http://a.web.test/image"),
        ("hop/4", "download.too_many_redirects", "http://a.web.test/hop/1"),
        ("to/loop", "download.too_many_redirects", "http://a.web.test/to/loop"),
        ("to/ftp", "download.bad_scheme", None),
        ("to/file", "download.bad_scheme", None),
        ("to/broken", "download.bad_scheme", None),
        ("to/gone", "download.dns", "http://gone.test/"),
        ("to/nothing", "download.http_4xx", None),
    ],
)
def test_redirects(path: str, reason: str | None, final: str | None) -> None:
    answers, site = fetch([f"http://a.web.test/{path}"], moving)
    answer = answers[f"http://a.web.test/{path}"]
    assert (answer.reason, answer.final_url) == (reason, final)
    if reason == "download.too_many_redirects":
        assert (answer.value, answer.cut, site.requests.total()) == (4.0, 3.0, 4)


def test_a_redirect_to_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first host is let through by name, as a public one would be; the check then sees the second."""
    real = client.guarded_socket(allow_private=False)

    def guarded(allow_private: bool) -> Any:
        del allow_private
        open_socket = client_guard(allow_private=True)
        first = True

        def make(info: Any) -> Any:
            nonlocal first
            if first:
                first = False
                return open_socket(info)
            return real(info)

        return make

    client_guard = client.guarded_socket
    monkeypatch.setattr(client, "guarded_socket", guarded)
    answers, site = fetch(["http://a.web.test/to/other"], moving)
    answer = answers["http://a.web.test/to/other"]
    assert (answer.reason, answer.final_url) == ("download.private_address", "http://b.web.test/image")
    assert answer.detail == "127.0.0.1 is loopback"
    assert dict(site.requests) == {"a.web.test/to/other": 1}


# -- caps, fairness, delivery ----------------------------------------------------------------------------------


def test_caps_hold_and_a_slow_host_does_not_keep_the_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_LEAST_STALL_S", watch.STALL_S)  # nobody gives its place to another
    running: collections.Counter[str] = collections.Counter()
    peak: collections.Counter[str] = collections.Counter()
    finished: list[str] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        host = request.host
        for key in (host, "all"):
            running[key] += 1
            peak[key] = max(peak[key], running[key])
        await asyncio.sleep(0.15 if host == "slow.web.test" else 0.002)
        for key in (host, "all"):
            running[key] -= 1
        finished.append(host)
        if request.path.startswith("/via"):
            return web.Response(status=302, headers={"Location": f"http://slow.web.test{request.path[4:]}"})
        return web.Response(body=JPEG)

    urls = [f"http://slow.web.test/{i}" for i in range(12)]
    urls += [f"http://h{i % 20}.web.test/{i}" for i in range(80)]
    urls += [f"http://v{i}.web.test/via/{i}" for i in range(8)]
    answers, _ = fetch(urls, serve, connections=6, per_host=2)
    assert {answer.reason for answer in answers.values()} == {None}
    assert max(count for host, count in peak.items() if host != "all") <= 2
    assert peak["slow.web.test"] == 2
    assert peak["all"] <= 6
    # 20 slow answers, two at a time, take 1.5 s; everything else must not have waited for them.
    quick = max(i for i, host in enumerate(finished) if host.startswith("h"))
    assert finished[: quick + 1].count("slow.web.test") <= 12


def test_connections_are_used_again_also_after_a_404() -> None:
    peers: set[Any] = set()

    async def serve(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(status=404, body=HTML) if int(request.path[1:]) % 2 else web.Response(body=JPEG)

    fetch([f"http://a.web.test/{i}" for i in range(60)], serve, per_host=2)
    assert len(peers) == 2


def test_a_mixed_run_answers_for_every_url_exactly_once() -> None:
    async def serve(request: web.Request) -> web.StreamResponse:
        number = int(request.path.rsplit("/", 1)[-1])
        match number % 6:
            case 0:
                return web.Response(status=404, body=HTML)
            case 1:
                return web.Response(body=HTML)
            case 2:
                return web.Response(status=302, headers={"Location": f"http://h{number % 7}.web.test/{number + 1}"})
            case 3:
                return web.Response(body=JPEG + str(number).encode())
            case 4:
                return web.Response(status=503)
            case _:
                return web.Response(body=bytes(20_000))

    urls = [f"http://h{i % 11}.web.test/{i}" for i in range(250)]
    urls += [f"http://h{i % 5}.raw.test/{i}" for i in range(30)]
    urls += ["http://gone.test/1", "http://shut.test/1", "nonsense"] + [f"ftp://x.test/{i}" for i in range(20)]
    answers, _ = fetch([*urls, urls[0]], serve)
    assert len(answers) == 303
    got = [answer for answer in answers.values() if answer.reason is None]
    assert len(got) == sum(i % 6 in (2, 3) for i in range(250))
    for answer in got:
        assert answer.body == JPEG + (answer.final_url or answer.url).rsplit("/", 1)[-1].encode()


def test_nothing_to_do_is_done() -> None:
    assert fetch([])[0] == {}


def test_an_error_of_the_receiver_ends_the_call_and_stays_itself() -> None:
    class DiskFullError(OSError):
        pass

    calls = 0

    def deliver(_answer: Answer) -> None:
        nonlocal calls
        calls += 1
        raise DiskFullError

    async def main() -> None:
        site = Site(no_web, no_raw)
        async with site.up() as resolve:
            urls = [f"http://a.web.test/{i}" for i in range(50)]
            await fetch_all(urls, LIMITS, replace(NETWORK, resolve=resolve), deliver)

    with pytest.raises(DiskFullError):
        asyncio.run(main())
    assert calls == 1


def test_running_out_of_file_handles_is_not_blamed_on_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def guarded(allow_private: bool) -> Any:
        del allow_private

        def make(_info: Any) -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

        return make

    monkeypatch.setattr(client, "guarded_socket", guarded)
    with pytest.raises(OSError) as failed:
        fetch(["http://a.web.test/"])
    assert failed.value.errno == errno.EMFILE


# -- consent ---------------------------------------------------------------------------------------------------

HEEDING = replace(LIMITS, consent=Consent(robots=True, headers=True, tdm=True))


async def disallowing(request: web.Request) -> web.StreamResponse:
    if request.path == "/robots.txt":
        return web.Response(text="User-agent: rs5m-build\nDisallow: /private\n")
    if request.path == "/moved":
        return web.Response(status=302, headers={"Location": "/private/x"})
    return web.Response(body=JPEG)


def test_what_robots_txt_disallows_is_not_asked_for_redirects_included() -> None:
    urls = [f"http://a.web.test/{path}" for path in ("private/x", "moved", "public/x")]
    answers, site = fetch(urls, disallowing, limits=HEEDING)
    assert [answers[url].reason for url in urls] == ["download.opt_out", "download.opt_out", None]
    assert (answers[urls[0]].detail or "").startswith("robots.txt")
    assert answers[urls[1]].final_url == "http://a.web.test/private/x"
    assert not site.requests["a.web.test/private/x"]
    assert site.requests["a.web.test/robots.txt"] == 1


def test_robots_txt_of_a_server_in_trouble_defers_its_images() -> None:
    answers, site = fetch(["http://a.web.test/x", "http://a.web.test/y"], reply(503), limits=HEEDING)
    assert {answer.reason for answer in answers.values()} == {"download.http_5xx"}
    assert set(site.requests) == {"a.web.test/robots.txt"}


@pytest.mark.parametrize(
    ("headers", "detail"),
    [({"X_Robots_Tag": "noai"}, "X-Robots-Tag: noai"), ({"tdm_reservation": "1"}, "tdm-reservation: 1")],
)
def test_headers_that_refuse_are_heeded_unless_switched_off(headers: dict[str, str], detail: str) -> None:
    answer = fetch_one("http://a.web.test/x", reply(200, JPEG, **headers))
    assert (answer.reason, answer.detail, answer.body) == ("download.opt_out", detail, b"")
    deaf = replace(LIMITS, consent=Consent(robots=False, headers=False, tdm=False))
    assert fetch_one("http://a.web.test/x", reply(200, JPEG, **headers), limits=deaf).reason is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("name", "value", "detail"),
    [
        ("X-Robots-Tag", "noarchive, noai", "X-Robots-Tag: noai"),
        ("tdm-reservation", "1", "tdm-reservation: 1"),
        ("X-Robots-Tag", "googlebot: noai", None),
    ],
)
def test_a_redirect_that_refuses_is_not_followed(status: int, name: str, value: str, detail: str | None) -> None:
    async def serve(request: web.Request) -> web.StreamResponse:
        if request.path == "/first":
            return web.Response(status=302, headers={"Location": "/second"})
        if request.path == "/second":
            return web.Response(status=status, headers={"Location": "http://b.web.test/x", name: value})
        return web.Response(body=JPEG)

    url = "http://a.web.test/first"
    answers, site = fetch([url], serve)
    if detail is None:
        assert (answers[url].reason, answers[url].final_url) == (None, "http://b.web.test/x")
        return
    assert answers[url] == Answer(
        url, "download.opt_out", http_status=status, final_url="http://a.web.test/second", detail=detail
    )
    assert site.requests == {"a.web.test/first": 1, "a.web.test/second": 1}
    deaf = replace(LIMITS, consent=Consent(robots=False, headers=False, tdm=False))
    assert fetch_one(url, serve, limits=deaf).reason is None


# -- slow servers ----------------------------------------------------------------------------------------------


def test_dead_servers_do_not_hold_up_the_others() -> None:
    """More hosts that never answer than connections: the sound ones are served meanwhile."""
    dead = [f"http://dead{i}.raw.test/x" for i in range(12)]
    urls = [*dead, *(f"http://sound{i}.web.test/{j}" for i in range(8) for j in range(4))]
    done: list[tuple[str | None, float]] = []

    async def hang(_asked: Asked, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async def main() -> None:
        site = Site(no_web, hang)
        async with site.up() as resolve:
            network = replace(
                NETWORK, resolve=resolve, connections=4, connect_s=2.0, read_s=3.0, total_s=9.0, attempts=1
            )
            begun = time.monotonic()
            await fetch_all(urls, LIMITS, network, lambda a: done.append((a.reason, time.monotonic() - begun)))

    asyncio.run(main())
    sound = [at_s for reason, at_s in done if reason is None]
    assert len(sound) == 32
    assert max(sound) < 4.5  # before the first dead one is given up
    assert min(at_s for reason, at_s in done if reason) > 4.5


def test_a_crawl_delay_lies_between_all_requests() -> None:
    begun: list[float] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        if request.path == "/robots.txt":
            return web.Response(text="User-agent: *\nCrawl-delay: 0.2\n")
        begun.append(time.monotonic())
        return web.Response(body=JPEG)

    urls = [f"http://a.web.test/{number}" for number in range(4)]
    fetch(urls, serve, limits=HEEDING, crawl_delay_max_s=1.0)
    assert len(begun) == 4
    assert min(later - earlier for earlier, later in itertools.pairwise(begun)) > 0.15

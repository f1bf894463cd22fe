"""robots.txt against a real server on loopback: what it allows, what it leaves for later, and what it costs."""

import asyncio
import collections
import contextlib
import errno
import functools
import gzip
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from protego import Protego
from yarl import URL

from stages.download import robots as module
from stages.download.addresses import guarded_socket
from stages.download.answers import DETAIL_BYTES, ROBOT, Consent, Limits, Network
from stages.download.resolver import MappedResolver
from stages.download.robots import MAX_BYTES, MAX_WILDCARD_CHARS, Robots, Rules, Verdict, read_rules

LIMITS = Limits(10_000, frozenset({"jpeg"}), 3, allow_private=True)
NETWORK = Network(16, 4, 2.0, 2.0, 5.0, 2, 0.01, {}, "rs5m-build/test")
ALLOWED = Verdict(None, "", 0.0)
REFUSED = Verdict("download.opt_out", "robots.txt: Disallow for *", 0.0)
CLOSED = b"User-agent: *\nDisallow: /"

Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]
RawServe = Callable[[asyncio.StreamWriter], Awaitable[None]]


class World:
    """Loopback servers, HTTP proper under *.web.test and hand-made bytes under *.raw.test; and our robots."""

    def __init__(self, robots: Robots, requests: collections.Counter[str]) -> None:
        self.robots = robots
        self.requests = requests

    async def ask(self, url: str) -> Verdict:
        return await self.robots.ask(URL(url))


@contextlib.asynccontextmanager
async def up(
    serve: Serve | None = None,
    raw: RawServe | None = None,
    limits: Limits = LIMITS,
    clock: Callable[[], float] | None = None,
    guard: Any = None,
    **network: Any,
) -> AsyncIterator[World]:
    requests: collections.Counter[str] = collections.Counter()
    writers: set[asyncio.StreamWriter] = set()

    async def on_web(request: web.Request) -> web.StreamResponse:
        requests[f"{request.host}{request.path}"] += 1
        assert serve is not None
        return await serve(request)

    async def on_raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await reader.readuntil(b"\r\n\r\n")
            requests["raw"] += 1
            assert raw is not None
            await raw(writer)
        writer.close()

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", on_web)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hand_made = await asyncio.start_server(on_raw, "127.0.0.1", 0)
    settings = replace(NETWORK, **network)
    resolver = MappedResolver(
        {
            ".web.test": f"127.0.0.1:{runner.addresses[0][1]}",
            ".raw.test": f"127.0.0.1:{hand_made.sockets[0].getsockname()[1]}",
            "gone.test": "",
            "shut.test": "127.0.0.1:1",
        }
    )
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,
            resolver=resolver,
            use_dns_cache=False,
            socket_factory=guard or guarded_socket(limits.allow_private),
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": settings.user_agent, "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=None, connect=settings.connect_s, sock_read=settings.read_s),
        auto_decompress=False,
        trust_env=False,
    )
    robots = Robots(session, limits, settings, clock)
    try:
        yield World(robots, requests)
    finally:
        await robots.close()
        await session.close()
        await resolver.close()
        hand_made.close()
        for writer in writers:
            writer.transport.abort()
        await runner.cleanup()
        await asyncio.sleep(0)


def reply(status: int, body: bytes = b"", **headers: str) -> Serve:
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def serve(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=named)

    return serve


def bytes_of(*parts: bytes, pause_s: float = 0.0) -> RawServe:
    async def serve(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return serve


def asked(url: str, *args: Any, **kwargs: Any) -> Verdict:
    """What a fresh world says of one url, first by asking and then from memory."""

    async def main() -> Verdict:
        async with up(*args, **kwargs) as world:
            assert URL(url).path == "/robots.txt" or world.robots.known(URL(url)) is None
            verdict = await world.ask(url)
            assert world.robots.known(URL(url)) == verdict
            assert world.requests.total() <= 6
            return verdict

    verdict = asyncio.run(main())
    assert verdict.detail.isprintable()
    assert len(verdict.detail.encode()) <= DETAIL_BYTES
    return verdict


def judged(text: str, path: str) -> str | None:
    """The verdict on a path by a text: None where it is allowed, else the group that refuses."""
    verdict = read_rules(text).verdict(URL(f"http://a.web.test{path}"))
    assert (verdict.reason is None) == (verdict.detail == "")
    return verdict.detail.removeprefix("robots.txt: Disallow for ") or None


# -- what the rules say ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "path", "allowed"),
    [
        ("Disallow: /", "/a.jpg", False),
        ("Disallow:", "/a.jpg", True),
        ("Disallow: /private", "/private/a.jpg", False),
        ("Disallow: /private", "/public/private", True),
        ("Disallow: /Private", "/private/a.jpg", True),
        ("Disallow: /\nAllow: /img/", "/img/a.jpg", True),
        ("Allow: /img/\nDisallow: /img/raw/", "/img/raw/a.jpg", False),
        ("Disallow: /img\nAllow: /img", "/img", True),
        ("Disallow: /*.jpg$", "/x/a.jpg", False),
        ("Disallow: /*.jpg$", "/x/a.jpg?size=1", True),
        ("Disallow: /*.jpg", "/x/a.jpg?size=1", False),
        ("Disallow: /*?size=", "/x/a.jpg?size=1", False),
        ("Disallow: /a*b*c", "/axxbxxc", False),
        ("Disallow: /a*b*c", "/axxcxxb", True),
        ("Disallow: /img$", "/img", False),
        ("Disallow: /img$", "/img/", True),
        ("Disallow: /%7Ejoe/", "/~joe/a", False),
        ("Disallow: /caf\u00e9", "/caf%C3%A9/a", False),
        ("Disallow: /a%2Fb", "/a/b", True),
        ("Disallow: /robots", "/robots.txt", True),
        ("Disallow: //a", "//a/b", False),
        ("disallow : /x # why", "/x", False),
        ("DISALLOW:/x", "/x", False),
        ("Dissallow: /x", "/x", False),
        ("  Disallow: /x  ", "/x", False),
        ("Sitemap: http://b.test/\nDisallow: /x", "/x", False),
        ("Noindex: /y\nHost: b\nDisallow: /x", "/x", False),
    ],
)
def test_rules(rules: str, path: str, allowed: bool) -> None:
    for end in ("\n", "\r\n", "\r"):
        text = f"\nUser-agent: *\n{rules}\n".replace("\n", end)
        assert (judged(text, path) is None) is allowed


@pytest.mark.parametrize(
    ("text", "refused_by"),
    [
        ("User-agent: rs5m-build\nDisallow: /", ROBOT),
        ("User-agent: RS5M-Build/1.0 (+x)\nDisallow: /", ROBOT),
        ("user agent: rs5m-build\nDisallow: /", ROBOT),
        ("User-agent: *\nDisallow:\nUser-agent: rs5m-build\nDisallow: /", ROBOT),
        ("User-agent: rs5m-build\nAllow: /\nUser-agent: *\nDisallow: /", None),
        ("User-agent: rs5m-build\n\nUser-agent: *\nDisallow: /", ROBOT),
        ("User-agent: rs5m-build\nDisallow:\n\nUser-agent: *\nDisallow: /", None),
        ("User-agent: rs5m-build\nCrawl-delay: 1\n\nUser-agent: *\nDisallow: /", None),
        ("User-agent: a\nUser-agent: rs5m-build\nUser-agent: b\nDisallow: /", ROBOT),
        ("User-agent: rs5m-build\nAllow: /y\nUser-agent: a\nDisallow: /\nUser-agent: rs5m-build\nDisallow: /x", ROBOT),
        ("User-agent: rs5m\nDisallow: /", None),
        ("User-agent: rs5m-build-2\nDisallow: /", None),
        ("User-agent: build\nDisallow: /", None),
        ("User-agent: rs5m\nAllow: /\n\nUser-agent: *\nDisallow: /", "*"),
        ("User-agent: googlebot\nDisallow: /", None),
        ("User-agent: * (all)\nDisallow: /", "*"),
        ("User-agent: *\nSitemap: http://b/\nUser-agent: b\nDisallow: /", "*"),
        ("Disallow: /", None),
        ("User-agent:\nDisallow: /", None),
        ("", None),
    ],
)
def test_the_group_of_our_whole_product_token_decides_and_else_that_for_all(text: str, refused_by: str | None) -> None:
    assert judged(text, "/x") == refused_by


@pytest.mark.parametrize(
    ("value", "delay_s"),
    [("2", 2.0), ("0.5", 0.5), ("-1", 0.0), ("soon", 0.0), ("nan", 0.0), ("inf", 0.0), ("86401", 0.0), ("9" * 99, 0.0)],
)
def test_crawl_delay(value: str, delay_s: float) -> None:
    text = f"User-agent: *\nCrawl-delay: {value}\nDisallow: /x"
    for path, reason in (("/x", "download.opt_out"), ("/y", None)):
        verdict = read_rules(text).verdict(URL(f"http://a.web.test{path}"))
        assert (verdict.reason, verdict.crawl_delay_s) == (reason, delay_s)
    alone = read_rules(f"User-agent: {ROBOT}\nCrawl-delay: {value}")
    assert (alone.parsed, alone.free.crawl_delay_s) == (None, delay_s)
    assert read_rules(f"User-agent: b\nCrawl-delay: {value}").free.crawl_delay_s == 0.0


PIECES = (
    "user-agent user agent allow disallow crawl-delay crawl delay sitemap request-rate visit-time host : * $ / % %2 %zz"
    " %ff \n \r\n \r # rs5m-build 1/5 -1 1e999 0900-2500 \u2028 \x85 \x1c \x00 \ufeff \ufffd \u0660 é index.html http://["
)
TEXTS = st.text() | st.lists(st.sampled_from([*PIECES.split(" "), " "])).map("".join)
PATHS = st.text() | st.lists(st.sampled_from(["/", "%", "%ff", "?", "=", "#", "a", "é", "[", "//", "index.html"])).map(
    "".join
)


@given(TEXTS, PATHS)
def test_any_text_is_read_and_any_path_judged(text: str, path: str) -> None:
    at = URL("http://a.web.test").with_path("/" + path)
    for content in (text, f"User-agent: *\nDisallow: {text}", f"User-agent: *\nDisallow: /a*\n{text}"):
        rules = read_rules(content)
        verdict = rules.verdict(at)
        assert verdict in (rules.free, rules.refused)
        assert verdict == read_rules(content).verdict(at)
        assert 0.0 <= verdict.crawl_delay_s <= module.MAX_CRAWL_DELAY_S


NEAR = st.lists(st.sampled_from(["/", "a", "b", "%61", "%2F", "?", "=", "*", "$", ".", "~", "http:", " "])).map("".join)


@given(st.lists(st.tuples(st.sampled_from(["Allow", "Disallow"]), NEAR), max_size=4), NEAR)
def test_what_is_told_from_a_beginning_is_what_protego_says(rules: list[tuple[str, str]], path: str) -> None:
    text = "User-agent: *\n" + "\n".join(f"{field}: {value}" for field, value in rules)
    at = URL(f"http://a.web.test/{path}")
    assert (read_rules(text).verdict(at).reason is None) == Protego.parse(text).can_fetch(str(at), ROBOT)


@given(st.binary(max_size=300))
def test_any_bytes_are_read(body: bytes) -> None:
    read_rules((b"User-agent: *\nDisallow: " + body).decode("utf-8-sig", "replace")).verdict(URL("http://a.test/%ff"))


# -- what hostile rules cost -----------------------------------------------------------------------------------


def best_s(work: Callable[[], Any], times: int = 3) -> float:
    """Time on the processor, so that a busy machine does not count."""
    best = 99.0
    for _ in range(times):
        begun = time.thread_time()
        work()
        best = min(best, time.thread_time() - begun)
    return best


@functools.cache
def plain_rules_s() -> float:
    """What one url costs among as many plain rules as a file can hold: the measure of this machine."""
    rules = read_rules("User-agent: *\n" + HOSTILE["plain"](MAX_BYTES))
    hit = URL("http://a.web.test/p1")
    assert rules.verdict(hit) == REFUSED
    return best_s(lambda: rules.verdict(hit), 9)


HOSTILE: dict[str, Callable[[int], str]] = {
    "stars": lambda chars: "Disallow: /" + "*a" * (chars // 2) + "b",
    "wildcards": lambda chars: "\n".join(f"Disallow: /*a{i}" for i in range(chars // 17)),
    "dollars": lambda chars: "\n".join(f"Disallow: /a{i}$" for i in range(chars // 17)),
    "near misses": lambda chars: "\n".join(f"Disallow: /*{'a' * 40}b{'a' * 40}{i}" for i in range(chars // 100)),
    "plain": lambda chars: "\n".join(f"Disallow: /p{i}" for i in range(chars // 16)),
    "lines": lambda chars: "\n" * chars,
    "agents": lambda chars: "User-agent: *\n" * (chars // 14),
    "one word": lambda chars: "Disallow" + " " * chars,
    "digits": lambda chars: "Crawl-delay: " + "9" * chars,
    "percents": lambda chars: "Disallow: /" + "%41" * (chars // 3),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_rules_cost_time_in_proportion_to_their_length(kind: str) -> None:
    def text(chars: int) -> str:
        return "User-agent: *\n" + HOSTILE[kind](chars)

    small, large = text(MAX_BYTES // 16), text(MAX_BYTES)
    # Sixteen times the length may take sixteen times as long, not 256; the floor is for the clock.
    assert best_s(lambda: read_rules(large)) < 64 * max(best_s(lambda: read_rules(small)), 1e-4)
    at = URL("http://a.web.test/" + "a" * 2000)
    rules = read_rules(large)
    rules.verdict(at)
    # Measured: 3 ms for 32,000 plain rules, 7 ms for wildcards, and 80 ms where these are not bounded.
    assert best_s(lambda: rules.verdict(at)) < 8 * plain_rules_s()


def test_past_the_bound_on_wildcards_more_is_heeded_and_never_less() -> None:
    filler = [f"Disallow: /f{i}*" for i in range(MAX_WILDCARD_CHARS // 4)]
    text = "\n".join(["User-agent: *", *filler, "Disallow: /shut/*.jpg", "Allow: /f1/*", "Disallow: *z", "Allow: /ok"])
    rules = read_rules(text)

    def refused(path: str) -> bool:
        return rules.verdict(URL(f"http://a.web.test{path}")) == REFUSED

    assert [refused(path) for path in ("/f2/x", "/shut/a.jpg", "/shut/a.png", "/f1/a", "/anything")] == [True] * 5
    assert not refused("/ok")
    small = "\n".join(["User-agent: *", *filler[:100], "Disallow: /shut/*.jpg", "Allow: /f1/*", "Disallow: *z"])
    assert [judged(small, path) for path in ("/shut/a.png", "/f1/a", "/anything")] == [None, None, None]


# -- what the answer's status says -----------------------------------------------------------------------------


def test_a_host_is_asked_once_and_says_who_asks() -> None:
    seen: list[web.Request] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        await asyncio.sleep(0.05)
        return web.Response(text="User-agent: *\nDisallow: /no\nCrawl-delay: 3")

    async def main() -> None:
        async with up(serve) as world:
            urls = [f"http://a.web.test/{('no', 'yes')[i % 2]}/{i}" for i in range(50)]
            verdicts = await asyncio.gather(*(world.ask(url) for url in urls))
            assert verdicts == [replace(REFUSED, crawl_delay_s=3.0), replace(ALLOWED, crawl_delay_s=3.0)] * 25
            assert [world.robots.known(URL(url)) for url in urls] == verdicts
            assert world.requests == {"a.web.test/robots.txt": 1}

    asyncio.run(main())
    assert (seen[0].headers["User-Agent"], seen[0].headers["Accept-Encoding"]) == ("rs5m-build/test", "identity")
    assert seen[0].path_qs == "/robots.txt"


def test_scheme_host_and_port_make_an_origin() -> None:
    async def main() -> None:
        async with up(reply(404)) as world:
            for url in (
                "http://a.web.test/1?q",
                "http://a.web.test:80/2",
                "http://A.WEB.test/3",
                "http://b.web.test/1",
            ):
                assert await world.ask(url) == ALLOWED
            assert world.requests == {"a.web.test/robots.txt": 1, "b.web.test/robots.txt": 1}
            assert world.robots.known(URL("https://a.web.test/1")) is None
            assert world.robots.known(URL("http://a.web.test:81/1")) is None

    asyncio.run(main())


def test_one_who_gives_up_does_not_take_the_answer_from_the_others() -> None:
    async def serve(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        return web.Response(body=CLOSED)

    async def main() -> None:
        async with up(serve) as world:
            first = asyncio.create_task(world.ask("http://a.web.test/1"))
            second = asyncio.create_task(world.ask("http://a.web.test/2"))
            await asyncio.sleep(0.02)
            first.cancel()
            assert await second == REFUSED
            assert world.requests.total() == 1

    asyncio.run(main())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451, 304, 999])
def test_without_a_robots_txt_everything_is_allowed(status: int) -> None:
    assert asked("http://a.web.test/x", reply(status, b"" if status == 304 else CLOSED)) == ALLOWED


@pytest.mark.parametrize("status", [200, 203, 206])
def test_every_answer_of_success_is_read(status: int) -> None:
    assert asked("http://a.web.test/x", reply(status, CLOSED)) == REFUSED
    assert asked("http://a.web.test/robots.txt", reply(status, CLOSED)) == ALLOWED


@pytest.mark.parametrize("status", [429, 500, 503, 599])
def test_a_server_in_trouble_is_asked_again_after_the_hold(status: int) -> None:
    now = 100.0
    reason = "download.http_429" if status == 429 else "download.http_5xx"
    held = Verdict(reason, f"robots.txt: HTTP status {status}", 0.0)
    statuses = [status, status, 200]

    async def serve(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=statuses.pop(0), body=CLOSED)

    async def main() -> None:
        nonlocal now
        async with up(serve, clock=lambda: now) as world:
            at = URL("http://a.web.test/x")
            for requests in (1, 2):
                for _ in range(5):
                    assert await world.robots.ask(at) == held
                assert world.robots.known(at) == held
                assert world.robots.known(at.with_path("/robots.txt")) == ALLOWED
                assert world.requests.total() == requests
                now += module.HOLD_S
                assert world.robots.known(at) is None
            assert await world.robots.ask(at) == REFUSED
            now += 1e6
            assert world.robots.known(at) == REFUSED
            assert world.requests.total() == 3

    asyncio.run(main())


def test_robots_txt_is_not_asked_for_where_it_is_not_heeded() -> None:
    async def main() -> None:
        limits = replace(LIMITS, consent=Consent(robots=False, headers=True, tdm=True))
        async with up(reply(200, CLOSED), limits=limits) as world:
            assert world.robots.known(URL("http://a.web.test/x")) == ALLOWED
            assert await world.ask("http://a.web.test/x") == ALLOWED
            assert not world.requests

    asyncio.run(main())


def test_the_connection_is_kept_for_the_images() -> None:
    peers: set[Any] = set()

    async def serve(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        status = {"a": 404, "b": 503, "c": 200}[request.host[0]]
        return web.Response(status=status, body=b"<html>" * 500)

    async def main() -> None:
        async with up(serve) as world:
            for host in "abc":
                peers.clear()
                await world.ask(f"http://{host}.web.test/x")
                async with world.robots._session.get(f"http://{host}.web.test/x"):
                    pass
                assert len(peers) == 1

    asyncio.run(main())


# -- failures of the network -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "raw", "reason", "words"),
    [
        ("http://gone.test/", None, "dns", "the name does not exist"),
        ("http://shut.test/", None, "refused", "ECONNREFUSED"),
        ("http://a.raw.test/", bytes_of(), "reset", "the server closed the connection"),
        ("http://a.raw.test/", bytes_of(b"SSH-2.0-x\r\n\r\n"), "reset", "the answer is not HTTP"),
        ("https://a.web.test/", None, "tls", "no secure connection"),
        (
            "http://a.raw.test/",
            bytes_of(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nUser"),
            "short_body",
            "the body",
        ),
        ("http://a.raw.test/", bytes_of(b"", pause_s=3.0), "timeout", "no bytes within read_s"),
        (
            "http://a.raw.test/",
            bytes_of(b"HTTP/1.1 200 OK\r\n\r\n", *[b"U"] * 30, pause_s=0.1),
            "timeout",
            "not complete within connect_s and read_s",
        ),
    ],
)
def test_an_origin_that_cannot_be_reached_is_left_for_later(
    url: str, raw: RawServe | None, reason: str, words: str
) -> None:
    verdict = asked(url, None, raw, connect_s=0.4, read_s=0.3)
    assert verdict.reason == f"download.{reason}"
    assert verdict.detail.startswith(f"robots.txt: {words}")


def test_a_connection_reset_in_the_body_is_left_for_later() -> None:
    async def raw(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nUser")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    assert asked("http://a.raw.test/", None, raw).reason in ("download.short_body", "download.reset")


def test_running_out_of_file_handles_is_not_blamed_on_the_server() -> None:
    def guard(_info: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    async def main() -> None:
        async with up(reply(200), guard=guard) as world:
            with pytest.raises(OSError, match="Too many") as failed:
                await world.ask("http://a.web.test/")
            assert failed.value.errno == errno.EMFILE
            assert world.robots.known(URL("http://a.web.test/")) is None

    asyncio.run(main())


def test_closing_ends_what_is_under_way() -> None:
    async def main() -> None:
        async with up(None, bytes_of(b"", pause_s=3.0)) as world:
            asking = asyncio.create_task(world.ask("http://a.raw.test/"))
            await asyncio.sleep(0.05)
            await world.robots.close()
            with pytest.raises(asyncio.CancelledError):
                await asking

    begun = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - begun < 2.5


# -- redirects -------------------------------------------------------------------------------------------------


async def moving(request: web.Request) -> web.StreamResponse:
    """Each host's robots.txt moves elsewhere: hN over N hops, the others to where their name says."""
    host = request.host.split(".")[0]
    if host.startswith("h") and request.path != "/end":
        left = int(request.query.get("left", host[1:]))
        where = f"/hop?left={left - 1}" if left > 1 else "/end"
        return web.Response(status=(301, 302, 303, 307, 308)[left % 5], headers={"Location": where})
    places = {
        "away": "http://b.web.test/elsewhere.txt",
        "loop": "/robots.txt",
        "ftp": "ftp://b.web.test/robots.txt",
        "broken": "http://[::1",
        "lost": "http://gone.test/robots.txt",
        "inside": "http://127.0.0.1:9/robots.txt?token=7",
    }
    if host in places:
        return web.Response(status=302, headers={"Location": places[host]})
    return web.Response(body=CLOSED)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("h1", REFUSED),
        ("h5", REFUSED),
        ("h6", ALLOWED),
        ("away", REFUSED),
        ("loop", ALLOWED),
        ("ftp", ALLOWED),
        ("broken", ALLOWED),
        ("lost", Verdict("download.dns", "robots.txt: the name does not exist", 0.0)),
    ],
)
def test_redirects(host: str, expected: Verdict) -> None:
    assert asked(f"http://{host}.web.test/x", moving) == expected


def test_what_a_redirect_led_to_holds_for_the_origin_first_asked() -> None:
    async def main() -> None:
        async with up(moving) as world:
            assert await world.ask("http://away.web.test/x") == REFUSED
            assert world.robots.known(URL("http://b.web.test/x")) is None
            assert world.requests == {"away.web.test/robots.txt": 1, "b.web.test/elsewhere.txt": 1}

    asyncio.run(main())


def test_a_redirect_to_a_private_address_is_not_followed_and_leaves_the_urls_for_later() -> None:
    """The first host is let through, as a public one would be; the check then sees the second."""
    strict, lenient, first = guarded_socket(False), guarded_socket(True), True

    def guard(info: Any) -> Any:
        nonlocal first
        make, first = (lenient if first else strict), False
        return make(info)

    now = 100.0
    led = Verdict("download.refused", "robots.txt: redirects to http://127.0.0.1:9: 127.0.0.1 is loopback", 0.0)

    async def main() -> None:
        nonlocal now
        async with up(moving, guard=guard, clock=lambda: now) as world:
            at = URL("http://inside.web.test/x")
            assert await world.robots.ask(at) == led
            assert world.robots.known(at) == led
            now += module.HOLD_S
            assert world.robots.known(at) is None
            assert world.requests == {"inside.web.test/robots.txt": 1}

    asyncio.run(main())


def test_an_origin_at_a_private_address_is_refused_as_its_images_would_be() -> None:
    verdict = asked("http://127.0.0.1/x", moving, limits=replace(LIMITS, allow_private=False))
    assert verdict == Verdict("download.private_address", "robots.txt: 127.0.0.1 is loopback", 0.0)


# -- bodies ----------------------------------------------------------------------------------------------------

FIVE_MB = b"# filler\n" * 600_000
GZIPPED = gzip.compress(CLOSED, mtime=0)


@pytest.mark.parametrize(
    ("body", "encoding", "expected"),
    [
        (b"", "", ALLOWED),
        (b"\xef\xbb\xbf" + CLOSED, "", REFUSED),
        (CLOSED.replace(b"\n", b"\r\n"), "", REFUSED),
        (b"\xff\xfe\x00\n" + CLOSED, "", REFUSED),
        (bytes(range(256)) * 400, "", ALLOWED),
        (b"<!DOCTYPE html><html><body>User-agent: *\nnot here</body></html>" * 30, "", ALLOWED),
        (CLOSED + b"\n" + FIVE_MB, "", REFUSED),
        (FIVE_MB + CLOSED, "", ALLOWED),
        (b"User-agent: *\nDisallow: /" + b"a" * MAX_BYTES, "", ALLOWED),
        (b"User-agent: *\nDisallow: /x\nDisallow: /y/" + b"a" * MAX_BYTES, "", REFUSED),
        (GZIPPED, "gzip", REFUSED),
        (zlib.compress(CLOSED), "deflate", REFUSED),
        (CLOSED, "identity", REFUSED),
        (b"", "gzip", ALLOWED),
        (gzip.compress(CLOSED + b"\n" + bytes(50_000_000), 9, mtime=0), "gzip", REFUSED),
        (GZIPPED + bytes(2_000_000), "gzip", REFUSED),
    ],
)
def test_bodies(body: bytes, encoding: str, expected: Verdict) -> None:
    headers = {"Content_Encoding": encoding} if encoding else {}
    assert asked("http://a.web.test/x", reply(200, body, **headers)) == expected


@pytest.mark.parametrize(
    ("body", "encoding", "words"),
    [
        (CLOSED, "br", "content encoding 'br' was not asked for"),
        (CLOSED, "gzip", "the body is not compressed as its header says"),
        (GZIPPED[:-9], "gzip", "the compressed body ended early"),
    ],
)
def test_a_body_that_cannot_be_read_allows_nothing_yet(body: bytes, encoding: str, words: str) -> None:
    verdict = asked("http://a.web.test/x", reply(200, body, Content_Encoding=encoding))
    assert verdict == Verdict("download.short_body", f"robots.txt: {words}", 0.0)


def test_an_endless_body_is_read_no_further_than_the_bound() -> None:
    sent = 0

    async def raw(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + CLOSED + b"\n")
        while True:
            writer.write(b"# filler\n" * 1000)
            await writer.drain()
            sent += 9000

    assert asked("http://a.raw.test/", None, raw) == REFUSED
    assert sent < 40 * MAX_BYTES  # what the kernel's buffers took included


# -- memory ----------------------------------------------------------------------------------------------------


def test_hosts_with_the_same_file_share_its_rules() -> None:
    async def main() -> None:
        async with up(reply(200, CLOSED)) as world:
            for host in "abc":
                await world.ask(f"http://{host}.web.test/")
            held: set[int] = {id(rules) for rules in world.robots._rules.values()}
            assert (len(world.robots._rules), len(held)) == (3, 1)

    asyncio.run(main())


def test_past_the_bound_on_rules_the_oldest_origin_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HELD_RULES", 4)

    async def serve(request: web.Request) -> web.StreamResponse:
        if request.host.startswith("free"):
            return web.Response(status=404)
        return web.Response(text=f"User-agent: *\nDisallow: /{request.host}\nDisallow: /x")

    async def main() -> None:
        async with up(serve) as world:
            for host in ("free", "a", "b", "c"):
                await world.ask(f"http://{host}.web.test/x")
            known = [world.robots.known(URL(f"http://{host}.web.test/x")) for host in ("free", "a", "b", "c")]
            assert known == [ALLOWED, None, REFUSED, REFUSED]
            assert await world.ask("http://a.web.test/x") == REFUSED
            assert world.requests["a.web.test/robots.txt"] == 2

    asyncio.run(main())


def test_an_origin_without_rules_is_judged_without_reading_its_path() -> None:
    for text in ("", "User-agent: b\nDisallow: /", "User-agent: *\nDisallow:\nAllow: /x\nCrawl-delay: 2"):
        rules = read_rules(text)
        assert isinstance(rules, Rules)
        assert rules.parsed is None

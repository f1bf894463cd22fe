import asyncio
import json
import socket

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver

from pipeline.world.answers import ANSWERS
from pipeline.world.behaviours import EXPECTED, OK
from pipeline.world.errors import WorldError
from pipeline.world.origin import Origin

_BODY = b"\xff\xd8\xff" + bytes(range(200))
_FILES = {"images/a.jpg": _BODY, "images/page.html": b"<html></html>"}


def _url(name: str, host: str = "cdn") -> str:
    return f"http://{host}.rs5m.test/{name}"


_ROUTES = {
    _url("ok.jpg"): {"behaviour": "ok", "file": "images/a.jpg"},
    _url("my%20maps/view?file=a.jpg"): {"behaviour": "ok", "file": "images/a.jpg"},
    _url("slow.jpg"): {"behaviour": "slow", "file": "images/a.jpg", "delay_s": 0.05},
    _url("moved.jpg"): {"behaviour": "redirect", "location": _url("ok.jpg", "cdn"), "status": 302},
    _url("loop.jpg"): {"behaviour": "redirect_loop", "location": _url("loop.jpg"), "status": 302},
    _url("html.jpg"): {"behaviour": "html", "file": "images/page.html", "type": "image/jpeg"},
    _url("flaky.jpg"): {"behaviour": "flaky", "file": "images/a.jpg"},
    _url("busy.jpg"): {"behaviour": "flaky429", "file": "images/a.jpg"},
    _url("empty.jpg"): {"behaviour": "empty"},
    _url("gone.jpg"): {"behaviour": "410"},
    _url("reset.jpg"): {"behaviour": "reset"},
    _url("short.jpg"): {"behaviour": "short_body", "file": "images/a.jpg"},
    _url("drip.jpg"): {"behaviour": "drip", "file": "images/a.jpg"},
    _url("large.jpg"): {"behaviour": "too_large", "file": "images/a.jpg", "bytes": 3 << 20},
    _url("larger.jpg"): {"behaviour": "too_large_undeclared", "file": "images/a.jpg", "bytes": 3 << 20},
}


class _Resolver(AbstractResolver):
    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(self, host, port=0, family=socket.AF_INET):
        del port
        where = {"hostname": host, "host": "127.0.0.1", "port": self._port}
        return [where | {"family": family or socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


def _read(name: str) -> bytes:
    return json.dumps(_ROUTES).encode() if name == "routes.json" else _FILES[name]


async def _get(port: int, url: str, **told) -> tuple[int, bytes, dict[str, str]]:
    connector = aiohttp.TCPConnector(resolver=_Resolver(port), use_dns_cache=False)
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url, **told) as response:
        return response.status, await response.read(), dict(response.headers)


@pytest.fixture(scope="module")
def origin():
    with Origin(_read) as opened:
        yield opened


def _fetch(origin: Origin, url: str, **told) -> tuple[int, bytes, dict[str, str]]:
    return asyncio.run(_get(origin.port, url, **told))


@pytest.mark.parametrize("name", ["ok.jpg", "my%20maps/view?file=a.jpg", "slow.jpg", "moved.jpg"])
def test_images_arrive(origin, name):
    status, body, headers = _fetch(origin, _url(name))
    assert (status, body, headers["Content-Type"]) == (200, _BODY, "image/jpeg")


def test_the_host_counts_and_its_case_does_not(origin):
    assert _fetch(origin, _url("ok.jpg", "CDN"))[0] == 200
    assert _fetch(origin, _url("ok.jpg", "other"))[0] == 404


@pytest.mark.parametrize(("name", "first"), [("flaky.jpg", 503), ("busy.jpg", 429)])
def test_flaky_urls_fail_once_a_server(name, first):
    for _ in range(2):
        with Origin(_read) as opened:
            assert [_fetch(opened, _url(name))[0] for _ in range(3)] == [first, 200, 200]
            assert opened.requests == {_url(name): 3}


def test_other_answers(origin):
    assert _fetch(origin, _url("gone.jpg"))[0] == 410
    assert _fetch(origin, _url("empty.jpg"))[:2] == (200, b"")
    assert _fetch(origin, _url("html.jpg"))[2]["Content-Type"] == "image/jpeg"
    with pytest.raises(aiohttp.TooManyRedirects):
        _fetch(origin, _url("loop.jpg"))
    with pytest.raises(aiohttp.ClientPayloadError):
        _fetch(origin, _url("short.jpg"))
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        _fetch(origin, _url("reset.jpg"))
    with pytest.raises(TimeoutError):
        _fetch(origin, _url("drip.jpg"), timeout=aiohttp.ClientTimeout(total=0.6))


@pytest.mark.parametrize(("name", "declared"), [("large.jpg", True), ("larger.jpg", False)])
def test_large_bodies(origin, name, declared):
    status, body, headers = _fetch(origin, _url(name))
    assert (status, len(body), "Content-Length" in headers) == (200, 3 << 20, declared)
    assert body.startswith(_BODY[:64])


def test_resolve_names_a_server_a_refusal_and_a_missing_name(origin):
    assert origin.resolve[".rs5m.test"] == f"127.0.0.1:{origin.port}"
    assert origin.resolve["nowhere.rs5m.test"] == ""
    address, _, port = origin.resolve["refuses.rs5m.test"].partition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, int(port)), timeout=5)


def test_the_port_is_free_again_afterwards():
    with Origin(_read) as opened:
        port = opened.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_client_that_hangs_on_does_not_hold_the_end_up():
    with Origin(_read) as opened:
        line = f"GET /drip.jpg HTTP/1.1\r\nHost: cdn.rs5m.test:{opened.port}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", opened.port), timeout=5) as caller:
            caller.sendall(line.encode())
            assert caller.recv(12) == b"HTTP/1.1 200"
            opened.__exit__(None, None, None)


def test_an_unreadable_world_and_a_foreign_address_are_one_line():
    def missing(name: str) -> bytes:
        raise FileNotFoundError(name)

    with pytest.raises(WorldError, match=r"routes\.json"), Origin(missing):
        pass
    for bind in ("203.0.113.9", "0.0.0.0"):
        with pytest.raises(WorldError, match=r"world\.bind"), Origin(_read, bind):
            pass


def test_every_behaviour_has_an_answer_and_a_truth():
    unserved = {"refuses", "nowhere"}
    assert set(ANSWERS) | unserved == set(EXPECTED) | set(OK)

"""A web of images on loopback, in a process of its own, for what measures or tortures the downloader.

Urls are ``http://<any host>/<kind>/<number>.jpg``; the kind says how the server behaves (`KINDS`), the number which
image comes: every number has other bytes, always the same ones. Besides, the server has three addresses that are no
web: one accepts connections and never answers, one refuses them, and one lets them hang in connect.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import multiprocessing
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

MEAN_BYTES = 52_000
ROBOTS = b"User-agent: *\nDisallow: /private/\n"
KINDS = ("ok", "gone", "once", "slow", "reset", "short", "busy", "noai", "text", "private", "drip")
"""ok: the image; gone: 404; once: 500 the first time; slow: after `Site.slow_s`; reset: the connection, before an
answer; short: half the body; busy: 503; noai: with a header that says so; text: a page; private: robots.txt forbids
it; drip: a byte a second."""

_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Site:
    """What is served: the images of a folder, after a time; uvloop where it is installed, unless told otherwise."""

    folder: str
    latency_s: float = 0.0
    slow_s: float = 0.5


@dataclass(frozen=True)
class Served:
    """Where the server is, and what it was asked.

    Attributes:
        web: address:port that answers.
        mute: That accepts and never answers.
        shut: That refuses.
        hang: Whose connections are never made.
        loop: The event loop it runs on.
        asked: Requests, robots.txt included.
        forbidden: Requests for what robots.txt forbids.
        run: A number to set: requests of a User-Agent that ends with ``/run-<number>)`` are counted in `by_run`. Tasks
            of a killed run go on asking for a while; so they are told from those of the next.
        by_run: Those requests, of any number that was set.
    """

    web: str
    mute: str
    shut: str
    hang: str
    loop: str
    asked: Any
    forbidden: Any
    run: Any
    by_run: Any


def textured(number: int, mean_bytes: int) -> bytes:
    """Return a JPEG with detail at every scale and grain, 256 to 600 pixels a side where the mean is 52 kB."""
    draw = np.random.default_rng(number)
    width, height = (max(16, int(side * (mean_bytes / MEAN_BYTES) ** 0.5)) for side in draw.integers(256, 601, 2))
    total = draw.standard_normal((height, width, 3), np.float32) * 14
    for cells, weight in ((4, 1.0), (13, 0.6), (47, 0.4), (149, 0.3)):
        coarse = Image.fromarray(draw.integers(0, 256, (cells, cells, 3)).astype(np.uint8))
        total += weight * np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    total = (total - total.min()) / (total.max() - total.min()) * 255
    out = io.BytesIO()
    Image.fromarray(total.astype(np.uint8)).save(out, "JPEG", quality=87)
    return out.getvalue()


def jpegs(count: int, mean_bytes: int = MEAN_BYTES) -> Path:
    """Return a folder of ``count`` distinct JPEGs; it is made once and kept among the temporary files."""
    folder = Path(tempfile.gettempdir(), f"rs5m-bench-jpegs-1-{mean_bytes}")
    folder.mkdir(exist_ok=True)
    missing = [number for number in range(count) if not (folder / f"{number:05d}.jpg").exists()]
    if missing:
        with _SPAWN.Pool(2) as pool:
            found = pool.imap(functools.partial(textured, mean_bytes=mean_bytes), missing, 16)
            for number, body in zip(missing, found, strict=True):
                half = folder / f".{number:05d}"
                half.write_bytes(body)
                half.rename(folder / f"{number:05d}.jpg")
    return folder


def load(folder: str | Path, count: int | None = None) -> list[bytes]:
    """Return the first ``count`` images of a folder, in order of name."""
    return [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))[:count]]


def body_of(pool: list[bytes], number: int) -> bytes:
    """Return the image of a number: one of the pool, made another by a comment in its head."""
    return b"\xff\xd8\xff\xfe\x00\x0a%08d" % number + pool[number % len(pool)][2:]


@contextlib.contextmanager
def serving(site: Site) -> Iterator[Served]:
    """Serve from a process of its own while the block runs."""
    ours, theirs = _SPAWN.Pipe()
    counts = [_SPAWN.Value("q", 0, lock=False) for _ in range(4)]
    process = _SPAWN.Process(target=_serve, args=(theirs, site, counts), daemon=True)
    process.start()
    theirs.close()
    try:
        web, mute, shut, hang, loop = ours.recv()
        yield Served(web, mute, shut, hang, loop, *counts)
    finally:
        ours.close()
        process.join(10)
        if process.is_alive():
            process.kill()


class _Web(asyncio.Protocol):
    """HTTP/1.1 with keep-alive and nothing more."""

    def __init__(self, site: Site, pool: list[bytes], counts: list[Any], seen: set[bytes]) -> None:
        self._site, self._pool, self._seen = site, pool, seen
        self._asked, self._forbidden, self._run, self._by_run = counts
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by class
        self._later = asyncio.get_running_loop().call_later

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
            self._asked.value += 1
            if self._run.value and b"/run-%d)" % self._run.value in head:
                self._by_run.value += 1
            path = head.split(b" ", 2)[1]
            if self._site.latency_s:
                self._later(self._site.latency_s, self._answer, path)
            else:
                self._answer(path)

    def _answer(self, path: bytes) -> None:
        if self._transport.is_closing():
            return
        if path == b"/robots.txt":
            self._send(b"200 OK", ROBOTS, b"Content-Type: text/plain\r\n")
            return
        kind, _, rest = path[1:].decode("ascii", "replace").partition("/")
        number = rest.removesuffix(".jpg")
        if kind not in KINDS or not number.isdigit():
            self._send(b"404 Not Found")
            return
        special: Callable[[bytes, int], None] | None = getattr(self, f"_{kind}", None)
        if special:
            special(path, int(number))
        else:
            self._image(int(number))

    def _send(self, status: bytes, body: bytes = b"", headers: bytes = b"") -> None:
        if not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n" % (status, headers, len(body)) + body)

    def _image(self, number: int, headers: bytes = b"") -> None:
        self._send(
            b"200 OK", body_of(self._pool, number), b'Content-Type: image/jpeg\r\nETag: "%d"\r\n' % number + headers
        )

    def _gone(self, _path: bytes, _number: int) -> None:
        self._send(b"404 Not Found")

    def _busy(self, _path: bytes, _number: int) -> None:
        self._send(b"503 Service Unavailable")

    def _once(self, path: bytes, number: int) -> None:
        if path in self._seen:
            self._image(number)
        else:
            self._seen.add(path)
            self._send(b"500 Internal Server Error")

    def _slow(self, _path: bytes, number: int) -> None:
        self._later(self._site.slow_s, self._image, number)

    def _noai(self, _path: bytes, number: int) -> None:
        self._image(number, b"X-Robots-Tag: noai\r\n")

    def _text(self, _path: bytes, _number: int) -> None:
        self._send(b"200 OK", b"<html><title>Not an image</title></html>" * 20, b"Content-Type: text/html\r\n")

    def _private(self, _path: bytes, number: int) -> None:
        self._forbidden.value += 1
        self._image(number)

    def _reset(self, _path: bytes, _number: int) -> None:
        self._transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self._transport.abort()

    def _short(self, _path: bytes, number: int) -> None:
        body = body_of(self._pool, number)
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body[: len(body) // 2])
        self._transport.close()

    def _drip(self, _path: bytes, number: int) -> None:
        body = body_of(self._pool, number)
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        self._drop(body, 0)

    def _drop(self, body: bytes, at: int) -> None:
        if not self._transport.is_closing() and at < len(body):
            self._transport.write(body[at : at + 1])
            self._later(1.0, self._drop, body, at + 1)


def _serve(pipe: Connection, site: Site, counts: list[Any]) -> None:
    """Serve until the other end of the pipe is closed, or its process is gone."""
    pool = load(site.folder)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: set[bytes] = set()
        web = await loop.create_server(lambda: _Web(site, pool, counts, seen), "127.0.0.1", 0, backlog=4096)
        mute = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, backlog=4096)
        with _shut() as shut, _hanging() as hang:
            ports = [web.sockets[0].getsockname()[1], mute.sockets[0].getsockname()[1], shut, hang]
            pipe.send((*(f"127.0.0.1:{port}" for port in ports), type(loop).__module__.split(".")[0]))
            with contextlib.suppress(EOFError):
                await loop.run_in_executor(None, pipe.recv)

    _run(main)


def _run(main: Callable[[], Any]) -> None:
    """Run on uvloop where it is there: the server shares the machine with what is measured."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())


@contextlib.contextmanager
def _shut() -> Iterator[int]:
    """Hold a port that nobody listens on: connections are refused, and nobody else can take it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextlib.contextmanager
def _hanging() -> Iterator[int]:
    """Hold a port whose queue is full and never emptied: the kernel drops what asks for a connection."""
    with contextlib.ExitStack() as stack:
        held = stack.enter_context(socket.socket())
        held.bind(("127.0.0.1", 0))
        held.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(held.getsockname())
        yield held.getsockname()[1]

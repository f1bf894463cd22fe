"""An S3 server with faults: a reverse proxy in front of moto's server that spoils requests by a seeded schedule.

What it spoils is drawn by seed, operation and a count of requests, so that two runs meet about the same; what it did is
counted, so that a test can show that faults were met. The faults:

``error``      500 InternalError, nothing done
``slow_down``  503 SlowDown, nothing done
``cut``        the connection is reset before the request is carried out
``cut_in``     the same, in the middle of the request's body
``lost``       the request is carried out, and the connection reset instead of an answer
``cut_out``    the answer's body breaks off in the middle
``short``      GET: fewer bytes than the object has, in an answer that is well-formed for them
``conflict``   409 ConditionalRequestConflict to a create-only PUT, nothing done
``stale``      LIST: the objects of ``stale_s`` ago
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import random
import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
FAULTS = {
    "GET": ("error", "slow_down", "cut", "lost", "cut_out", "short"),
    "HEAD": ("error", "slow_down", "cut", "lost"),
    "LIST": ("error", "slow_down", "cut", "lost", "cut_out", "stale"),
    "PUT": ("error", "slow_down", "cut", "cut_in", "lost"),
    "CREATE": ("error", "slow_down", "cut", "cut_in", "lost", "conflict"),
    "DELETE": ("error", "slow_down", "cut", "lost"),
    "COPY": ("error", "slow_down", "cut", "lost"),
    "PART": ("error", "slow_down", "cut", "cut_in", "lost"),
    "MULTIPART": ("error", "slow_down", "cut", "lost"),
}
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "expect", "date", "server"}
_DROPPED = _HOP - {"content-length"}
_ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>{words}</Message><Resource>/</Resource></Error>'


@dataclass
class Schedule:
    """Which request meets which fault.

    Attributes:
        rate: Share of requests that meet one.
        seed: Of the draw.
        only: The faults drawn from; empty: all that an operation can meet.
        operations: The operations spoiled; empty: all.
        script: Faults for the next requests of an operation, first come first; they come before the draw.
        limit: At most so many faults are drawn; -1: no limit.
        stale_s: How far a stale list lies back.
    """

    rate: float = 0.0
    seed: int = 2023
    only: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    script: dict[str, list[str]] = field(default_factory=dict)
    limit: int = -1
    stale_s: float = 1.0

    def fault(self, operation: str, number: int) -> str:
        """Return the fault that the ``number``-th request of an operation meets; empty: none."""
        if waiting := self.script.get(operation):
            return waiting.pop(0)
        if self.limit == 0 or (self.operations and operation not in self.operations):
            return ""
        draw = random.Random(f"{self.seed}:{operation}:{number}")
        known = [fault for fault in FAULTS.get(operation, ()) if not self.only or fault in self.only]
        if not known or draw.random() >= self.rate:
            return ""
        self.limit -= self.limit > 0
        return draw.choice(known)


class FaultyStore:
    """The proxy, in a thread of its own.

    Attributes:
        endpoint: Its URL.
        direct: moto's own, without faults.
        schedule: What is spoiled; may be changed while it runs.
        requests: Requests by operation, spoiled ones included.
        injected: (operation, fault) that were met.
        asked: Requests by operation and path, of lists their prefix.
    """

    def __init__(self, direct: str, schedule: Schedule) -> None:
        self.direct = direct
        self.schedule = schedule
        self.requests: Counter[str] = Counter()
        self.injected: Counter[tuple[str, str]] = Counter()
        self.asked: Counter[tuple[str, str]] = Counter()
        self.endpoint = ""
        self._lists: dict[str, list[tuple[float, int, bytes, dict[str, str]]]] = {}
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stopping: asyncio.Event
        self._thread = threading.Thread(target=self._serve, name="faulty-store", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    def faults(self) -> set[str]:
        """Return the kinds of faults that were met."""
        return {fault for _, fault in self.injected}

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that is to use it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return {**kept, **KEYS, "AWS_ENDPOINT_URL": self.endpoint}

    def client(self) -> Any:
        """Return a boto3 client that meets no faults."""
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.direct, aws_access_key_id="test", aws_secret_access_key="test",
            region_name="us-east-1",
        )  # fmt: skip

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run())
        self._loop.close()

    async def _run(self) -> None:
        self._stopping = asyncio.Event()
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        limit = aiohttp.TCPConnector(limit=16, force_close=True)
        async with aiohttp.ClientSession(auto_decompress=False, connector=limit) as self._session:
            self._ready.set()
            await self._stopping.wait()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        operation = _operation(request)
        self.requests[operation] += 1
        self.asked[operation, request.query.get("prefix", request.path)] += 1
        fault = self.schedule.fault(operation, self.requests[operation])
        if fault:
            self.injected[operation, fault] += 1
        if fault == "cut_in":
            await request.content.read(max(1, (request.content_length or 2) // 2))
        if fault in ("cut", "cut_in"):
            return _reset(request)
        body = await request.read()
        if fault in ("error", "slow_down", "conflict"):
            return _refusal(operation, fault)
        status, answer, headers = await self._carried_out(request, body, operation, stale=fault == "stale")
        if fault == "lost":
            return _reset(request)
        if fault == "short" and status in (200, 206) and len(answer) > 1:
            answer = answer[: len(answer) // 2]
            # The object's size is still told of where a range was asked for, as a proxy that cuts would leave it.
            headers = {name: value for name, value in headers.items() if not name.lower().startswith("x-amz-checksum")}
        if fault == "cut_out" and len(answer) > 1:
            return await _broken_off(request, status, answer, headers)
        if operation == "HEAD":
            return await _head(request, status, headers)
        headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        return web.Response(status=status, body=answer, headers=headers)

    async def _carried_out(
        self, request: web.Request, body: bytes, operation: str, *, stale: bool
    ) -> tuple[int, bytes, dict[str, str]]:
        sent = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        sent["Host"] = request.headers["Host"]
        url, data = URL(self.direct + request.raw_path, encoded=True), io.BytesIO(body) if body else None
        if data:
            sent["Content-Length"] = str(len(body))
        async with self._session.request(request.method, url, data=data, headers=sent) as done:
            answer = await done.read()
            headers = {name: value for name, value in done.headers.items() if name.lower() not in _DROPPED}
            status = done.status
        if operation != "LIST":
            return status, answer, headers
        return self._perhaps_stale(request.raw_path, status, answer, headers, stale=stale)

    def _perhaps_stale(
        self, path: str, status: int, answer: bytes, headers: dict[str, str], *, stale: bool
    ) -> tuple[int, bytes, dict[str, str]]:
        """Keep what a list said, and say what it said ``stale_s`` ago if asked to; before the first: nothing."""
        now, said = time.monotonic(), self._lists.setdefault(path, [])
        old = [kept for kept in said if kept[0] <= now - self.schedule.stale_s]
        said.append((now, status, answer, headers))
        if not stale:
            return status, answer, headers
        if old:
            return old[-1][1:]
        empty = re.sub(rb"<Contents>.*?</Contents>", b"", answer, flags=re.DOTALL)
        return status, re.sub(rb"<KeyCount>\d+", b"<KeyCount>0", empty), headers


def _operation(request: web.Request) -> str:
    query, method = request.query, request.method
    if method == "GET" and ("list-type" in query or "prefix" in query):
        return "LIST"
    if "uploads" in query or (method in ("POST", "DELETE") and "uploadId" in query):
        return "MULTIPART"
    if "uploadId" in query:
        return "PART"
    if method == "PUT" and "x-amz-copy-source" in request.headers:
        return "COPY"
    if method == "PUT" and "If-None-Match" in request.headers:
        return "CREATE"
    return "DELETE" if method == "POST" and "delete" in query else method


def _reset(request: web.Request) -> web.Response:
    if request.transport:
        request.transport.abort()
    return web.Response(status=500)


def _refusal(operation: str, fault: str) -> web.Response:
    status, code, words = {
        "error": (500, "InternalError", "We encountered an internal error. Please try again."),
        "slow_down": (503, "SlowDown", "Please reduce your request rate."),
        "conflict": (409, "ConditionalRequestConflict", "A conflicting conditional operation is in progress."),
    }[fault]
    text = "" if operation == "HEAD" else _ERROR.format(code=code, words=words)
    return web.Response(status=status, text=text, content_type="application/xml")


async def _broken_off(
    request: web.Request, status: int, answer: bytes, headers: Mapping[str, str]
) -> web.StreamResponse:
    response = web.StreamResponse(status=status, headers={**headers, "Content-Length": str(len(answer))})
    await response.prepare(request)
    await response.write(answer[: len(answer) // 2])
    await asyncio.sleep(0.02)
    if request.transport:
        request.transport.abort()
    return response


async def _head(request: web.Request, status: int, headers: Mapping[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(status=status, headers=dict(headers))
    await response.prepare(request)
    return response


@contextmanager
def faulty_store(schedule: Schedule | None = None, bucket: str = "bucket") -> Iterator[FaultyStore]:
    """Run a server with one bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    # What servers of one process hold they hold together: each begins with nothing.
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    proxy = FaultyStore(f"http://{host}:{port}", schedule or Schedule())
    proxy.start()
    try:
        proxy.client().create_bucket(Bucket=bucket)
        yield proxy
    finally:
        proxy.stop()
        server.stop()

"""The server that plays the whole web of a world: one port of this machine, whatever the host name."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from pipeline.world.answers import ANSWERS, Request
from pipeline.world.errors import WorldError

DOMAIN = "rs5m.test"
"""Every host of a world ends in this name; ``test`` is reserved and exists nowhere else."""

_CLOSE_S = 0.1
_START_S = 30.0


class Origin:
    """Serves a world's images while the context is open, from a thread of its own.

    Args:
        read: Returns the bytes of a file of the world by its path relative to the world, e.g. ``routes.json``.
        bind: Address of an interface of this machine. Workers elsewhere need one they can reach; a wildcard is refused
            because it is no address to call.

    Attributes:
        port: Where it listens.
        resolve: What a downloader needs: host suffix to ``address:port``; an empty value is a name that does not
            exist; the longest match wins.
        requests: How often each url was asked for since the context was opened.

    Raises:
        WorldError: On entering: the world cannot be read, or the address not be bound.
    """

    def __init__(self, read: Callable[[str], bytes], bind: str = "127.0.0.1") -> None:
        self.port = 0
        self.resolve: dict[str, str] = {}
        self.requests: Counter[str] = Counter()
        self._read = read
        self._bind = bind
        self._routes: dict[str, dict[str, Any]] = {}
        self._sockets: list[socket.socket] = []
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._failed: OSError | None = None
        self._thread = threading.Thread(target=self._serve, name="origin", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._routes = json.loads(self._read("routes.json"))
        except (OSError, ValueError) as error:
            self._loop.close()
            raise WorldError(
                f"cannot read the world's routes.json: {error}; remove the world, the next run builds it"
            ) from error
        try:
            listening, refusing = self._bound(), self._bound()
        except OSError as error:
            self._close()
            raise WorldError(
                f"cannot serve the world on {self._bind}: {error}; set world.bind to an address of this machine"
            ) from error
        self.port = listening.getsockname()[1]
        # Bound but not listening: nobody else gets the port, and whoever connects is refused.
        self.resolve = {
            f".{DOMAIN}": self._endpoint(listening),
            f"refuses.{DOMAIN}": self._endpoint(refusing),
            f"nowhere.{DOMAIN}": "",
        }
        self._thread.start()
        if not self._started.wait(_START_S) or self._failed:
            self.__exit__(None, None, None)
            raise WorldError(f"the world's server did not start on {self._bind}: {self._failed}; set world.bind")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        self._close()

    def _close(self) -> None:
        for each in self._sockets:
            each.close()
        self._sockets.clear()
        if not self._loop.is_closed():
            self._loop.close()

    def _bound(self) -> socket.socket:
        if self._bind in ("", "0.0.0.0", "::"):  # noqa: S104  it is refused here
            raise OSError("a wildcard is no address that a downloader can call")
        family = socket.AF_INET6 if ":" in self._bind else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        self._sockets.append(made)
        made.bind((self._bind, 0))
        return made

    def _endpoint(self, bound: socket.socket) -> str:
        address = f"[{self._bind}]" if ":" in self._bind else self._bind
        return f"{address}:{bound.getsockname()[1]}"

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)

    async def _run(self) -> None:
        server = web.Server(self._answer, access_log=None, logger=_quiet())
        runner = web.ServerRunner(server, shutdown_timeout=_CLOSE_S)
        await runner.setup()
        try:
            await web.SockSite(runner, self._sockets[0], backlog=1024).start()
        except OSError as error:
            self._failed = error
            self._stop.set()
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        host = request.headers.get("Host", "").partition(":")[0].lower()
        url = f"http://{host}{request.raw_path}"
        self.requests[url] += 1
        route = self._routes.get(url)
        if route is None:
            return web.Response(status=404, text="no such page\n")
        return await ANSWERS[route["behaviour"]](Request(request, route, self._read, self.requests[url]))


def _quiet() -> logging.Logger:
    """Return a logger that says nothing: an answer that a stopped run cuts off is no error of the run."""
    logger = logging.getLogger(__name__)
    logger.setLevel(logging.CRITICAL + 1)
    return logger

"""Servers on loopback in a thread of their own, for tests that call the project's code without an event loop."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Self


class Loopback(abc.ABC):
    """What is up while `serving`; a subclass says what."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._stop: Callable[[], object] = lambda: None

    @abc.abstractmethod
    def up(self) -> AbstractAsyncContextManager[None]:
        """Serve while the context is open."""

    @contextlib.contextmanager
    def serving(self) -> Iterator[Self]:
        """Serve from a thread of its own."""
        thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="loopback")
        thread.start()
        try:
            assert self._ready.wait(10)
            yield self
        finally:
            self._stop()
            thread.join(10)
            assert not thread.is_alive()

    async def _serve(self) -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stopped.set)
        async with self.up():
            self._ready.set()
            await stopped.wait()

"""Decides whose turn it is: hosts interleaved, a cap for each, and nobody holds a slot while waiting."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Host(Generic[T]):
    pending: deque[T] = field(default_factory=deque)
    running: int = 0
    admitted: bool = False
    listed: bool = False  # stands in the ready line
    held_until: float = 0.0
    met: bool = False  # it has answered
    spacing_s: float = 0.0


class Schedule(Generic[T]):
    """Hands items to a fixed number of workers.

    At most `window` hosts are worked on at a time, in turn, and a new one is admitted when one has nothing left:
    connections are used again instead of thousands lying idle. As every host that is not full offers an item,
    a window of at least the number of workers keeps all of them busy. A host that was never heard from is asked one
    item at a time, so that a dead one holds one worker and not `per_host`; one that stalls gives its room to another.
    """

    def __init__(self, window: int, per_host: int, items: int, spacing_s: float = 0.0) -> None:
        """Set the bounds.

        Args:
            window: Hosts worked on at a time.
            per_host: Items under way at a time to one host.
            items: How many calls of `finish` end the work.
            spacing_s: Least time between two items of one host.
        """
        self._window = window
        self._per_host = per_host
        self._spacing_s = spacing_s
        self._left = items
        self._hosts: dict[str, _Host[T]] = {}
        self._fresh: deque[_Host[T]] = deque()
        self._ready: deque[_Host[T]] = deque()
        self._admitted = 0
        self._idle: deque[asyncio.Future[None]] = deque()

    def put(self, name: str, item: T, *, first: bool = False) -> None:
        """Queue an item.

        Args:
            name: The host it is for.
            item: Comes back from `take`.
            first: Before the host's other items, for work that has begun.
        """
        host = self._hosts.setdefault(name, _Host())
        if first:
            host.pending.appendleft(item)
        else:
            host.pending.append(item)
        self._list(host)
        self._wake(1)

    async def take(self) -> T | None:
        """Wait for an item; its host counts one more under way until `done`. None when all work is finished."""
        while self._left:
            host = self._pick()
            if host is not None:
                host.running += 1
                item = host.pending.popleft()
                spacing_s = max(self._spacing_s, host.spacing_s)
                if spacing_s:
                    self._rest(host, spacing_s)
                else:
                    self._list(host)
                return item
            waiter = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter
        return None

    def done(self, name: str) -> None:
        """Give a host's slot back."""
        host = self._hosts[name]
        host.running -= 1
        if host.pending and not host.held_until:
            self._list(host)
        elif not host.running:
            self._leave(name, host)

    def finish(self) -> None:
        """Count one item as settled for good."""
        self._left -= 1
        if not self._left:
            self._wake(len(self._idle))

    def hold(self, name: str, delay_s: float) -> None:
        """Start nothing more for a host for a while; what is under way goes on."""
        self._rest(self._hosts.setdefault(name, _Host()), delay_s)

    def met(self, name: str) -> None:
        """Say that a host answers: from now on it may have `per_host` items under way."""
        host = self._hosts[name]
        if not host.met:
            host.met = True
            if host.pending:
                self._list(host)
                self._wake(self._per_host)

    def has_met(self, name: str) -> bool:
        """Whether a host has answered."""
        return self._hosts[name].met

    def space(self, name: str, spacing_s: float) -> None:
        """Keep the items of a host at least this far apart, from the one on that is under way."""
        host = self._hosts[name]
        if host.spacing_s != spacing_s:
            host.spacing_s = spacing_s
            self._rest(host, spacing_s)

    def set_aside(self, name: str) -> None:
        """Give the room of a host that stalls to another; its next item waits at the end of the line."""
        self._retire(self._hosts[name])
        if self._fresh:
            self._wake(1)

    def is_last(self, name: str) -> bool:
        """Whether nothing more is queued for a host, so that its connection need not be kept."""
        return not self._hosts[name].pending

    def _rest(self, host: _Host[T], delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        host.held_until = max(host.held_until, loop.time() + delay_s)
        loop.call_at(host.held_until, self._release, host)

    def _release(self, host: _Host[T]) -> None:
        # Timers may fire a hair early; a later hold has a timer of its own.
        if asyncio.get_running_loop().time() + 0.001 >= host.held_until:
            host.held_until = 0.0
            self._list(host)
            self._wake(self._per_host)

    def _list(self, host: _Host[T]) -> None:
        """Put a host into the line it belongs to, if it has something to offer and is in none."""
        room = (self._per_host if host.met else 1) - host.running
        if host.listed or not host.pending or room <= 0 or host.held_until:
            return
        host.listed = True
        (self._ready if host.admitted else self._fresh).append(host)

    def _pick(self) -> _Host[T] | None:
        while True:
            if self._fresh and self._admitted < self._window:
                host = self._fresh.popleft()
                host.admitted = True
                self._admitted += 1
            elif self._ready:
                host = self._ready.popleft()
            else:
                return None
            host.listed = False
            if not host.held_until:
                return host
            if not host.running:  # listed before it was held: `_release` lists it again
                self._retire(host)

    def _leave(self, name: str, host: _Host[T]) -> None:
        """Make room for another host, and forget one that nothing is known about."""
        self._retire(host)
        if not host.pending and not host.held_until:
            del self._hosts[name]
        if self._fresh:
            self._wake(1)

    def _retire(self, host: _Host[T]) -> None:
        if host.admitted:
            host.admitted = False
            self._admitted -= 1

    def _wake(self, count: int) -> None:
        while count and self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1

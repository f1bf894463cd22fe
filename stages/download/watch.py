"""The deadlines of all requests under way, looked at together a few times a second.

A timer for each request would cost more than the rest of the bookkeeping. Looked at together they cost nothing a
request, and are late by at most `TICK_S`.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from stages.download.answers import Network

TICK_S = 0.025
"""How often requests are looked at."""

_LATE_S = 0.05

STALL_S = 1.0
"""A request that takes longer gives its place to another, up to a bound: it may well be waiting for a dead server."""

_LEAST_STALL_S = 0.05
_TIMES_AS_LONG = 2.0
_WEIGHT = 0.05  # of one answer in the running mean
"""A server that was never heard from has less time: a few times what answers take here. Of a list of hosts a third may
be dead; at a second each they would hold up a fast network for longer than all the others take."""


class Timing:
    """One request under way, from the look-up of the name to the last byte.

    Attributes:
        clock: The loop's.
        host: Whom it is for.
        asked_s: When the server was asked, loop time; None while names and permissions are looked up, which have
            deadlines of their own.
        heard_s: When it was last heard from, None before its first word.
        until_s: When the answer must be complete.
        expired: What it ran out of, empty while it has not.
        stalled: Whether it gave its place to another.
        met: Whether the host has answered before.
    """

    __slots__ = ("asked_s", "begun_s", "clock", "expired", "heard_s", "host", "met", "stalled", "task", "until_s")

    def __init__(self, host: str, clock: Callable[[], float], *, met: bool) -> None:
        self.host = host
        self.met = met
        self.clock = clock
        self.task = asyncio.current_task()
        self.begun_s = clock()
        self.asked_s: float | None = None
        self.heard_s: float | None = None
        self.until_s = 0.0
        self.expired = ""
        self.stalled = False

    def put_off(self, by_s: float, now: float) -> None:
        """Have begun that much later, but not after now."""
        self.begun_s = min(now, self.begun_s + by_s)
        self.until_s += by_s
        if self.asked_s is not None:
            self.asked_s = min(now, self.asked_s + by_s)
        if self.heard_s is not None:
            self.heard_s = min(now, self.heard_s + by_s)


class Watch:
    """Interrupts requests that are over a deadline, and tells of those that stall."""

    def __init__(self, network: Network, on_stall: Callable[[Timing], bool]) -> None:
        """Set the deadlines.

        Args:
            network: Its connect_s and read_s.
            on_stall: Told of each request that takes longer than it should, again every tick until it returns True.
        """
        self._loop = asyncio.get_running_loop()
        self._read_s = network.read_s
        self._first_s = network.connect_s + network.read_s  # a connection may have to be made first
        self._on_stall = on_stall
        self._under_way: set[Timing] = set()
        self._answers_take_s = STALL_S
        self._due_s = self._loop.time() + TICK_S
        self._timer = self._loop.call_at(self._due_s, self._look)

    def begin(self, host: str, *, met: bool) -> Timing:
        """Watch what the current task does now for a host, which has answered before or has not."""
        timing = Timing(host, self._loop.time, met=met)
        self._under_way.add(timing)
        return timing

    def end(self, timing: Timing) -> None:
        """Watch it no more."""
        self._under_way.discard(timing)
        if timing.heard_s is not None:
            took_s = min(STALL_S, timing.heard_s - timing.begun_s)
            self._answers_take_s += _WEIGHT * (took_s - self._answers_take_s)

    @contextlib.contextmanager
    def asking(self, timing: Timing, within_s: float) -> Iterator[None]:
        """Interrupt the block when the server takes too long.

        Args:
            timing: The request; whoever reads sets its `heard_s`.
            within_s: Longest time until the answer is complete.

        Raises:
            TimeoutError: With what it ran out of.
        """
        timing.asked_s = self._loop.time()
        timing.until_s = timing.asked_s + within_s
        try:
            yield
        except asyncio.CancelledError:
            # As asyncio.timeout does: if somebody else cancelled too, the task is to end.
            if timing.expired and timing.task is not None and timing.task.uncancel() == 0:
                raise TimeoutError(timing.expired) from None
            raise
        finally:
            timing.asked_s = None

    def close(self) -> None:
        """Let go of the timer."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        late_s, self._due_s = now - self._due_s, now + TICK_S
        self._timer = self._loop.call_at(self._due_s, self._look)
        if late_s > _LATE_S:  # the loop was held up, by a disk for instance: that is nobody's fault who is judged here
            for timing in self._under_way:
                timing.put_off(late_s, now)
        patience_s = min(STALL_S, max(_LEAST_STALL_S, _TIMES_AS_LONG * self._answers_take_s))
        for timing in list(self._under_way):
            if timing.asked_s is not None and not timing.expired:
                timing.expired = self._overdue(timing, now)
                if timing.expired and timing.task is not None:
                    timing.task.cancel()
            if not timing.stalled and now - timing.begun_s > (STALL_S if timing.met else patience_s):
                timing.stalled = self._on_stall(timing)

    def _overdue(self, timing: Timing, now: float) -> str:
        if now > timing.until_s:
            return "not complete within total_s"
        if timing.heard_s is None:
            return "no answer within connect_s and read_s" if now - (timing.asked_s or now) > self._first_s else ""
        return "no bytes within read_s" if now - timing.heard_s > self._read_s else ""

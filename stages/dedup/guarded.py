"""`inspected` for bytes that strangers sent: whatever a codec does costs one image, and never the worker.

Images are decoded in a child process that is kept between partitions. They are sent ahead of the answers, so that
reading goes on while it decodes. One that crashes it, takes too long or takes too much memory is tried once more, alone
in a fresh child: only what happens there is the image's own doing. A codec that waits without working would be left to
the partition's deadline; none is known.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from stages.dedup.guarded_frames import FrameError, Request, Status, unpack_found
from stages.dedup.guarded_process import ChildProcess, DiedError, GuardError, child_command, ending

T = TypeVar("T")

_AHEAD_IMAGES = 32
_AHEAD_BYTES = 16 << 20
_ANSWERS = frozenset({Status.SEEN, Status.REFUSED})
_FAULTS = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS}
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one image may take.

    Decoding was seen to map at most 17 bytes a pixel (WEBP), 12 for JPEG (progressive, CMYK) and 11 for the others. The
    rest is for the libraries' own buffers. Pictures a few pixels wide and millions high take more to be resampled.

    Attributes:
        cpu_s: CPU time in seconds; not the clock's, so that a busy machine changes no result.
        base_bytes: Address space, whatever its size.
        pixel_bytes: Address space more for each pixel of `dedup.max_pixels`.
    """

    cpu_s: float = 60.0
    base_bytes: int = 256 << 20
    pixel_bytes: int = 24

    def memory_bytes(self, max_pixels: int) -> int:
        """Return the address space that an image may take, beside four times its own bytes."""
        return self.base_bytes + self.pixel_bytes * max_pixels


class Guarded:
    """Looks at images in child processes, one for each thread that asks at a time; they are kept for whoever is next.

    Args:
        limits: What an image may take.
        command: What is started as a child; the real one if not given.
    """

    def __init__(self, limits: Limits | None = None, command: Sequence[str] | None = None) -> None:
        self._limits = limits or Limits()
        self._command = command
        self._idle: list[ChildProcess] = []
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def __enter__(self) -> Guarded:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def inspect(
        self, images: Iterable[tuple[T, bytes]], kind: str, max_pixels: int
    ) -> Iterator[tuple[T, dict[str, Any]]]:
        """Yield for each image, in order, its tag and what `inspected` returns for its body.

        An image that ended its process, or would have taken more than its limits, is ``dedup.undecodable``.

        Args:
            images: Tags and bodies; up to 32 images or 16 MiB are taken ahead of what is yielded.
            kind: "exact" or "fast", as `dedup.hash`.
            max_pixels: Greatest accepted pixel count.

        Raises:
            GuardError: The child cannot be started, was killed twice from outside at one image, or looking raised.
            MemoryError: The machine's memory did not hold a picture of an accepted size.
        """
        run: _Pass[T] = _Pass(self, self._limits, kind, max_pixels)
        done = False
        try:
            for tag, body in images:
                while run.is_full(len(body)):
                    yield run.answer()
                run.ask(tag, body)
            while run.waiting:
                yield run.answer()
            done = True
        finally:
            run.leave(reusable=done)

    def close(self) -> None:
        """End the children that wait for work."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle if self._owner == os.getpid() else ():
            child.end()

    def take(self) -> ChildProcess:
        """Return a child that waits for work, or a fresh one. Raises GuardError if it cannot be started."""
        with self._lock:
            if self._owner != os.getpid():  # forked: they are the other process's
                self._idle, self._owner = [], os.getpid()
            if self._idle:
                return self._idle.pop()
        return self.fresh()

    def fresh(self) -> ChildProcess:
        """Start a child. Raises GuardError if it cannot be started."""
        return ChildProcess(self._command or child_command())

    def put_back(self, child: ChildProcess) -> None:
        """Keep a child that has answered all it was asked."""
        with self._lock:
            self._idle.append(child)


class _Pass(Generic[T]):
    """One run over images: what was asked and not answered yet, and the child it was asked of."""

    def __init__(self, guarded: Guarded, limits: Limits, kind: str, max_pixels: int) -> None:
        self.waiting: deque[tuple[T, bytes]] = deque()
        self._guarded = guarded
        self._limits = limits
        self._kind = kind
        self._max_pixels = max_pixels
        self._memory_bytes = limits.memory_bytes(max_pixels)
        self._waiting_bytes = 0
        self._child: ChildProcess | None = None

    def is_full(self, more_bytes: int) -> bool:
        over = len(self.waiting) >= _AHEAD_IMAGES or self._waiting_bytes + more_bytes > _AHEAD_BYTES
        return over and bool(self.waiting)

    def ask(self, tag: T, body: bytes) -> None:
        if self._child is None:
            self._child = self._guarded.take()
        self.waiting.append((tag, body))
        self._waiting_bytes += len(body)
        self._send(self._child, body)

    def answer(self) -> tuple[T, dict[str, Any]]:
        """Return the answer to what was asked first."""
        tag, body = self.waiting[0]
        outcome: dict[str, Any] | DiedError | Status
        outcome = self._outcome(self._child) if self._child else DiedError(None)
        found = outcome if isinstance(outcome, dict) else self._alone(body, was_killed=_is_kill(outcome))
        self.waiting.popleft()
        self._waiting_bytes -= len(body)
        if not isinstance(outcome, dict):
            self._ask_again()
        return tag, found

    def leave(self, *, reusable: bool) -> None:
        """Let go of the child: one that may still answer something is of no use to others."""
        if self._child is None:
            return
        if reusable:
            self._guarded.put_back(self._child)
        else:
            self._child.end()
        self._child = None

    def _alone(self, body: bytes, *, was_killed: bool) -> dict[str, Any]:
        """Look at an image in a fresh child that was asked nothing else; the child stays if it lives."""
        kills = int(was_killed)
        while True:
            self.leave(reusable=False)
            self._child = self._guarded.fresh()
            self._send(self._child, body, prompt=True)
            outcome = self._outcome(self._child)
            if isinstance(outcome, dict):
                return outcome
            self.leave(reusable=False)
            if not _is_kill(outcome):
                return {"reason": "dedup.undecodable", "detail": self._blamed(outcome)}
            kills += 1
            if kills > 1:
                raise GuardError(_killed_twice(outcome, len(body)))

    def _ask_again(self) -> None:
        """Ask what is behind once more, promptly: should a child end again, it is known at which image."""
        if self._child is None and self.waiting:
            self._child = self._guarded.fresh()
        for _, body in self.waiting:
            if self._child:
                self._send(self._child, body, prompt=True)

    def _send(self, child: ChildProcess, body: bytes, *, prompt: bool = False) -> None:
        request = Request(self._kind, prompt, self._limits.cpu_s, self._memory_bytes, self._max_pixels, len(body))
        child.send(request.packed(), body)

    def _outcome(self, child: ChildProcess) -> dict[str, Any] | DiedError | Status:
        """Return what a child says of the first image it was asked of, or what became of it."""
        try:
            status, payload = child.receive()
            if status in _ANSWERS:
                return unpack_found(status, payload)
        except DiedError as error:
            return error
        except FrameError:
            return DiedError(None)
        if status is Status.RAISED:
            raise GuardError(f"looking at an image failed: {payload.decode(errors='replace')}")
        if status is Status.SHORT:
            raise MemoryError(
                f"no {self._memory_bytes >> 20} MiB for decoding an image; use fewer workers, or lower dedup.max_pixels"
            )
        return status

    def _blamed(self, outcome: DiedError | Status) -> str:
        if outcome is Status.HOG:
            return f"decoding needed more than {self._memory_bytes >> 20} MiB"
        code = outcome.code if isinstance(outcome, DiedError) else None
        if code is None:
            return "the codec damaged its process"
        if code == -signal.SIGPROF:
            return f"decoding took more than {self._limits.cpu_s:g} s of CPU time"
        if code < 0:
            return f"the codec crashed ({ending(code)})"
        return f"the codec ended its process ({ending(code)})"


def _is_kill(outcome: DiedError | Status | dict[str, Any]) -> bool:
    """Whether a child was ended from outside: the system was out of memory, or somebody sent a signal."""
    if not isinstance(outcome, DiedError) or outcome.code is None or outcome.code >= 0:
        return False
    return -outcome.code not in _FAULTS | {signal.SIGPROF}


def _killed_twice(outcome: DiedError | Status, body_bytes: int) -> str:
    how = ending(outcome.code or 0) if isinstance(outcome, DiedError) else ""
    return (
        f"the process that decodes images was killed from outside ({how}) twice at one image of {body_bytes} bytes: "
        "most likely the machine ran out of memory; use fewer workers, or lower dedup.max_pixels"
    )


_SHARED = Guarded()
atexit.register(_SHARED.close)


def inspect_guarded(
    images: Iterable[tuple[T, bytes]], kind: str, max_pixels: int
) -> Iterator[tuple[T, dict[str, Any]]]:
    """`Guarded.inspect` with this process's own children, which end with it."""
    return _SHARED.inspect(images, kind, max_pixels)

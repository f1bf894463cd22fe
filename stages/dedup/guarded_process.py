"""A child process as its parent sees it: pipes that never block both sides, replies in order, a death with a cause."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from stages.dedup.guarded_frames import FrameError, Status, take_reply

CHILD = "stages.dedup.guarded_child"
_PIPE_BYTES = 1 << 20  # what Linux lets anyone ask for; elsewhere a pipe keeps its size
_READ_BYTES = 1 << 16
_START_S = 120.0
_END_S = 10.0
_PIECES = 64
_ROOT = Path(__file__).resolve().parents[2]
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class GuardError(RuntimeError):
    """The process that decodes images does not work: one line that says what was tried and what to do."""


class DiedError(Exception):
    """The child is dead or no longer in its right mind.

    Attributes:
        code: As of `subprocess.Popen.returncode`: the negative number of a signal, or an exit code; None for a child
            that said what none says.
    """

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


def child_command() -> list[str]:
    """Return how the real child is started. The current folder is not searched for modules (-P).

    Raises:
        GuardError: This Python does not know where it lies.
    """
    if not sys.executable:
        raise GuardError("images are decoded in a process of their own, and sys.executable does not name a Python")
    return [sys.executable, "-P", "-m", CHILD]


class ChildProcess:
    """A child, started and ready.

    Args:
        command: What is started.

    Raises:
        GuardError: It did not start, or never said that it was ready.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._outgoing: deque[memoryview] = deque()
        self._incoming = bytearray()
        with tempfile.TemporaryFile() as said:
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, bufsize=0,
                    env=_environment(), start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise GuardError(
                    f"no process for decoding images: {' '.join(command)} cannot be run: {error}"
                ) from error
            self._to, self._from = _pipes(self._process)
            try:
                self._await_ready(command, said.fileno())
            except BaseException:
                self.end()
                raise

    def send(self, *pieces: bytes) -> None:
        """Send on; what the pipe does not take now goes with later calls."""
        self._outgoing.extend(memoryview(piece) for piece in pieces if piece)
        self._write()

    def receive(self, timeout_s: float | None = None) -> tuple[Status, bytes]:
        """Wait for the next reply.

        Raises:
            DiedError: There will be none.
            TimeoutError: There was none in time.
        """
        while True:
            try:
                found = take_reply(self._incoming)
            except FrameError as error:
                raise DiedError(None) from error
            if found:
                return found
            poll = select.poll()
            poll.register(self._from, select.POLLIN)
            if self._outgoing:
                poll.register(self._to, select.POLLOUT)
            events = dict(poll.poll(None if timeout_s is None else timeout_s * 1000))
            if not events:
                raise TimeoutError
            if self._from in events:
                read = os.read(self._from, _READ_BYTES)
                if not read:
                    raise DiedError(self._exit_code())
                self._incoming += read
            self._write()

    def end(self) -> None:
        """End it: it keeps nothing that is worth a farewell."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._process.wait()

    def _write(self) -> None:
        while self._outgoing:
            try:
                count = os.writev(self._to, list(islice(self._outgoing, _PIECES)))
            except BlockingIOError:
                return
            except BrokenPipeError:  # it is dead: what it answered before is still to be read
                self._outgoing.clear()
                return
            while count:
                first = self._outgoing.popleft()
                if count < len(first):
                    self._outgoing.appendleft(first[count:])
                    break
                count -= len(first)

    def _exit_code(self) -> int:
        """Return how it ended; one that closed its output and lives on is made to."""
        try:
            return self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _await_ready(self, command: Sequence[str], said: int) -> None:
        start, status, why = time.monotonic(), None, ""
        try:
            status, _ = self.receive(_START_S)
        except TimeoutError:
            why = f"said nothing for {time.monotonic() - start:.0f} s"
        except DiedError as error:
            why = "said something else than that it is ready" if error.code is None else f"ended ({ending(error.code)})"
        if status is Status.READY:
            return
        lines = os.pread(said, _READ_BYTES, max(0, os.fstat(said).st_size - _READ_BYTES)).decode(errors="replace")
        last = next((line.strip() for line in reversed(lines.splitlines()) if line.strip()), "and printed nothing")
        raise GuardError(
            f"the process for decoding images {why or 'is not ready'}: {' '.join(command)}: {last[:300]}; run this "
            "command by hand in the environment of the workers to see why"
        )


def ending(code: int) -> str:
    """Return how a process ended, in a word or two: "SIGSEGV", "exit code 1"."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _environment() -> dict[str, str]:
    """Return the child's: it finds the modules that this process finds, wherever they were shipped to."""
    folders = [str(_ROOT), *(folder for folder in sys.path if folder)]
    return {**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(dict.fromkeys(folders))}


def _pipes(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    if process.stdin is None or process.stdout is None:
        raise GuardError("a process without pipes")
    to, back = process.stdin.fileno(), process.stdout.fileno()
    os.set_blocking(to, False)
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):  # this user's pipes hold as much as they may
            fcntl.fcntl(to, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return to, back

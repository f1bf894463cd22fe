"""The process in which strangers' bytes are decoded: started by `guarded_process`, ends when its input does.

`python -m stages.dedup.guarded_child` reads requests from its input and writes one reply for each, in order. Replies
are held back while more requests are at hand, because waking the parent for each costs more than anything else here;
after a prompt request none is. An image that takes too much CPU time ends it by SIGPROF, inside a codec as well. The
bound on memory is on address space and needs Linux's /proc; elsewhere there is none.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from stages.dedup.guarded_frames import Request, Status, pack_found, reply
from stages.picture_files import pillow_warnings_off

Look = Callable[[bytes, str, int], dict[str, Any]]

_READ_BYTES = 1 << 18
_BLOCK_BYTES = 1 << 24  # the bound moves in steps, so that it seldom moves
_GOES_ON = frozenset({Status.SEEN, Status.REFUSED})
_OWN_SIGNALS = (signal.SIGPROF, signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


def serve(look: Look) -> None:
    """Answer requests until there are no more.

    Args:
        look: What is done with a body, as `inspected`.
    """
    Image.init()  # all that Pillow imports is mapped before what is mapped is measured
    channel = _Channel()
    for number in _OWN_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OWN_SIGNALS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    bound = _MemoryBound()
    try:
        channel.reply(Status.READY)
        while raw := channel.read(Request.SIZE):
            request = Request.unpacked(raw)
            status, payload = _answer(look, request, channel, bound)
            channel.reply(status, payload)
            if status not in _GOES_ON:
                break
            if request.prompt:
                channel.flush()
        channel.flush()
    except BrokenPipeError:
        return  # the parent is gone


def _answer(look: Look, request: Request, channel: _Channel, bound: _MemoryBound) -> tuple[Status, bytes]:
    bound.set(request.memory_bytes + _BLOCK_BYTES * -(-4 * request.body_bytes // _BLOCK_BYTES))
    try:
        body = channel.read(request.body_bytes)
        signal.setitimer(signal.ITIMER_PROF, request.cpu_s)
        return pack_found(look(body, request.kind, request.max_pixels))
    except MemoryError:
        pass  # what the image took is let go before it is seen how much there is
    except Exception as error:  # noqa: BLE001  (a process's edge: the parent raises it again as its own)
        return Status.RAISED, f"{type(error).__name__}: {error}"[:2000].encode()
    return (Status.HOG if bound.is_to_be_had(request.memory_bytes) else Status.SHORT), b""


class _Channel:
    """This process's input and output, taken for requests and replies: whatever a codec prints goes nowhere."""

    def __init__(self) -> None:
        self._requests, self._replies = os.dup(0), os.dup(1)
        self._read = bytearray()
        self._held = bytearray()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nowhere, number)
        os.close(nowhere)

    def read(self, length: int) -> bytes:
        """Return so many bytes, or none at the end of input; nothing is held back while it waits for them."""
        while len(self._read) < length:
            self.flush()
            more = os.read(self._requests, max(_READ_BYTES, length - len(self._read)))
            if not more:
                return b""
            self._read += more
        taken = bytes(memoryview(self._read)[:length])
        del self._read[:length]
        return taken

    def reply(self, status: Status, payload: bytes = b"") -> None:
        """Hold a reply back until it is flushed."""
        self._held += reply(status, payload)

    def flush(self) -> None:
        """Write what is held back."""
        while self._held:
            del self._held[: os.write(self._replies, self._held)]


class _MemoryBound:
    """A bound on this process's address space, counted from what is mapped when it is made."""

    def __init__(self) -> None:
        self._before, self._hard = resource.getrlimit(resource.RLIMIT_AS)
        self._set_bytes = 0
        try:
            pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        except (OSError, ValueError):  # no Linux
            self._mapped_bytes = 0
        else:
            self._mapped_bytes = pages * resource.getpagesize()

    def set(self, more_bytes: int) -> None:
        """Let it grow by so much and no more; a lower bound that it was started with stays."""
        if not self._mapped_bytes or more_bytes == self._set_bytes:
            return
        wanted = self._mapped_bytes + more_bytes
        kept = [limit for limit in (self._before, self._hard) if limit != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_AS, (min([wanted, *kept]), self._hard))
        self._set_bytes = more_bytes

    def is_to_be_had(self, more_bytes: int) -> bool:
        """Whether the machine has so much for this process, were there no bound of ours."""
        if self._mapped_bytes:
            resource.setrlimit(resource.RLIMIT_AS, (self._before, self._hard))
        try:
            mmap.mmap(-1, more_bytes).close()  # mapped and never touched
        except OSError:
            return False
        return True


if __name__ == "__main__":
    from stages.dedup.one_image import inspected  # what it takes most of the start for, and `serve` alone does not need

    with pillow_warnings_off():  # once, not for each image
        serve(inspected)

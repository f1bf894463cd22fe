"""A child as `stages.dedup.guarded_child`, except that some bodies tell it what ill to do; run by path."""

import contextlib
import fcntl
import os
import signal
from pathlib import Path

from stages.dedup.guarded_child import serve

kept = []


def killed(name):
    os.kill(os.getpid(), signal.Signals[name])


def killed_once(name, mark):
    if not Path(mark).exists():
        Path(mark).touch()
        killed(name)


def hoard():
    while True:
        kept.append(bytearray(1 << 24))


def babble():
    for descriptor in range(3, 9):  # one of them is for replies
        with contextlib.suppress(OSError):
            os.write(descriptor, b"\xff" * 100)


def noise():
    for descriptor in (1, 2):
        os.write(descriptor, b"libtiff: a warning\n" * 10_000)


def lock(path):
    kept.append(os.open(path, os.O_WRONLY | os.O_CREAT))
    fcntl.flock(kept[-1], fcntl.LOCK_EX)


def fault():
    raise KeyError("a fault of our own")


ILLS = {
    "signal": killed,
    "signal once": killed_once,
    "exit": lambda code: os._exit(int(code)),
    "burn": lambda: sum(range(10**15)),
    "hoard": hoard,
    "poison": lambda: kept.append("poison"),
    "babble": babble,
    "noise": noise,
    "lock": lock,
    "raise": fault,
    "who": lambda: None,
    "nonsense": lambda: {"reason": 5, "detail": ""},
}


def look(body, kind, max_pixels):
    if body.startswith(b"ill:"):
        _, name, *said = body.decode().split(":")
        return ILLS[name](*said) or {"reason": "dedup.undecodable", "detail": f"pid {os.getpid()}"}
    if "poison" in kept:
        killed("SIGSEGV")
    if body.startswith(b"well:"):
        return {"reason": "dedup.undecodable", "detail": body.decode()}
    from stages.dedup.one_image import inspected  # slow, and most tests need none

    return inspected(body, kind, max_pixels)


serve(look)

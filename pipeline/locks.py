"""Locks in the workdir: exclusive create plus a beat that the holder keeps rewriting. Processes are never looked for.

A lock is dead when its beat did not change for `DEAD_BEATS` beats of the waiter's own clock; clocks are not compared.

Overlapping scopes are found by a list, and a list may lag: two that start within the lag may not see each other. So a
lock that came in looks again at its first beats. It is *settling* until `SETTLING_BEATS` looks in a row showed nobody,
and says so in its content. Of two that meet, one that is settling gives way to one that is settled, and of two that are
settling the one with the greater token; neither settles while it sees the other. A list may lag by `LAG_BEATS` beats.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

from manifests.store import AlreadyThereError, Store, StoreError

DEAD_BEATS = 6
LAG_BEATS = 2
SETTLING_BEATS = LAG_BEATS + 1
_SLICE = re.compile(r"(?P<step>[a-z_.]+)\.(?P<index>\d+)of(?P<count>\d+)")


class LockHeldError(Exception):
    """Somebody else works here: says who."""


class Lock:
    """A lock on a scope: ``run`` (everything), ``<step>.<i>of<n>`` (a slice of a map step), or ``world``.

    Args:
        store: The workdir.
        scope: What is locked.
        beat_s: Seconds between beats.
        say: Told when a lock that may be dead is watched, which takes `DEAD_BEATS` beats.
    """

    def __init__(self, store: Store, scope: str, beat_s: float, say: Callable[[str], None]) -> None:
        self._store = store
        self._scope = scope
        self._beat_s = beat_s
        self._say = say
        self._token = secrets.token_hex(8)
        self._stop = threading.Event()
        self._one_at_a_time = threading.Lock()
        self._lost = False
        self._beat = 0
        self._entered = False
        self._quiet_looks = 0
        self._beaten_s = time.monotonic()
        self._thread = threading.Thread(target=self._keep_beating, name="lock-beat", daemon=True)

    @property
    def lost(self) -> bool:
        """Whether another took this lock for dead, or was there first: the holder must stop without another commit.

        After beats that could not be written nobody knows: then the store is asked. Raises StoreError if it is away.
        """
        if not self._lost and time.monotonic() - self._beaten_s > (DEAD_BEATS - 1) * self._beat_s:
            self._beat_once()
        return self._lost

    def __enter__(self) -> Lock:
        self._create()
        self._thread.start()  # it beats while others are watched, so that whoever watches it sees that it lives
        try:
            for path in self._overlapping():
                self._free(path)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if not self._lost and self._is_ours():
            self._store.remove(self._path)

    @property
    def _path(self) -> str:
        return f"locks/{self._scope}.json"

    def _is_ours(self) -> bool:
        held = _read(self._store, self._path)
        return held is not None and held.get("token") == self._token

    @property
    def _is_settled(self) -> bool:
        return self._quiet_looks >= SETTLING_BEATS

    def _content(self) -> bytes:
        holder = {"token": self._token, "beat": self._beat, "beat_s": self._beat_s, "scope": self._scope}
        holder["state"] = "settled" if self._is_settled else "settling" if self._entered else "entering"
        return json.dumps(holder | {"host": socket.gethostname(), "pid": os.getpid()}, sort_keys=True).encode()

    def _create(self) -> None:
        for _ in range(2):
            try:
                self._store.create(self._path, self._content())
            except AlreadyThereError:
                self._free(self._path)
            else:
                return
        raise LockHeldError(f"{self._path} was taken by another run just now; run again when it has ended")

    def _overlapping(self) -> list[str]:
        scopes = [entry.path.removeprefix("locks/").removesuffix(".json") for entry in self._store.find("locks")]
        return [f"locks/{scope}.json" for scope in scopes if scope != self._scope and overlap(scope, self._scope)]

    def _free(self, path: str) -> None:
        """Wait until ``path`` is gone or proven dead, and remove it then. Raises LockHeldError if it is alive."""
        first = _read(self._store, path)
        beat_s = float(str(first.get("beat_s", self._beat_s))) if first else self._beat_s
        holder = f"process {first.get('pid')} on {first.get('host')} ({first.get('scope')})" if first else ""
        if first:
            self._say(f"{path} is held by {holder}; watching its beat for up to {DEAD_BEATS * beat_s:g} s")
        deadline = time.monotonic() + DEAD_BEATS * beat_s
        while time.monotonic() < deadline:
            now = _read(self._store, path)
            if now is None:
                return
            if now != first:
                raise LockHeldError(
                    f"this workdir is in use by {holder}; wait until it ends, or stop it, then run again"
                )
            time.sleep(min(beat_s / 5, 1.0))
        if _read(self._store, path) == first:
            self._store.remove(path)

    def _keep_beating(self) -> None:
        while not self._stop.wait(self._beat_s) and not self._lost:
            try:
                self._beat_once()
            except (OSError, StoreError):
                continue  # a beat that cannot be written is tried again; a waiter allows for several

    def _beat_once(self) -> None:
        with self._one_at_a_time:
            if not self._is_ours():
                self._lost = True
            elif self._entered and not self._is_settled and self._must_give_way():
                self._lost = True
                self._store.remove(self._path)
            else:
                self._beat += 1
                self._store.replace(self._path, self._content())
                self._beaten_s = time.monotonic()

    def _must_give_way(self) -> bool:
        """Look for overlapping locks that no list showed before; one that is entering has yet to look at this one."""
        found = [_read(self._store, path) for path in self._overlapping()]
        others = [other for other in found if other and other.get("state") in ("settling", "settled")]
        if any(other["state"] == "settled" or str(other.get("token")) < self._token for other in others):
            return True
        self._quiet_looks = 0 if others else self._quiet_looks + 1
        return False


def overlap(one: str, other: str) -> bool:
    """Return whether two scopes may not be held at once."""
    if one == "world" or other == "world":
        return one == other
    if one == "run" or other == "run":
        return True
    a, b = _SLICE.fullmatch(one), _SLICE.fullmatch(other)
    if not a or not b or a["step"] != b["step"]:
        return False
    return a["count"] != b["count"] or a["index"] == b["index"]


def _read(store: Store, path: str) -> dict[str, object] | None:
    try:
        return dict(json.loads(store.read(path)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return {}

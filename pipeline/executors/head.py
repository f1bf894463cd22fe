"""Listens to a cluster's head: which nodes it lists, and for how long nothing was heard of it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.executors.attempt import describe
from pipeline.executors.nodes import Node, Nodes

_EVERY_S = 1.0
_DOOR_S = 2.0
PATIENCE_S = 30.0
"""After such a silence the run gives up: half of Ray's own patience, after which Ray ends the process."""


class Head:
    """A thread that asks the head for its nodes, again and again.

    It tries the doors first: Ray itself waits for a minute and then ends the process, traceback and all. An
    answer that does not come, or cannot be used, counts as silence too.

    Args:
        doors: Whose silence ends the run: words for it, and where it listens (HOST:PORT).
        table: Returns its list of nodes.
        nodes: Take it in.
        changed: Told from the thread of nodes that came and of nodes that were lost.

    Attributes:
        missing: Who did not answer when last asked, in words; empty: everybody does.
    """

    def __init__(
        self,
        doors: Mapping[str, str],
        table: Callable[[], Sequence[Mapping[str, Any]]],
        nodes: Nodes,
        changed: Callable[[list[Node], list[Node]], None],
    ) -> None:
        self.missing = ""
        self._doors = doors
        self._table = table
        self._nodes = nodes
        self._changed = changed
        self._heard_s = time.monotonic()
        self._stop = threading.Event()
        nodes.take(table())
        self._thread = threading.Thread(target=self._listen, name="ray-head", daemon=True)
        self._thread.start()

    @property
    def silent_s(self) -> float:
        """For how long nothing was heard."""
        return time.monotonic() - self._heard_s

    @property
    def is_lost(self) -> bool:
        """Whether it has been silent for so long that the run gives up."""
        return self.silent_s > PATIENCE_S

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        self._thread.join(_DOOR_S)

    def _listen(self) -> None:
        while not self._stop.wait(_EVERY_S):
            try:
                self._hear()
            except Exception as error:  # noqa: BLE001  (a thread's edge: whatever Ray raises, the next turn may hear)
                self.missing = f"the head of the Ray cluster ({describe(error)})"

    def _hear(self) -> None:
        self.missing = next((f"{who} at {door}" for who, door in self._doors.items() if not answers(door)), "")
        if self.missing:
            return
        came, lost = self._nodes.take(self._table())
        if came or lost:
            self._changed(came, lost)
        self._heard_s = time.monotonic()


def answers(address: str, timeout_s: float = _DOOR_S) -> bool:
    """Return whether somebody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
    except OSError:
        return False
    return True

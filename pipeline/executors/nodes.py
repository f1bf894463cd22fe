"""The nodes of a cluster as its head lists them: how many tasks they hold, and which came or were lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_OWN = ("node:", "accelerator_type:", "memory", "object_store_memory")  # what Ray lists beside what tasks ask for
DOUBT_S = 90.0
"""How long a node stays lost that the head lists as alive; it finds out within 65 s: 5 tries of 3 s and 10 s each."""
_SLACK = 1e-6  # fractions are sums of floats: ten shares of 0.1 are a whole GPU


@dataclass(frozen=True, slots=True)
class Needs:
    """What one task asks of the node it runs on.

    Attributes:
        step: Whose task it is.
        gpus: Share of a GPU; 0: none.
        resources: Custom resources by name.
    """

    step: str
    gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)

    @property
    def amounts(self) -> dict[str, float]:
        """All that it asks for, by the name Ray has for it; a task is one CPU."""
        return {"CPU": 1.0, **({"GPU": self.gpus} if self.gpus else {}), **self.resources}

    def text(self) -> str:
        """Return it in words, e.g. ``1 CPU, 0.5 GPU``."""
        return words(self.amounts)


@dataclass(frozen=True, slots=True)
class Node:
    """A node that is alive.

    Attributes:
        key: Its id in the cluster.
        address: Where it answers.
        port: Of its Ray process there.
        resources: All that tasks may ask for, by name, whether or not it is in use.
    """

    key: str
    address: str
    port: int
    resources: Mapping[str, float]

    def room(self, needs: Needs) -> int:
        """Return how many tasks it holds at once."""
        return min(int(self.resources.get(name, 0.0) / asked + _SLACK) for name, asked in needs.amounts.items())

    def text(self) -> str:
        """Return its address, and what tells it from others there."""
        return f"{self.address}:{self.port} ({self.key[:8]})"


class Nodes:
    """The nodes as last heard of; read by the driver while a thread of its own takes in what the head lists.

    Args:
        clock: Seconds from any moment on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._doubted: dict[str, float] = {}
        self._alive: dict[str, Node] = {}
        self._known: dict[str, Node] = {}

    def take(self, table: Sequence[Mapping[str, Any]]) -> tuple[list[Node], list[Node]]:
        """Take in a list of nodes; return those that came and those that were lost since the last one.

        Args:
            table: As ``ray.nodes()`` returns it.
        """
        alive = {node.key: node for node in map(_node, table) if node}
        with self._lock:
            # Of a node that a task was lost on, the head may go on saying that it is alive; for long, and it is right.
            now = self._clock()
            self._doubted = {k: since for k, since in self._doubted.items() if k in alive and now - since < DOUBT_S}
            believed = {key: node for key, node in alive.items() if key not in self._doubted}
            came = [node for key, node in believed.items() if key not in self._alive]
            lost = [node for key, node in self._alive.items() if key not in alive]
            self._alive = believed
            self._known |= alive
        return came, lost

    def lose(self, key: str) -> Node | None:
        """Take a node for lost before the head says so, until it has denied that for long; return it the first time."""
        with self._lock:
            if key in self._alive or key in self._doubted:
                self._doubted[key] = self._clock()
            return self._alive.pop(key, None)

    def is_lost(self, key: str) -> bool:
        """Return whether a node was there and is no more."""
        with self._lock:
            return key in self._known and key not in self._alive

    def named(self, key: str) -> Node | None:
        """Return a node, lost ones included."""
        with self._lock:
            return self._known.get(key)

    def room(self, needs: Needs) -> int:
        """Return how many tasks the cluster holds at once; 0: no node can ever do one."""
        with self._lock:
            return sum(node.room(needs) for node in self._alive.values())

    def text(self) -> str:
        """Return what the cluster has, in words."""
        with self._lock:
            nodes = list(self._alive.values())
        names = sorted({name for node in nodes for name in node.resources})
        sums = {name: sum(node.resources.get(name, 0.0) for node in nodes) for name in names}
        largest = max((node.resources.get("CPU", 0.0) for node in nodes), default=0.0)
        return f"{len(nodes)} nodes with {words({'CPU': 0.0, **sums})}, at most {largest:g} CPU on one"


def _node(row: Mapping[str, Any]) -> Node | None:
    if not row.get("Alive"):
        return None
    resources = {name: amount for name, amount in row["Resources"].items() if not name.startswith(_OWN)}
    return Node(row["NodeID"], row["NodeManagerAddress"], int(row["NodeManagerPort"]), resources)


def words(amounts: Mapping[str, float]) -> str:
    """Return amounts of resources in words."""
    return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items())

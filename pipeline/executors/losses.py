"""Tasks that were lost with their node: held back for a moment, so that one event says how many there were."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field

from pipeline.executors.base import Finished, TaskFailure, Tell
from pipeline.executors.nodes import Node, Nodes

_GATHER_S = 1.0  # Ray tells of all tasks of a node within milliseconds
_NODE = re.compile(r"node (?:id|is): ?([0-9a-f]{56})", re.IGNORECASE)


@dataclass(slots=True)
class _Loss:
    node: Node | None
    since_s: float
    tasks: list[Finished] = field(default_factory=list)


class Losses:
    """Nodes that are lost, from the first word of it until it is told."""

    def __init__(self, nodes: Nodes, tell: Tell) -> None:
        self._nodes = nodes
        self._tell = tell
        self._lock = threading.Lock()
        self._gathering: dict[str, _Loss] = {}
        self._told: set[str] = set()

    def gone(self, node: Node) -> None:
        """Take in that the head lists a node no more."""
        self._add(node.key, node, None)

    def back(self, node: Node) -> None:
        """Take in that a node is there, maybe again: if it is lost after that, it is told anew."""
        with self._lock:
            self._told.discard(node.key)

    def add(self, key: str, finished: Finished) -> None:
        """Take in a task that was lost with a node; its key is empty where Ray does not name it."""
        self._nodes.lose(key)
        self._add(key, self._nodes.named(key), finished)

    def due(self) -> list[Finished]:
        """Return the tasks of nodes that nothing more is expected of; each node is told of once."""
        now = time.monotonic()
        with self._lock:
            due = {key: loss for key, loss in self._gathering.items() if now - loss.since_s >= _GATHER_S}
            for key in due:
                del self._gathering[key]
            new = due.keys() - self._told
            self._told |= new
        for key, loss in due.items():
            name = loss.node.text() if loss.node else f"({key[:8] or 'unknown'})"
            for finished in loss.tasks:
                if isinstance(finished.outcome, TaskFailure):
                    finished.outcome.message = f"{finished.spec.name}: its node {name} was lost; done again elsewhere"
            if key in new or loss.tasks:
                self._tell("node_lost", node=name, tasks=len(loss.tasks))
        return [finished for loss in due.values() for finished in loss.tasks]

    def _add(self, key: str, node: Node | None, finished: Finished | None) -> None:
        with self._lock:
            loss = self._gathering.setdefault(key, _Loss(node, time.monotonic()))
            loss.tasks += [finished] if finished else []


def node_in(message: str) -> str:
    """Return the id of the node that one of Ray's errors names; empty if it names none."""
    found = _NODE.search(message)
    return found[1] if found else ""

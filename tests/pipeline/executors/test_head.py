"""Listening to a cluster's head: an answer that cannot be used is silence, and listening goes on."""

from collections.abc import Iterator

import pytest

from pipeline.executors.head import Head
from pipeline.executors.nodes import Node, Nodes
from tests.world_building import wait_for


def _row(key: str) -> dict[str, object]:
    return {"NodeID": key, "Alive": True, "NodeManagerAddress": key, "NodeManagerPort": 7000, "Resources": {"CPU": 1.0}}


class Heard:
    """A head whose answers are set by hand.

    Attributes:
        rows: What it lists.
        broken: Who raises in the listening thread: table, changed or nobody.
        came: Nodes that were told of.
    """

    def __init__(self) -> None:
        self.rows = [_row("a")]
        self.broken = ""
        self.came: list[str] = []
        self.head = Head({}, self._table, Nodes(), self._changed)

    def _table(self) -> list[dict[str, object]]:
        if self.broken == "table":
            raise RuntimeError("an answer of another shape")
        return self.rows

    def _changed(self, came: list[Node], lost: list[Node]) -> None:
        del lost
        if self.broken == "changed":
            raise RuntimeError("nobody takes the event")
        self.came += [node.key for node in came]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    monkeypatch.setattr("pipeline.executors.head._EVERY_S", 0.01)
    made = Heard()
    yield made
    made.head.close()


@pytest.mark.parametrize("broken", ["table", "changed"])
def test_whatever_is_raised_while_listening_is_said_and_the_next_turn_hears(heard: Heard, broken: str) -> None:
    heard.broken = broken
    heard.rows = [_row("a"), _row("b")]
    wait_for(lambda: heard.head.missing.startswith("the head of the Ray cluster (RuntimeError: "), 10)
    heard.broken = ""
    heard.rows = [*heard.rows, _row("c")]
    wait_for(lambda: "c" in heard.came, 10)
    wait_for(lambda: not heard.head.missing and heard.head.silent_s < 1, 10)


def test_answers_that_cannot_be_used_are_silence(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.executors.head.PATIENCE_S", 0.5)
    assert not heard.head.is_lost
    heard.broken = "table"
    wait_for(lambda: heard.head.is_lost, 10)
    assert "an answer of another shape" in heard.head.missing

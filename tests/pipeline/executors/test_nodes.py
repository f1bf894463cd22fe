"""What a cluster holds, by the list its head keeps: nodes that differ, join and are lost; what tasks ask of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.recipe_run import Run
from pipeline.errors import UserError
from pipeline.executors.asking import asking
from pipeline.executors.base import Finished, TaskFailure
from pipeline.executors.losses import Losses, node_in
from pipeline.executors.nodes import DOUBT_S, Needs, Nodes
from pipeline.worker import TaskSpec

_STEPS = ["download.fetch", "outlier.embed"]


def _row(name: str, *, alive: bool = True, **resources: float) -> dict[str, object]:
    beside = {"memory": 1e9, "object_store_memory": 1e8, f"node:{name}": 1.0}
    key = name.encode().hex().ljust(56, "0")
    given = {**resources, **beside} if alive else {}
    return {
        "NodeID": key, "Alive": alive, "NodeManagerAddress": name, "NodeManagerPort": 7000, "Resources": given,
    }  # fmt: skip


def _spec(step: str, device: str = "cpu") -> TaskSpec:
    return TaskSpec(step, "web-0000", {"run.device": device}, {}, final=False)


def test_room_is_counted_by_node() -> None:
    nodes = Nodes()
    nodes.take([_row("a", CPU=3.0), _row("b", CPU=1.0, GPU=2.0), _row("head", CPU=0.0)])
    assert nodes.room(Needs("s")) == 4
    assert nodes.room(Needs("s", 1.0)) == 1
    assert nodes.room(Needs("s", 0.0, {"net": 1.0})) == 0
    assert nodes.text() == "3 nodes with 4 CPU, 2 GPU, at most 3 CPU on one"


@given(st.integers(1, 64), st.integers(0, 8), st.integers(1, 10))
def test_a_share_of_a_gpu_fills_whole_gpus_and_no_more(cpus: int, gpus: int, shares: int) -> None:
    nodes = Nodes()
    nodes.take([_row("a", CPU=float(cpus), GPU=float(gpus))])
    assert nodes.room(Needs("s", 1 / shares)) == min(cpus, gpus * shares)


def test_nodes_come_and_are_lost_once() -> None:
    nodes = Nodes()
    nodes.take([_row("a", CPU=1.0), _row("b", CPU=2.0)])
    came, lost = nodes.take([_row("a", CPU=1.0), _row("b", alive=False), _row("c", CPU=4.0)])
    assert ([n.address for n in came], [n.address for n in lost]) == (["c"], ["b"])
    assert nodes.room(Needs("s")) == 5
    assert nodes.take([_row("a", CPU=1.0), _row("b", alive=False), _row("c", CPU=4.0)]) == ([], [])


def test_a_node_that_a_task_was_lost_on_is_lost_whatever_the_head_still_lists() -> None:
    nodes, rows = Nodes(), [_row("a", CPU=1.0), _row("b", CPU=2.0)]
    nodes.take(rows)
    lost = nodes.lose(str(rows[1]["NodeID"]))
    assert lost
    assert lost.address == "b"
    assert nodes.take(rows) == ([], [])
    assert nodes.room(Needs("s")) == 1
    assert nodes.named(lost.key) == lost
    assert nodes.is_lost(lost.key)
    assert not nodes.is_lost(str(rows[0]["NodeID"]))
    assert not nodes.is_lost("")


def test_a_node_taken_for_lost_by_mistake_is_believed_in_when_the_head_has_listed_it_for_long() -> None:
    now_s = [1000.0]
    nodes, rows = Nodes(lambda: now_s[0]), [_row("a", CPU=1.0), _row("b", CPU=2.0)]
    nodes.take(rows)
    key = str(rows[1]["NodeID"])
    nodes.lose(key)
    now_s[0] += 30
    assert nodes.lose(key) is None  # another task was lost on it: the time begins anew
    now_s[0] += DOUBT_S - 1
    assert nodes.take(rows) == ([], [])
    now_s[0] += 1
    came, lost = nodes.take(rows)
    assert ([node.key for node in came], lost) == ([key], [])
    assert nodes.room(Needs("s")) == 3
    assert not nodes.is_lost(key)
    assert nodes.take(rows) == ([], [])


def test_a_node_taken_for_lost_that_the_head_then_drops_stays_lost() -> None:
    now_s = [0.0]
    nodes, rows = Nodes(lambda: now_s[0]), [_row("a", CPU=1.0), _row("b", CPU=2.0)]
    nodes.take(rows)
    nodes.lose(str(rows[1]["NodeID"]))
    for _ in range(3):
        assert nodes.take([rows[0], _row("b", alive=False)]) == ([], [])
        now_s[0] += DOUBT_S
    assert nodes.room(Needs("s")) == 1


def test_a_lost_node_is_told_once_with_all_its_tasks(monkeypatch) -> None:
    nodes, rows, told = Nodes(), [_row("a", CPU=1.0), _row("b", CPU=2.0)], []
    nodes.take(rows)
    losses, key = Losses(nodes, lambda event, **fields: told.append((event, fields))), str(rows[1]["NodeID"])
    finished = [Finished(_spec("download.fetch"), TaskFailure("node_lost", ""), 1.0) for _ in range(2)]
    for one in finished:
        losses.add(key, one)
    assert losses.due() == []
    monkeypatch.setattr("pipeline.executors.losses._GATHER_S", 0.0)
    assert losses.due() == finished
    assert told == [("node_lost", {"node": f"b:7000 ({key[:8]})", "tasks": 2})]
    assert "its node b:7000 (" in finished[0].outcome.message
    assert losses.due() == []
    node = nodes.named(key)
    assert node
    losses.gone(node)
    losses.due()
    assert len(told) == 1
    losses.back(node)
    losses.gone(node)
    losses.due()
    assert told[1:] == [("node_lost", {"node": node.text(), "tasks": 0})]


def test_rays_words_name_the_node() -> None:
    key = "f65e0d2f0a84f4ba5ce164cc9cfc50447296305c3b3000832a5dc38c"
    assert node_in(f"... is dead or unavailable. Node IP: 127.0.0.3, node ID: {key}. This can happen") == key
    assert node_in("The worker died unexpectedly while executing this task.") == ""


def test_what_tasks_ask_for_is_the_steps_own_or_that_of_all() -> None:
    run = Run(gpu_share=0.25, ray_resources={"download.fetch": {"net": 1}, "*": {"disk": 0.5}}, ray_wait_s=60)
    asked = asking(run, _STEPS)
    assert asked(_spec("download.fetch")).amounts == {"CPU": 1.0, "net": 1.0}
    assert asked(_spec("outlier.embed")).amounts == {"CPU": 1.0, "disk": 0.5}
    assert asked(_spec("outlier.embed", "cuda")).text() == "1 CPU, 0.25 GPU, 0.5 disk"
    assert asked.wait_s == 60


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({"downlod.fetch": {"net": 1}}, "'downlod.fetch' is no step; steps are download.fetch"),
        ({"*": {"GPU": 1}}, "GPU is Ray's own"),
        ({"*": {"net": 1.5}}, r"\* asks for 1.5 net: above one, give a whole number"),
    ],
)
def test_what_ray_could_not_serve_is_refused(resources, says) -> None:
    with pytest.raises(UserError, match=f"^run.ray_resources: .*{says}|^run.ray_resources: {says}"):
        asking(Run(ray_resources=resources), _STEPS)

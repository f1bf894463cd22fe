"""The run's own folder: what it holds, and which run was the newest."""

import json

import fsspec
import pytest

from manifests.recipe_files import load_recipe, parse_recipe
from manifests.store import Store
from pipeline.code_digest import code_digest
from pipeline.events import Events
from pipeline.runs import RunFolder, newest_recipe


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    if request.param == "file":
        yield Store(str(tmp_path / "work"))
        return
    yield Store("memory://rs5m-runs")
    fs = fsspec.filesystem("memory")
    if fs.exists("/rs5m-runs"):
        fs.rm("/rs5m-runs", recursive=True)


def test_recipe_and_environment_are_there_at_once(store):
    recipe = load_recipe("nano", ["dedup.radius=6"])
    folder = RunFolder(store, recipe, ["run", "--recipe", "nano"])
    assert parse_recipe(store.read(f"{folder.path}/recipe.toml").decode(), "test") == recipe
    environment = json.loads(store.read(f"{folder.path}/environment.json"))
    assert environment["arguments"] == ["run", "--recipe", "nano"]
    assert environment["code"] == code_digest()
    assert {"host", "pid", "python", "cpus", "libraries"} <= environment.keys()


def test_events_are_lines_of_json_in_order(store):
    folder, events = RunFolder(store, load_recipe("nano"), []), Events()
    events.listen(folder.listen)
    for number in range(3):
        events("note", text=f"line\n\ud800 {number}")
    folder.flush()
    folder.flush()
    lines = store.read(f"{folder.path}/events.jsonl").decode().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["note"] * 3
    assert [json.loads(line)["text"][-1] for line in lines] == ["0", "1", "2"]


def test_events_are_on_disk_as_they_come(tmp_path):
    store = Store(str(tmp_path))
    folder, events = RunFolder(store, load_recipe("nano"), []), Events()
    events.listen(folder.listen)
    events("note", text="one")
    assert store.read(f"{folder.path}/events.jsonl").count(b"\n") == 1


def test_the_newest_runs_recipe_is_found_even_where_runs_follow_each_other_closely(store):
    assert newest_recipe(store) is None
    for radius in range(10):
        recipe = load_recipe("nano", [f"dedup.radius={radius}"])
        RunFolder(store, recipe, [])
        assert newest_recipe(store) == recipe

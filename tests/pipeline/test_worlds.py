"""Worlds: built once and whole, made again when unfinished, served under their names while a run lasts."""

import json
import urllib.request
from pathlib import Path

import fsspec
import pytest

from manifests.recipe import Recipe
from manifests.recipe_files import load_recipe
from manifests.store import Store
from pipeline.locks import LockHeldError
from pipeline.world.edition import EDITION
from pipeline.world.errors import WorldError
from pipeline.worlds import ensure_world, served, world_facts
from tests.world_building import Workdir


def _quiet(_: str) -> None:
    pass


def test_a_recipe_without_a_world_has_none(tmp_path):
    store, recipe = Store(str(tmp_path)), Recipe(name="real")
    ensure_world(recipe, store, _quiet)
    assert store.find("") == []
    assert world_facts(store) == {}
    with served(recipe, store) as live:
        assert live is recipe


def test_a_world_is_built_once_and_an_unfinished_one_again(tmp_path):
    store, recipe = Store(str(tmp_path)), load_recipe("nano")
    ensure_world(recipe, store, _quiet)
    whole = {entry.path: store.read(entry.path) for entry in store.find("world")}
    said: list[str] = []
    ensure_world(recipe, store, said.append)
    assert said == []
    store.remove("world/world.json")
    store.replace("world/metadata/left-over.tsv", b"half")
    ensure_world(recipe, store, said.append)
    assert {entry.path: store.read(entry.path) for entry in store.find("world")} == whole
    assert store.find("locks") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["locks", "world"]


def test_in_an_object_store_the_last_file_is_the_one_that_says_it_is_whole():
    written: list[str] = []

    class Watched(Store):
        def put(self, local: Path, path: str) -> None:
            written.append(path)
            super().put(local, path)

    try:
        ensure_world(load_recipe("nano"), Watched("memory://rs5m-world"), _quiet)
        assert written[-1] == "world/world.json"
        assert written.count("world/world.json") == 1
    finally:
        fsspec.filesystem("memory").rm("/rs5m-world", recursive=True)


def test_what_is_staged_and_what_is_real_is_told(bare):
    facts = world_facts(Store(str(bare.path)))
    assert set(facts) == {"real", "staged"}
    assert any("generated texture" in line for line in facts["staged"])


def test_the_world_answers_under_its_names_while_it_is_served(bare):
    store = Store(str(bare.path))
    with served(load_recipe("nano", ['download.network.resolve.other="127.0.0.1:1"']), store) as live:
        resolve = live.download.network.resolve
        address = resolve[".rs5m.test"]
        request = urllib.request.Request(f"http://{address}/nothing", headers={"Host": "nowhere.rs5m.test"})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=5)
        caught.value.close()
        assert caught.value.code == 404
    assert address.startswith("127.0.0.1:")
    assert resolve["other"] == "127.0.0.1:1"
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(request, timeout=5)


def test_a_world_that_cannot_be_made_leaves_nothing_that_is_taken_for_one(tmp_path, monkeypatch):
    def fail(kind, folder, say):
        (folder / "metadata").mkdir()
        raise WorldError("no wheels")

    monkeypatch.setattr("pipeline.world.build.build_world", fail)
    store = Store(str(tmp_path))
    with pytest.raises(WorldError):
        ensure_world(load_recipe("nano"), store, _quiet)
    assert store.find("") == []


def test_whoever_builds_it_is_waited_for(tmp_path, monkeypatch):
    store, recipe = Store(str(tmp_path)), load_recipe("nano", ["run.lock_beat_s=0.02"])
    entered: list[int] = []

    class Held:
        """A lock that another run holds until it has built the world."""

        def __init__(self, *_):
            pass

        def __enter__(self):
            entered.append(1)
            if len(entered) == 3:
                store.replace("world/world.json", json.dumps({"edition": EDITION}).encode())
            raise LockHeldError("in use")

        def __exit__(self, *_):
            raise AssertionError

    monkeypatch.setattr("pipeline.worlds.Lock", Held)
    ensure_world(recipe, store, _quiet)
    assert len(entered) == 3
    store.remove("world/world.json")
    entered.clear()
    entered.extend([1, 1, 1])
    monkeypatch.setattr("pipeline.worlds._PATIENCE_S", 0.0)
    with pytest.raises(LockHeldError):
        ensure_world(recipe, store, _quiet)


def test_a_world_of_an_earlier_version_is_named_and_left_alone(settled: Workdir) -> None:
    file = settled.path / "world/world.json"
    about = json.loads(file.read_text("utf-8"))
    del about["edition"]
    file.unlink()  # workdirs share files by hard links
    file.write_text(json.dumps(about), "utf-8")
    with pytest.raises(WorldError, match=r"holds edition 1 of the nano world.*remove the folder, or give another"):
        settled.run()

"""Every setting has a source, a reader and a declaration: none is decoration."""

from __future__ import annotations

from manifests.recipe import Settings
from manifests.recipe_files import known_keys, load_recipe, provenance
from pipeline.line import LINE
from tests.world_building import Workdir

# Read by the driver, not by a step: what to read, where to run; and what `train` is told.
OWN = ("metadata", "attributes", "format", "columns", "header", "keywords", "licence", "credit")  # told by the user
DRIVER = {"name", "sources", "sources.NAME.enabled", *(f"sources.NAME.{key}" for key in OWN)}
DRIVER_TABLES = ("run.", "store.", "world.", "train.", "cluster.")
TABLES = {
    "filter", "download", "download.consent", "download.network", "dedup", "outlier", "outlier.vlm",
    "outlier.detector_cut", "caption", "exclude", "geo", "shard", "run", "store", "world", "train", "cluster",
    "cluster.kubernetes",
}  # fmt: skip


def test_every_key_of_the_papers_recipe_says_where_its_value_comes_from() -> None:
    flat = set(load_recipe("rs5m").flat()) - {"name"}
    said = provenance("rs5m")
    unsaid = {key for key in flat if key not in said and not key.endswith(tuple(f".{own}" for own in OWN))}
    assert unsaid == set()
    assert set(said) - flat == set()
    assert set(said.values()) <= {"paper", "inferred", "ours"}


def test_every_key_is_read_by_a_step_or_by_the_driver() -> None:
    declared = {key for step in LINE for key in (*step.reads, *step.asks)}
    keys = {key for key in known_keys() if not key.startswith(DRIVER_TABLES)} - DRIVER - TABLES
    assert keys - declared == set()
    assert declared - set(known_keys()) == set()


def test_steps_access_what_they_declare_and_nothing_else(fresh: Workdir, monkeypatch) -> None:
    accessed: dict[int, set[str]] = {}
    made: dict[int, dict[str, object]] = {}

    class Recording(dict):
        def __getitem__(self, key):
            accessed.setdefault(id(self), set()).add(key)
            return super().__getitem__(key)

    original = Settings.__init__

    def recording(self, values) -> None:
        recorded = Recording(values)
        made[id(recorded)] = recorded
        original(self, recorded)

    monkeypatch.setattr(Settings, "__init__", recording)
    assert fresh.run().exit_code == 0
    for step in LINE:
        declared = {*step.reads, *step.asks}
        uses = [accessed.get(key, set()) for key, values in made.items() if set(values) == declared]
        assert set().union(*uses) == declared, step.name

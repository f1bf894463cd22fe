"""A run that cannot fit stops before it works, in one line; one that needs little more never does."""

from __future__ import annotations

import time

import pytest

from manifests.recipe_files import load_recipe
from manifests.store import Store
from pipeline.build import planner_over
from pipeline.line import LINE
from pipeline.price import fits as fits_module
from pipeline.price.estimate import needs
from pipeline.price.fits import DoesNotFitError, check_fits, fits
from pipeline.price.machine import Machine, Room, machine_of


@pytest.fixture
def disk(monkeypatch):
    """Say what is free, as statvfs would."""

    def free(free_bytes: int, files: int | None = 10**9) -> None:
        monkeypatch.setattr(fits_module, "room", lambda _: Room(free_bytes, files, 1))

    return free


def test_a_full_disk_stops_a_run_before_it_works(fresh, disk):
    disk(10_000)
    with pytest.raises(DoesNotFitError, match=r"are to be stored, 0\.0 GB are free; free some space"):
        fresh.run()
    assert not (fresh.path / "commits").exists()


def test_inodes_count_as_well(fresh, disk):
    disk(10**12, 10)
    with pytest.raises(DoesNotFitError, match=r"files are to be made, 10 inodes are free"):
        fresh.run()


def test_a_file_system_that_counts_no_inodes_is_not_judged_by_them(fresh, disk):
    disk(10**12, None)
    assert fresh.run("run.workers=1", until="filter").exit_code == 0


def test_what_may_not_fit_is_warned_of_and_run(fresh, disk):
    recipe, store = fresh.recipe(), Store(str(fresh.path))
    planner, _ = planner_over(recipe, store)
    need = sum(n.stored_bytes for n in needs(recipe, store, planner, Machine(1)))
    disk(round(need * 0.8))
    check_fits(recipe, store, planner, LINE, fresh.said.append)
    assert any(line.startswith("warning:") and "are free" in line for line in fresh.said)


def test_a_setting_goes_on_all_the_same(fresh, disk):
    disk(10_000)
    assert fresh.run("run.ignore_space=true", until="filter").exit_code == 0
    assert any("are free" in line for line in fresh.said)


def test_a_settled_build_and_a_changed_cut_are_not_refused_on_a_disk_that_is_nearly_full(settled, disk):
    held = sum(f.stat().st_size for f in settled.path.rglob("*") if f.is_file() and "world" not in f.parts)
    disk(held // 2)
    assert settled.run().exit_code == 0
    assert settled.run("outlier.vlm.keep_top=0.5").exit_code == 0


def test_a_task_larger_than_every_machine_is_named(tmp_path):
    recipe, at = load_recipe("rs5m"), Machine(cores=64, memory_bytes=2 * 10**9)
    store = Store(str(tmp_path))
    found = fits(needs(recipe, store, None, at), recipe, store, at)
    assert any(line.startswith("dedup.cluster: a task needs") and "cluster.memory_gb" in line for line in found.warned)


def test_a_model_without_a_gpu_is_worth_a_word(tmp_path):
    recipe, at = load_recipe("rs5m"), Machine(cores=64)
    store = Store(str(tmp_path))
    found = fits(needs(recipe, store, None, at), recipe, store, at)
    assert any(line.startswith("caption.generate would take") and "GPU" in line for line in found.warned)
    on_gpus = Machine(cores=64, gpus=8)
    assert not any(
        "without a GPU" in line for line in fits(needs(recipe, store, None, on_gpus), recipe, store, at).warned
    )


def test_a_task_that_would_run_into_its_deadline_is_named(tmp_path):
    store, at = Store(str(tmp_path)), Machine(cores=64, gpus=8)

    def warned(*overrides: str) -> list[str]:
        recipe = load_recipe("rs5m", ["run.partition_deadline_s=3600", *overrides])
        return [line for line in fits(needs(recipe, store, None, at), recipe, store, at).warned if "deadline" in line]

    assert [line.split(":")[0] for line in warned()] == ["caption.generate"]
    assert warned("filter.archive_rows=5000") == warned("run.partition_deadline_s=14400") == []


def test_rows_of_ones_own_source_are_no_reason_to_refuse(tmp_path, disk):
    disk(10_000)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"u": "http://a.example/1", "t": "an aerial view"}\n' * 1000)
    recipe = tmp_path / "own.toml"
    recipe.write_text(
        '[recipe]\nname = "own"\n[sources.mine]\nformat = "jsonl"\n'
        f'metadata = ["{rows}"]\ncolumns = {{ url = "u", text = "t" }}\n'
    )
    settings, store = load_recipe(str(recipe)), Store(str(tmp_path / "work"))
    planner, _ = planner_over(settings, store)
    found = fits(needs(settings, store, planner, Machine(1)), settings, store, Machine(1))
    assert not any("to be stored" in line for line in found.refused)


def test_an_object_store_is_priced_and_not_judged(tmp_path):
    recipe, store = load_recipe("rs5m"), Store("memory://price")
    found = fits(needs(recipe, store, None, Machine(1, 1)), recipe, store, Machine(1, 1))
    assert found.places[0].free_bytes is None
    assert not any("to be stored" in line for line in [*found.refused, *found.warned])


def test_a_check_takes_milliseconds(fresh):
    recipe, store = fresh.recipe(), Store(str(fresh.path))
    planner, _ = planner_over(recipe, store)
    planner.plan(LINE[0])
    check_fits(recipe, store, planner, LINE, fresh.said.append)  # reads the table, once a process
    begun = time.process_time()
    check_fits(recipe, store, planner, LINE, fresh.said.append)
    assert time.process_time() - begun < 0.05
    assert fresh.said == []


def test_the_recipe_declares_the_machines(monkeypatch):
    told = ("cluster.cpus=256", "cluster.gpus=8", "cluster.memory_gb=512")
    assert machine_of(load_recipe("rs5m", told)) == Machine(256, 8, 512 * 10**9)
    assert machine_of(load_recipe("rs5m", ["run.workers=3"])).cores == 3

"""Prices: they add up, they follow the rows, and they end where a build is settled."""

from __future__ import annotations

import pytest

from manifests.recipe_files import load_recipe
from manifests.sources import load_sources
from manifests.store import Store
from pipeline.build import planner_over
from pipeline.line import LINE
from pipeline.price.estimate import needs
from pipeline.price.machine import Machine
from pipeline.price.needs import StepNeed
from pipeline.price.text import price_lines, totals
from tests.pipeline.read_commands import ask
from tests.pipeline.recipes_of_ones_own import Build, parquet
from tests.world_building import Workdir

SERVER = Machine(cores=64, gpus=0, memory_bytes=256 * 10**9)
GPUS = Machine(cores=128, gpus=4, memory_bytes=256 * 10**9)


def paper(tmp_path, at: Machine = SERVER, *overrides: str) -> dict[str, StepNeed]:
    """Return the price of the whole RS5M, of whose metadata nothing is at hand."""
    found = needs(load_recipe("rs5m", list(overrides)), Store(str(tmp_path / "none")), None, at)
    return {need.step: need for need in found}


def priced(workdir: Workdir, *overrides: str) -> list[StepNeed]:
    recipe = workdir.recipe(*overrides)
    planner, _ = planner_over(recipe, Store(str(workdir.path)))
    return needs(recipe, Store(str(workdir.path)), planner, Machine(cores=1))


def own(tmp_path, rows: int) -> list[StepNeed]:
    """Return the price over Parquet files of a source that is described."""
    files = [parquet(tmp_path / f"{rows}/{n}.parquet", rows, word=f"h{n}", row_group_size=10_000) for n in range(2)]
    recipe = tmp_path / f"{rows}.toml"
    names = ", ".join(f'"{file}"' for file in files)
    recipe.write_text(f'[recipe]\nname = "own"\n[sources.laion2b]\nmetadata = [{names}]\n')
    settings, store = load_recipe(str(recipe)), Store(str(tmp_path / f"work-{rows}"))
    planner, _ = planner_over(settings, store)
    return needs(settings, store, planner, Machine(cores=1))


def test_the_papers_rows_are_the_published_ones(tmp_path):
    rows = {name: need.rows for name, need in paper(tmp_path).items()}
    assert rows["filter.match"] == sum(s.published.amount for s in load_sources().values() if s.published)
    assert rows["filter.pool"] == rows["download.fetch"] == 6_121_583 + 2_062_377
    assert rows["dedup.inspect"] == 5_244_251 + 2_062_377
    assert rows["outlier.embed"] == 4_019_225 + 2_062_377
    assert rows["caption.generate"] == rows["caption.choose"] == 2_062_377
    assert rows["shard.plan"] == rows["shard.pack"] == 3_007_809 + 2_062_377
    assert paper(tmp_path)["download.fetch"].requests == 6_121_583
    assert paper(tmp_path)["shard.pack"].partitions == 128


def test_the_release_is_about_as_large_as_the_published_one(tmp_path):
    assert 400e9 < paper(tmp_path)["shard.pack"].stored_bytes < 600e9


def test_totals_add_up(tmp_path):
    found = [*paper(tmp_path).values()]
    sums = totals(found, load_recipe("rs5m"))
    assert sums.stored_bytes == sum(need.stored_bytes for need in found)
    assert sums.cpu_s == pytest.approx(sum(need.cpu_s for need in found))
    assert sums.wall_s >= max(need.wall_s for need in found)
    assert sums.memory_bytes == max(need.memory_bytes for need in found)
    assert sums.cost is None


def test_money_is_shown_where_the_recipe_names_prices(tmp_path):
    prices = ("cluster.cpu_hour_cost=0.04", "cluster.gpu_hour_cost=2", "cluster.gb_month_cost=0.02")
    recipe, found = load_recipe("rs5m", prices), [*paper(tmp_path, GPUS).values()]
    sums = totals(found, recipe)
    assert sums.cost == pytest.approx((sums.held_s * 0.04 + sums.gpu_s * 2) / 3600)
    assert sums.cost_a_month == pytest.approx(sums.stored_bytes / 1e9 * 0.02)
    shown = "\n".join(price_lines(found, recipe, Store(str(tmp_path)), GPUS))
    assert "a month" in shown
    assert "cost" not in "\n".join(price_lines(found, load_recipe("rs5m"), Store(str(tmp_path)), GPUS))


def test_twice_the_rows_take_twice_the_hours_and_bytes(tmp_path):
    once, twice = own(tmp_path, 50_000), own(tmp_path, 100_000)
    assert [2 * need.rows for need in once] == pytest.approx([need.rows for need in twice], rel=0.02, abs=4)
    by_rows = [(a.cpu_s, b.cpu_s) for a, b in zip(once, twice, strict=True) if a.partitions == b.partitions]
    for one, two in by_rows:
        assert one <= two <= 2 * one + 1e-6


def test_gpus_take_the_models_from_the_cores(tmp_path):
    alone, helped = paper(tmp_path), paper(tmp_path, GPUS)
    for step in ("outlier.embed", "caption.generate"):
        assert alone[step].gpu_s == 0
        assert alone[step].gpus == 0
        assert helped[step].gpus == load_recipe("rs5m").run.gpu_share
        assert helped[step].gpu_s > 0
        assert helped[step].cpu_s < alone[step].cpu_s
        assert helped[step].wall_s < alone[step].wall_s / 10


def test_more_workers_are_faster_until_something_else_decides(tmp_path):
    few, many = paper(tmp_path, Machine(cores=8)), paper(tmp_path, Machine(cores=4096))
    assert few["dedup.inspect"].wall_s > 5 * many["dedup.inspect"].wall_s
    assert few["dedup.cluster"].wall_s == many["dedup.cluster"].wall_s
    line_s = many["download.fetch"].stored_bytes / 1.25e8
    assert many["download.fetch"].wall_s > 0.5 * line_s


def test_steps_on_assumed_rates_say_so_and_measured_ones_do_not(tmp_path):
    found = paper(tmp_path, GPUS)
    assert "models.blip2" in found["caption.generate"].assumed
    assert "web" in found["download.fetch"].assumed
    assert found["dedup.cluster"].assumed == ()
    shown = price_lines([*found.values()], load_recipe("rs5m"), Store(str(tmp_path)), GPUS)
    assert any(line.startswith("caption.generate*") and "~" in line for line in shown)
    assert any(line.startswith("* rests on assumptions") and "models.blip2" in line for line in shown)


def test_a_settled_build_costs_nothing(settled):
    found = priced(settled)
    assert [need.step for need in found] == [step.name for step in LINE]
    assert all(need.partitions == need.rows == need.stored_bytes == need.files == 0 for need in found)
    assert all(need.cpu_s == need.wall_s == 0 for need in found)
    assert "price: nothing is to do" in ask(settled, "run", "--plan").out


def test_a_changed_cut_costs_what_comes_after_it_alone(settled):
    found = {need.step: need for need in priced(settled, "outlier.vlm.keep_top=0.5")}
    assert all(found[step.name].partitions == 0 for step in LINE[:6])
    assert found["outlier.cut"].partitions == 1
    assert found["shard.pack"].rows > 0
    assert found["download.fetch"].requests == 0


def test_a_new_radius_fetches_nothing_and_scores_nothing_anew(settled):
    found = {need.step: need for need in priced(settled, "dedup.radius=6")}
    assert found["dedup.cluster"].partitions == 1
    assert found["outlier.embed"].is_estimate
    assert found["download.fetch"].requests == 0
    assert found["outlier.embed"].cpu_s < 1


def test_a_plan_is_near_what_the_build_then_took(fresh):
    """Bytes, files and rows within a factor of two; CPU seconds, on a machine that others use too, within eight."""
    before = priced(fresh)
    assert fresh.run().exit_code == 0
    made = fresh.manifests()
    stored = sum(sum(o.bytes for o in m.outputs) + m.ledger.bytes + len(m.to_bytes()) for m in made.values())
    assert stored / 2 < sum(need.stored_bytes for need in before) < stored * 2
    files = sum(1 for part in ("commits", "data", "ledger", "release") for f in (fresh.path / part).rglob("*.*") if f)
    assert files / 2 < sum(need.files for need in before) < files * 2
    rows = {step.name: 0 for step in LINE}
    for name, manifest in made.items():
        rows[name.split("/")[0]] += sum(counts.seen for counts in manifest.rows.values())
    for need in before:
        assert rows[need.step] / 2 - 3 < need.rows < rows[need.step] * 2 + 3, need.step
    took = sum(event["cpu_s"] for event in fresh.events() if event["event"] == "partition_done")
    assert took / 8 < sum(need.cpu_s for need in before) < took * 8


def test_the_plan_as_json_has_the_price(settled, tmp_path):
    told = ask(settled, "run", "--plan", "--json", "--set", "outlier.vlm.keep_top=0.5").json
    price = told["price"]
    assert [step["step"] for step in price["steps"]] == [step["step"] for step in told["steps"]]
    assert price["total"]["stored_bytes"] == sum(step["stored_bytes"] for step in price["steps"])
    assert price["room"][0]["what"] == "workdir"
    assert price["room"][0]["free_bytes"] > 0
    assert ask(Workdir(tmp_path / "none"), "run", "--plan", "--json").json["price"]["steps"] is None


def test_the_command_prices_the_paper_without_its_metadata(tmp_path):
    recipe = tmp_path / "p.toml"
    recipe.write_text('[recipe]\nname = "p"\nextends = "rs5m"\n')
    answer = Build(recipe, tmp_path / "none").call("run", "--plan", "--set", "cluster.cpus=64")
    assert answer.exit_code == 0
    assert "on 64 cores" in answer.out
    assert "~6,121,583" in answer.out
    assert not (tmp_path / "none").exists()

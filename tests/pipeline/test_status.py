from pipeline.line import LINE
from tests.pipeline.read_commands import ask, files_of_rows
from tests.world_building import Workdir


def by_step(answer):
    return {step["step"]: step for step in answer.json["steps"]}


def test_a_settled_build_has_nothing_to_do(built):
    answer = ask(built, "status", "--json")
    assert answer.exit_code == 0
    assert list(by_step(answer)) == [step.name for step in LINE]
    for step in by_step(answer).values():
        assert step["done"] == step["partitions"] > 0
        assert (step["open"], step["todo"], step["why"], step["waits_for"]) == (0, 0, [], [])
    files = files_of_rows(built)
    assert f"filter.match     {files} of {files} done\n" in ask(built, "status").out


def test_a_changed_setting_is_named_with_its_values(built):
    steps = by_step(ask(built, "status", "--json", "--set", "dedup.radius=6"))
    assert steps["dedup.cluster"]["todo"] == 1
    assert steps["dedup.cluster"]["why"] == [
        {"part": "recipe", "key": "dedup.radius", "was": 4, "now": 6, "partitions": 1}
    ]
    assert steps["dedup.inspect"]["done"] == 6
    assert steps["shard.plan"]["waits_for"] == ["dedup.cluster/all"]
    shown = ask(built, "status", "--set", "dedup.radius=6").out
    assert "    recipe dedup.radius was 4, now 6: 1 partition\n" in shown
    assert "    waits for dedup.cluster/all\n" in shown


def test_one_reason_is_counted_over_partitions(built):
    (why,) = by_step(ask(built, "status", "--json", "--set", "dedup.max_pixels=5000"))["dedup.inspect"]["why"]
    assert (why["key"], why["now"], why["partitions"]) == ("dedup.max_pixels", 5000, 6)


def test_what_never_ran_and_what_is_behind_it(fresh):
    steps = by_step(ask(fresh, "status", "--json"))
    files = files_of_rows(fresh)
    assert (steps["filter.match"]["partitions"], steps["filter.match"]["todo"]) == (files, files)
    assert steps["filter.match"]["why"] == [{"part": "new", "key": "", "was": None, "now": None, "partitions": files}]
    assert len(steps["filter.pool"]["waits_for"]) == files
    shown = ask(fresh, "status").out
    assert f"    not run before: {files} partitions\n" in shown
    assert f"and {files - 3} more" in shown


def test_a_damaged_file_is_named(settled):
    ledger = next((settled.path / "ledger/dedup.inspect").iterdir())
    ledger.unlink()
    believed = by_step(ask(settled, "status", "--json"))["dedup.inspect"]
    assert (believed["todo"], believed["why"]) == (0, [])
    (why,) = by_step(ask(settled, "status", "--json", "--files"))["dedup.inspect"]["why"]
    assert why == {"part": "corrupt", "key": str(ledger.relative_to(settled.path)), "was": None, "now": "is gone",
                   "partitions": 1}  # fmt: skip


def test_plan_shows_the_selected_steps_and_changes_nothing(built):
    before = built.listing()
    answer = ask(built, "run", "--plan", "--until", "dedup", "--set", "dedup.radius=6")
    assert answer.exit_code == 0
    assert "recipe dedup.radius was 4, now 6: 1 partition" in answer.out
    assert "shard.plan" not in answer.out
    assert built.listing() == before


def test_plan_for_a_workdir_that_is_not_there_creates_none(tmp_path):
    answer = ask(Workdir(tmp_path / "new"), "run", "--plan")
    assert answer.exit_code == 0
    assert answer.out.startswith("the nano world would be built first; then:\nfilter.match     not known yet\n")
    assert list(tmp_path.iterdir()) == []


def test_plan_over_own_metadata_creates_no_workdir_either(tmp_path):
    metadata = tmp_path / "some.tsv"
    metadata.write_text("an aerial view\thttp://a.test/1.jpg\n")
    recipe = tmp_path / "own.toml"
    recipe.write_text(f'[recipe]\nname = "own"\n\n[sources.cc3m]\nmetadata = ["{metadata}"]\n')
    answer = ask(Workdir(tmp_path / "new"), "run", "--plan", "--recipe", str(recipe))
    assert "not run before: 1 partition\n" in answer.out
    assert not (tmp_path / "new").exists()


def test_an_unknown_stage_is_one_line(built):
    for arguments in (("--plan", "--stage", "nope"), ("--until", "nope")):
        answer = ask(built, "run", *arguments)
        assert answer.exit_code == 2
        assert "no stage or step is called 'nope'" in answer.err

"""What README shows is run: its commands exist, its settings load, its code reads the miniature release."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from manifests.recipe_files import load_recipe

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
MAKEFILE = (Path(__file__).parents[2] / "Makefile").read_text("utf-8")


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)[1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_its_loader_reads_every_training_pair(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build/mini").symlink_to(mini)
    monkeypatch.chdir(tmp_path)
    exec(compile(block("python"), "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    metafile = (mini / "release/metafile/pub11_train_intermediate.csv").read_text("utf-8").splitlines()
    assert len(lines) == len(metafile) - 1 > 200


def test_its_recipe_loads(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(block("toml"))
    recipe = load_recipe(str(file))
    assert recipe.shard.tars_per_split == 32
    assert recipe.sources["cc3m"].metadata == ["/data/cc3m/Train_GCC-training.tsv"]


def test_its_sources_of_ones_own_are_described_in_full(tmp_path: Path) -> None:
    from manifests.source_specs import enabled_specs

    file = tmp_path / "own.toml"
    file.write_text('[recipe]\nname = "own"\n' + re.findall(r"```toml\n(.*?)```", README, re.DOTALL)[1])
    specs = enabled_specs(load_recipe(str(file)))
    assert {key: (spec.format, spec.keywords) for key, spec in specs.items()} == {
        "mine": ("jsonl", "match"),
        "held": ("webdataset", "all"),
    }
    assert (specs["mine"].columns.url, specs["mine"].text) == (("image_url",), ("caption",))


def test_its_commands_and_targets_exist() -> None:
    from pipeline.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    assert set(re.findall(r"^rs5m-build ([\w-]+)", README, re.MULTILINE)) == known
    for target in set(re.findall(r"`?make ([\w-]+)", README)) - {"alone"}:
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_the_counts_it_states_are_the_worlds(mini: Path) -> None:
    import polars as pl

    truth = pl.read_parquet(mini / "world/truth.parquet")
    kinds = dict(truth.filter(pl.col("image").is_not_null()).unique("image").group_by("kind").len().iter_rows())
    assert f"{truth.height:,} metadata rows; {truth['keyword'].sum():,} carry a keyword" in README
    assert f"{kinds['tile']} real overhead tiles and {sum(kinds.values()) - kinds['tile']} other pictures" in README

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from manifests.recipe import Recipe
from manifests.recipe_files import RecipeError, dump_recipe, load_recipe, override_recipe, parse_recipe, shipped_recipes


@pytest.mark.parametrize("name", ["mini", "nano", "rs5m"])
def test_shipped_recipes_load_and_come_back_from_their_own_text(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert parse_recipe(dump_recipe(recipe), "test") == recipe
    assert shipped_recipes() == ["georsclip-b32", "mini", "nano", "rs5m"]


def test_the_training_recipe_belongs_to_the_papers_build() -> None:
    """It trains in the workdir of recipe rs5m, whose name it has, and says the same of all but training."""
    trains, builds = load_recipe("georsclip-b32"), load_recipe("rs5m")
    assert trains.name == "rs5m"
    assert trains.model_copy(update={"train": builds.train}) == builds


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text(), max_size=3))
def test_any_text_survives_the_round_trip(contact: str, resolve: dict[str, str]) -> None:
    network = {"resolve": resolve}
    try:
        recipe = Recipe.model_validate({"name": "x", "download": {"contact": contact, "network": network}})
        text = dump_recipe(recipe).encode("utf-8").decode("utf-8")
    except (UnicodeEncodeError, ValueError):
        return  # lone surrogates are no text that a file can hold
    assert parse_recipe(text, "test") == recipe


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("dedup.radus=4", r"unknown key dedup.radus \(did you mean dedup.radius\?\)"),
        ("dedupe.radius=4", "unknown key dedupe"),
        ("dedup.radius=40", "dedup.radius: Input should be less than or equal to 16"),
        ("dedup.max_pixels=0", "dedup.max_pixels: Input should be greater than or equal to 1"),
        ("dedup=5", "dedup is a table: set one of its keys"),
        ("radius=5", "unknown key radius"),
        ("dedup.radius", "write it as KEY=VALUE"),
        ("dedup.radius.x=4", "radius is a value, not a table"),
        ("dedup.radius=many", "dedup.radius"),
        ('download.media=["svg"]', "download.media"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(override: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        load_recipe("mini", [override])
    assert "\n" not in str(caught.value)


def test_as_many_pixels_as_pillow_opens_and_no_more() -> None:
    bound = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    assert load_recipe("mini", [f"dedup.max_pixels={bound}"]).dedup.max_pixels == bound
    with pytest.raises(RecipeError, match=f"dedup.max_pixels: .* less than or equal to {bound}"):
        load_recipe("mini", [f"dedup.max_pixels={bound + 1}"])


def test_overrides_take_toml_values_and_bare_words() -> None:
    recipe = load_recipe("mini", ["dedup.radius=6", "run.executor=local", "seed=7", 'dedup.order=["*"]'])
    assert (recipe.dedup.radius, recipe.run.executor, recipe.seed, recipe.dedup.order) == (6, "local", 7, ["*"])
    assert override_recipe(recipe, ["dedup.radius=2"]).dedup.radius == 2


def test_a_recipe_of_ones_own_extends_a_shipped_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[recipe]\nname = "mine"\nextends = "mini"\n[dedup]\nradius = 2\n')
    recipe = load_recipe(str(file))
    assert (recipe.name, recipe.dedup.radius, recipe.shard.tars_per_split) == ("mine", 2, 2)


@pytest.mark.parametrize(
    "text",
    ["", "[recipe]\n", "not toml at all", '[recipe]\nname="a"\ndedup=5\n', '[recipe]\nname="a"\nextends="nowhere"\n'],
)
def test_a_file_that_is_no_recipe_is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=r"bad\.toml|nowhere"):
        load_recipe(str(file))


def test_a_missing_recipe_lists_the_shipped_ones() -> None:
    with pytest.raises(RecipeError, match="mini, nano, rs5m"):
        load_recipe("maxi")


def test_a_circle_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "circle.toml"
    file.write_text(f'[recipe]\nname = "circle"\nextends = "{file}"\n')
    with pytest.raises(RecipeError, match="circle"):
        load_recipe(str(file))

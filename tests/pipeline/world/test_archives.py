"""The archives of the worlds, read as a build reads them: they end as the truth says, up to the image store."""

import io
import json

import numpy as np
import polars as pl
import pytest
from PIL import Image

from manifests.recipe_files import load_recipe
from manifests.store import Store
from pipeline.metadata import metadata_slices
from pipeline.world.build import build_world
from stages.decode import DecodeError, decode
from stages.download.fetch import Fetch
from stages.filter.match import Match
from stages.images import Place, read_images
from tests.stages.handing import Handed, perform


@pytest.fixture(scope="module", params=["nano", "mini"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def workdir(kind, tmp_path_factory, request):
    if kind == "mini":
        return request.getfixturevalue("mini_workdir")
    path = tmp_path_factory.mktemp("nano-archives")
    (path / "world").mkdir()
    build_world("nano", path / "world", print)
    return path


@pytest.fixture(scope="module")
def truth(workdir):
    return pl.read_parquet(workdir / "world/truth.parquet").filter(pl.col("file").str.starts_with("archives/"))


@pytest.fixture(scope="module")
def taken(kind, workdir):
    """(matched, fetched) by source."""
    store, recipe = Store(str(workdir)), load_recipe(kind)
    done = {}
    for item in metadata_slices(recipe, store, remember=False):
        if item.source not in ("fmow", "ben", "millionaid"):
            continue
        matched = perform(Match(), Handed(store, {}), params=item.params)
        tables = Handed(store, {("filter.pool", "candidates"): matched.table("candidates").drop("locator")})
        params = {"source": item.source, "archives": recipe.sources[item.source].metadata}
        done[item.source] = matched, perform(Fetch(), tables, partition=f"{item.source}-0000", params=params)
    return done


def test_all_three_sources_are_there(taken):
    assert sorted(taken) == ["ben", "fmow", "millionaid"]


def test_every_image_ends_as_the_truth_says(workdir, truth, taken):
    ended = {}
    for source, (matched, fetched) in taken.items():
        ids = dict(matched.table("candidates").select("sample_id", "locator").iter_rows())
        row_of = {key: int(place.split(":")[1]) for key, place in ids.items()}
        for left in matched.result.ledger.to_dicts():
            ended[source, int(left["locator"].split(":")[1])] = left["reason"]
        ended |= {(source, row_of[left["sample_id"]]): left["reason"] for left in fetched.result.ledger.to_dicts()}
        rows = fetched.table("fetched").to_dicts()
        places = [Place(row["tar"], row["offset"], row["length"], row["sha256"]) for row in rows]
        for index, body in read_images(Store(str(workdir)), places):
            try:
                decode(body, 1_000_000)
                ended[source, row_of[rows[index]["sample_id"]]] = "released"
            except DecodeError as error:
                ended[source, row_of[rows[index]["sample_id"]]] = error.reason
    assert ended == {(row["source"], row["row"]): row["expected"] for row in truth.to_dicts()}


def test_urls_are_those_of_the_truth(truth, taken):
    for source, (matched, _) in taken.items():
        wanted = truth.filter((pl.col("source") == source) & (pl.col("expected") != "filter.bad_row"))
        assert sorted(matched.table("candidates")["url"]) == sorted(wanted["url"])


def test_a_frame_has_the_licence_of_what_it_really_shows(taken, truth):
    shown = truth.filter((pl.col("source") == "fmow") & pl.col("image").is_not_null())
    frame = taken["fmow"][0].table("candidates")
    assert frame.height == shown.height
    assert "fMoW challenge licence" not in frame["licence"].to_list()
    assert all(licence.startswith(("CC0", "MIT")) for licence in frame["licence"].to_list())


def test_frames_have_sidecars_with_and_without_boxes_and_country(kind, taken):
    extras = [json.loads(extra) for extra in taken["fmow"][0].table("candidates")["extra"].to_list()]
    assert {"bounding_boxes" in extra for extra in extras} == {True, False}
    assert {extra["country_code"] for extra in extras} == ({"USA", "XXX"} if kind == "mini" else {"FRA"})
    groups = taken["fmow"][0].table("candidates").group_by("group").len()["len"].to_list()
    assert groups == [2] * (12 if kind == "mini" else 3)


def test_patches_look_like_pictures(workdir, taken):
    rows = taken["ben"][1].table("fetched").to_dicts()
    places = [Place(row["tar"], row["offset"], row["length"], row["sha256"]) for row in rows]
    for _, body in read_images(Store(str(workdir)), places):
        with Image.open(io.BytesIO(body)) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert (pixels == 255).mean() < 0.05
        assert pixels.std() > 5

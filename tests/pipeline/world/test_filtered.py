"""The metadata of the worlds, read as a build reads them: filter ends the rows that the truth says it ends."""

import polars as pl
import pytest

from manifests.identity import locator
from manifests.recipe_files import load_recipe
from manifests.sources import PUB11
from manifests.store import Store
from pipeline.metadata import metadata_slices
from pipeline.world.build import build_world
from stages.filter.match import Match
from tests.stages.handing import Handed, perform


@pytest.fixture(scope="module", params=["nano", "mini"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def workdir(kind, tmp_path_factory, request):
    if kind == "mini":
        return request.getfixturevalue("mini_workdir")
    path = tmp_path_factory.mktemp("nano-filtered")
    (path / "world").mkdir()
    build_world("nano", path / "world", print)
    return path


@pytest.fixture(scope="module")
def truth(workdir):
    truth = pl.read_parquet(workdir / "world/truth.parquet").filter(pl.col("source").is_in(PUB11))
    # Which of two equal rows leaves is for filter.pool.
    return truth.filter(pl.col("expected") != "filter.repeated_row")


@pytest.fixture(scope="module")
def matched(kind, workdir):
    """(slice, what filter.match made of it) of every metadata file."""
    store = Store(str(workdir))
    slices = metadata_slices(load_recipe(kind), store, remember=False)
    web = [item for item in slices if item.source in PUB11]
    return [(item, perform(Match(), Handed(store, {}), params=item.params)) for item in web]


def test_every_file_of_every_source_is_read(workdir, matched, truth):
    assert {item.source for item, _ in matched} == set(PUB11)
    assert {str(item.params["uri"]) for item, _ in matched} == {f"world/{file}" for file in truth["file"].unique()}


def test_every_row_ends_as_the_truth_says(matched, truth):
    digests = {str(item.params["uri"]).removeprefix("world/"): item.digest for item, _ in matched}
    told = {locator(digests[row["file"]], row["row"]): row for row in truth.to_dicts()}
    left = {row["locator"]: row["reason"] for _, made in matched for row in made.result.ledger.to_dicts()}
    kept = {row["locator"]: row for _, made in matched for row in made.table("candidates").to_dicts()}
    kept = {place: row for place, row in kept.items() if place in told}
    at_filter = {p: row["expected"] for p, row in told.items() if row["expected"].startswith("filter.")}
    assert left == {p: reason for p, reason in at_filter.items() if reason != "filter.no_keyword"}
    assert set(kept) == set(told) - set(at_filter)
    assert {place: row["url"] for place, row in kept.items()} == {place: told[place]["url"] for place in kept}


def test_what_only_one_source_says_arrives(kind, matched):
    rows = pl.concat([made.table("candidates") for _, made in matched])
    photos = rows.filter(pl.col("source") == "yfcc14m").drop_nulls(["lon", "lat", "taken_at"])
    assert photos.height >= (3 if kind == "nano" else 11)
    labelled = rows.filter((pl.col("source") == "cc3m") & pl.col("tags").is_not_null())
    assert labelled.height == (0 if kind == "nano" else 6)
    assert labelled["tags"].explode().struct.field("prob").is_between(0.6, 1).all()

import json
from hashlib import sha256
from pathlib import Path

import imagehash
import polars as pl
import pytest
from PIL import Image

from pipeline.world.build import build_world
from pipeline.world.draft import SOURCES
from pipeline.world.errors import WorldError


def _build(folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    build_world("nano", folder, print)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worlds") / "nano"
    _build(folder)
    return folder


def test_two_builds_are_byte_equal(tmp_path):
    assert _build(tmp_path / "one") == _build(tmp_path / "two")


def test_world_json_names_every_other_file(nano):
    about = json.loads((nano / "world.json").read_text())
    found = {
        str(path.relative_to(nano)): sha256(path.read_bytes()).hexdigest() for path in nano.rglob("*") if path.is_file()
    }
    found.pop("world.json")
    assert about["digests"] == found
    assert (about["format"], about["kind"], about["real"]) == (1, "nano", [])
    assert any("generated" in line for line in about["staged"])


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(WorldError, match="not empty"):
        build_world("nano", tmp_path, print)


def test_it_is_small_and_holds_all_its_sources_and_the_fast_behaviours(nano):
    truth = pl.read_parquet(nano / "truth.parquet")
    assert 130 <= truth.height <= 150
    sources = truth["source"].unique(maintain_order=True).to_list()
    assert (sources[:-3], sorted(sources[-3:])) == (list(SOURCES), ["ben", "fmow", "millionaid"])
    behaviours = {route["behaviour"] for route in json.loads((nano / "routes.json").read_text()).values()}
    assert {"404", "redirect", "html", "empty", "truncated_file", "flaky", "always500", "drip"} <= behaviours
    assert {"download.refused", "download.dns", "cluster", "released"} <= set(truth["expected"])
    assert {"url", "bytes", "near"} == set(truth["proof"].drop_nulls())


def test_textures_are_far_apart(nano):
    hashes = []
    for path in sorted((nano / "images").glob("texture-??.*")):
        with Image.open(path) as image:
            hashes.append(imagehash.phash(image))
    assert len(hashes) == 20
    assert min(left - right for i, left in enumerate(hashes) for right in hashes[:i]) >= 10

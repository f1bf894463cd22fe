import json
import re

import numpy as np
import polars as pl
import pytest

from manifests.sources import load_sources
from manifests.store import Store
from pipeline.commands_read import show_report
from pipeline.errors import UserError
from pipeline.outlier_page import recut_lines
from pipeline.recut import recut, recut_document
from stages.detector import save_detector
from stages.nano_encoder import NanoEncoder

NANO = ('outlier.encoder="nano"', 'outlier.detector="nano"')
LOOSE = ("outlier.vlm.keep_top=0.95", "outlier.detector_cut.keep_top=1.0")


@pytest.fixture(scope="module")
def scored(bare, tmp_path_factory):
    """A nano build up to and including the cut; copy it, never run in it."""
    workdir = bare.copy(tmp_path_factory.mktemp("scored") / "work")
    assert workdir.run(*NANO, until="outlier").exit_code == 0
    return workdir


@pytest.fixture
def no_encoder(monkeypatch):
    """An encoder that must not be called."""

    def called(*_):
        raise AssertionError("the encoder was called")

    monkeypatch.setattr(NanoEncoder, "bodies", called)
    monkeypatch.setattr(NanoEncoder, "texts", called)


def document(workdir, *overrides):
    return recut_document(workdir.recipe(*NANO, *overrides), Store(str(workdir.path)))


def pool(workdir):
    """The scores of web rows."""
    survivors = workdir.table("dedup.cluster", "survivors", *NANO)
    web = [source for source, spec in load_sources().items() if spec.subset == "pub11"]
    scores = workdir.table("outlier.embed", "scores", *NANO).join(survivors, on="sample_id")
    return scores.filter(pl.col("source").is_in(web))


def test_a_dry_run_shows_what_a_real_one_gives_and_writes_nothing(scored, tmp_path, no_encoder):
    before = scored.listing()
    shown = document(scored, *LOOSE)
    assert scored.listing() == before
    real = scored.copy(tmp_path / "real")
    assert real.run(*NANO, *LOOSE, stage="outlier.cut").exit_code == 0
    manifest = real.manifests(*NANO, *LOOSE)["outlier.cut/all"]
    assert shown["cuts"] == {"vlm": manifest.facts["vlm_cut"], "detector": manifest.facts["detector_cut"]}
    assert shown["pool_rows"] == manifest.facts["pool_rows"] == pool(scored).height
    rows = {row["source"]: row for table in shown["funnel"].values() for row in table["rows"]}
    for source, books in manifest.rows.items():
        assert rows[source]["outlier"] == books.left
        assert rows[source]["remain"] == books.kept
    web = [row["source"] for row in shown["funnel"]["pub11"]["rows"]]
    assert shown["kept_rows"] == sum(books.kept for source, books in manifest.rows.items() if source in web)
    assert all(books.left == 0 for source, books in manifest.rows.items() if source not in web)
    dropped = {}
    for books in manifest.rows.values():
        for reason, count in books.dropped.items():
            dropped[reason.removeprefix("outlier.")] = dropped.get(reason.removeprefix("outlier."), 0) + count
    assert {reason: rows for reason, rows in shown["reasons"].items() if rows} == dropped


def test_the_funnel_stands_on_what_is_committed(scored):
    total = document(scored, *LOOSE)["funnel"]["pub11"]["total"]
    assert total["download"] - total["invalid"] - total["duplicate"] - total["outlier"] == total["remain"]
    assert total["outlier"] > 0
    assert total["other"] is None


def test_the_heat_map_is_of_the_stored_scores(scored):
    grid = np.array(document(scored)["heat_map"]["rows"])
    scores = pool(scored)
    assert grid.shape == (9, 9)
    assert grid[0, 0] == scores.height
    assert (np.diff(grid, axis=0) <= 0).all()
    assert (np.diff(grid, axis=1) <= 0).all()
    share = scores.filter(pl.col("vlm") >= scores["vlm"].sort(descending=True)[int(scores.height * 0.8) - 1]).height
    assert grid[4, 0] == share
    assert document(scored, *LOOSE)["heat_map"]["rows"][1][0] == document(scored, *LOOSE)["kept_rows"]


def test_a_cut_by_value(scored):
    shown = document(
        scored, "outlier.vlm.keep_top=1.0", "outlier.vlm.at_least=0.99", "outlier.detector_cut.keep_top=1.0"
    )
    assert shown["cuts"] == {"vlm": 0.99, "detector": None}
    assert shown["kept_rows"] == pool(scored).filter(pl.col("vlm") >= 0.99).height
    assert shown["notes"] == []


def test_without_dry_run_the_cut_is_made_and_no_image_is_scored(scored, tmp_path, no_encoder, capsys):
    workdir = scored.copy(tmp_path / "own")
    store, recipe = Store(str(workdir.path)), workdir.recipe(*NANO, *LOOSE)
    assert recut(recipe, store, dry_run=False, as_json=True, arguments=["recut"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["thresholds"]["vlm"]["keep_top"] == 0.95
    assert "`rs5m-build run` with the same --set" in printed.err
    assert "outlier.cut/all" in workdir.manifests(*NANO, *LOOSE)
    assert show_report(recipe, store, as_json=True) == 0
    rows = json.loads(capsys.readouterr().out)["funnel"]["pub11"]["total"]
    assert rows["outlier"] == document(workdir, *LOOSE)["funnel"]["pub11"]["total"]["outlier"]


def test_the_printed_page(scored, capsys):
    recipe, store = scored.recipe(*NANO, *LOOSE), Store(str(scored.path))
    assert recut(recipe, store, dry_run=True, as_json=False, arguments=[]) == 0
    page = capsys.readouterr().out
    assert re.search(r"^PUB11 .*Duplicate Image +Outlier Image +Remain$", page, re.MULTILINE)
    assert re.search(r"^LAION2B +\d+ ", page, re.MULTILINE)
    assert "outlier.vlm (keep_top 0.95): scores from " in page
    assert "outlier.detector_cut (keep_top 1): every score passes" in page
    header, *rows = page[page.index("rows that each pair") :].splitlines()[1:]
    assert header.split() == [f"{share}%" for share in range(100, 55, -5)]
    assert [len(row.split()) for row in rows] == [10] * 9
    assert re.fullmatch(r"95% +\[\d+\].*", rows[1])


def test_shares_that_a_small_pool_cannot_have_are_named():
    threshold = {"vlm": {"keep_top": 0.999, "at_least": -1.0}, "detector_cut": {"keep_top": 1.0, "at_least": 0.25}}
    empty = {"rows": [], "total": {}}
    lines = list(recut_lines({
        "funnel": {"pub11": empty, "rs3": empty}, "thresholds": threshold, "cuts": {"vlm": None, "detector": 0.25},
        "kept_rows": 2, "pool_rows": 3, "reasons": {"vlm": 0, "detector": 1, "no_score": 0},
        "heat_map": {"shares": [1.0], "rows": [[3]]}, "notes": ["a note"],
    }))  # fmt: skip
    assert "outlier.vlm (keep_top 0.999): every score passes" in lines
    assert "outlier.detector_cut (keep_top 1, at_least 0.25): scores from 0.2500 pass" in lines
    assert "a note" in lines


def test_a_share_that_cuts_nobody_is_noted(scored):
    (note,) = document(scored, "outlier.vlm.keep_top=0.9999", "outlier.detector_cut.keep_top=1.0")["notes"]
    assert note.startswith("outlier.vlm.keep_top = 0.9999 cuts nobody")


@pytest.mark.parametrize("changed", ['outlier.detector="HEAD"', "dedup.max_pixels=5000"])
def test_scores_of_other_settings_are_not_taken(scored, tmp_path, changed):
    save_detector(tmp_path / "head.safetensors", np.ones(14, np.float32), 0.0, {"encoder": "nano"})
    changed = changed.replace("HEAD", str(tmp_path / "head.safetensors"))
    with pytest.raises(UserError, match=r"run `rs5m-build run --until outlier\.embed`"):
        document(scored, changed)


def test_before_any_score(fresh, tmp_path):
    with pytest.raises(UserError, match=r"filter\.match.* is not settled"):
        document(fresh)
    (fresh.path / "world/world.json").unlink()
    with pytest.raises(UserError, match="its world is not built yet"):
        document(fresh)


def test_a_damaged_score_table_is_named(scored, tmp_path):
    workdir = scored.copy(tmp_path / "own")
    file = next((workdir.path / "data/outlier.embed").rglob("scores-*.parquet"))
    size = file.stat().st_size
    file.unlink()
    file.write_bytes(b"x" * size)
    recipe = workdir.recipe(*NANO)
    with pytest.raises(UserError, match="rs5m-build verify"):
        recut(recipe, Store(str(workdir.path)), dry_run=True, as_json=True, arguments=[])

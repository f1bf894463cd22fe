"""The miniature build against what was staged: every metadata row ends as the truth says, and nothing else happens."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from manifests.identity import file_digest, locator
from manifests.sources import load_sources
from manifests.store import Store
from stages.archives import archive_digest

TIERS = {"laion2b": 0, "laion400m": 0, "coyo700m": 0, "laioncoco": 2}
COPIES = {"dedup.same_url", "dedup.same_bytes", "dedup.near_duplicate"}
CUT = {"outlier.vlm", "outlier.detector"}


def tables(workdir: Path, pattern: str) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted(workdir.glob(pattern))])


@pytest.fixture(scope="module")
def rows(mini: Path) -> pl.DataFrame:
    """The truth with, per row, its locator, its sample id and how it ended."""
    truth = pl.read_parquet(mini / "world" / "truth.parquet")
    digests = {}
    for name in truth["file"].unique():
        if name.startswith("archives/"):
            digests[name] = archive_digest(Store(str(mini)), f"world/{name}")
            continue
        with (mini / "world" / name).open("rb") as file:
            digests[name] = file_digest(file)
    places = [locator(digests[f], r) for f, r in truth.select("file", "row").iter_rows()]
    truth = truth.with_columns(pl.Series("locator", places))
    ledger = final_ledger(mini)
    filtered = ledger.filter(pl.col("locator").is_not_null()).select("locator", pl.col("reason").alias("at_filter"))
    matched = tables(mini, "data/filter.match/*/candidates-*.parquet").select("locator", "sample_id")
    later = ledger.filter(pl.col("locator").is_null()).select("sample_id", pl.col("reason").alias("later"), "other_id")
    released = pl.read_parquet(mini / "release/metafile/samples.parquet").select(
        "sample_id", pl.lit("released").alias("released")
    )
    joined = truth.join(filtered, on="locator", how="left").join(matched, on="locator", how="left")
    joined = joined.join(later, on="sample_id", how="left").join(released, on="sample_id", how="left")
    lanes = {key: spec.subset for key, spec in load_sources().items()}
    return joined.with_columns(
        pl.coalesce("at_filter", "later", "released").alias("ended"),
        pl.col("source").replace_strict(lanes).alias("subset"),
    )


def final_ledger(workdir: Path) -> pl.DataFrame:
    """The ledger of the newest pass of every partition."""
    import json

    newest: dict[tuple[str, str], Path] = {}
    for path in sorted(workdir.glob("commits/*/*.json")):
        newest[path.parent.name, path.name.split("@")[0]] = path
    ledgers = [workdir / json.loads(path.read_text())["ledger"]["path"] for path in newest.values()]
    return pl.concat([pl.read_parquet(path) for path in ledgers])


def test_rows_without_a_keyword_leave_no_trace_but_a_count(rows: pl.DataFrame) -> None:
    unmatched = rows.filter(pl.col("expected") == "filter.no_keyword")
    assert unmatched.height > 1500
    assert unmatched["ended"].null_count() == unmatched.height
    assert unmatched["sample_id"].null_count() == unmatched.height


def test_every_row_with_a_stated_end_ends_so(rows: pl.DataFrame) -> None:
    stated = rows.filter(~pl.col("expected").is_in(["filter.no_keyword", "cluster", "outlier"]))
    # Which overhead pictures a quantile takes is for the next test to judge.
    cut = (pl.col("expected") == "released") & (pl.col("kind") == "tile") & pl.col("ended").is_in(list(CUT))
    wrong = stated.filter((pl.col("expected") != pl.col("ended").fill_null("nothing")) & ~cut)
    assert wrong.select("source", "url", "expected", "ended").to_dicts() == []


def test_the_cut_takes_photographs_and_leaves_overhead_pictures(rows: pl.DataFrame) -> None:
    """Of pictures that are no remote sensing, drawn reliefs pass a model that never saw one: the model card says so."""
    pool = rows.filter(pl.col("ended").is_in([*CUT, "released"]) & (pl.col("subset") == "pub11"))
    stays = {kind: part["ended"].eq("released") for (kind,), part in pool.partition_by("kind", as_dict=True).items()}
    assert set(stays) == {"tile", "photo", "print", "drawn", "synthetic"}
    assert stays["photo"].sum() == stays["print"].sum() == 0
    assert stays["synthetic"].mean() < 0.25
    released = pool.filter(pl.col("ended") == "released")
    assert (released["kind"] == "tile").mean() > 0.93  # precision
    assert stays["tile"].mean() > 0.80  # recall; the detector's share alone leaves at most 0.90


def test_the_cut_keeps_the_shares_of_the_recipe(rows: pl.DataFrame) -> None:
    pool = rows.filter(pl.col("ended").is_in([*CUT, "released"]) & (pl.col("subset") == "pub11"))
    by_vlm = pool.filter(pl.col("ended") == "outlier.vlm").height
    assert 0.09 * pool.height <= by_vlm <= 0.11 * pool.height
    kept = pool.filter(pl.col("ended") == "released").height
    assert 0.70 * pool.height <= kept <= 0.80 * pool.height + 1


def test_of_every_staged_cluster_the_published_precedence_keeps_one(rows: pl.DataFrame) -> None:
    members = rows.filter(pl.col("expected") == "cluster")
    clusters = members.partition_by("cluster", as_dict=True)
    assert len(clusters) > 100
    for (name,), cluster in clusters.items():
        best = min(cluster.iter_rows(named=True), key=lambda r: (TIERS.get(r["source"], 1), r["sample_id"]))
        ends = dict(cluster.select("sample_id", "ended").iter_rows())
        assert [s for s, end in ends.items() if end not in COPIES] == [best["sample_id"]], name
        assert ends[best["sample_id"]] in {*CUT, "released"}, name
        others = cluster.filter(pl.col("sample_id") != best["sample_id"])
        assert set(others["ended"]) <= COPIES, name
        assert set(others["other_id"]) <= {best["sample_id"]}, name


def test_nothing_ends_that_was_not_staged(mini: Path, rows: pl.DataFrame) -> None:
    """Not one ledger row and not one released row stands outside the truth."""
    explained = Counter(rows["ended"].drop_nulls().to_list())
    ledger = Counter(final_ledger(mini)["reason"].to_list())
    released = pl.read_parquet(mini / "release/metafile/samples.parquet").height
    # A row that repeats an id shares the fate of the one that stays: it is explained once more than the ledger has it.
    repeated = rows.filter(pl.col("at_filter") == "filter.repeated_row").height
    assert repeated == 2
    assert explained == ledger + Counter({"released": released})


def test_released_images_are_the_bytes_that_were_served(mini: Path) -> None:
    import hashlib
    import zipfile

    served = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (mini / "world/images").iterdir()}
    samples = pl.read_parquet(mini / "release/metafile/samples.parquet")
    archives = {hashlib.sha256(p.read_bytes()).hexdigest() for p in (mini / "world/archives").rglob("*.jpg")}
    with zipfile.ZipFile(mini / "world/archives/millionaid.zip") as packed:
        archives |= {hashlib.sha256(packed.read(name)).hexdigest() for name in packed.namelist()}
    rendered = samples.filter(pl.col("source") == "ben")["released_sha256"]
    assert len(rendered) == 6
    assert set(samples["released_sha256"]) - set(rendered) <= served | archives
    assert samples.filter(pl.col("sha256") != pl.col("released_sha256")).height == 0


def test_no_source_image_stands_on_both_sides_of_the_split(mini: Path) -> None:
    samples = pl.read_parquet(mini / "release/metafile/samples.parquet")
    sides = samples.group_by("split_group").agg(pl.col("split").n_unique())
    assert sides["split"].max() == 1
    assert set(samples["split"]) == {"train", "val"}

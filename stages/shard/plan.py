"""shard.plan: which sample goes into which tar, under which name, with which caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from manifests.identity import bucket, draw, tar_stem
from manifests.ledger import count_by_source, ledger_frame
from manifests.schemas import TABLES
from manifests.tables import empty_frame
from stages.exclusions import Exclusions
from stages.image_names import name_without_suffix
from stages.images import EXTENSIONS
from stages.step import Input, Output, Prior, Result, Step, Tables, Task

SUBSETS = ("pub11", "rs3")
SPLITS = ("train", "val")

_OF_CANDIDATES = "sample_id subset url text matched licence credit".split()
_OF_PLACES = "sample_id lon lat utm country month season meta".split()
_OF_FETCHED = "sample_id tar offset length sha256 media_type".split()


class Plan(Step):
    """Draws the split by split group, spreads groups over tars, and composes names and captions.

    Both draws hash the split group alone, so they are stable when rows are added, and no group stands on both sides.
    What [exclude] names leaves here at the latest, by what is known by now: the bytes' digest, the url that a redirect
    led to, the released name. So does a row for which there are no words at all: an image someone held without any.
    """

    name = "shard.plan"
    kind = "reduce"
    VERSION = 1
    reads = ("seed", "shard.tars_per_split", "shard.val_fraction", "shard.caption")
    asks = ("exclude.ids", "exclude.urls", "exclude.hosts", "exclude.sha256")
    inputs = (
        Input("outlier.cut", "survivors", lane="pub11"),
        Input("caption.generate", "survivors", lane="rs3", rows=True),
        Input("download.fetch", "fetched", places=True),
        Input("filter.pool", "candidates"),
        Input("dedup.inspect", "inspected"),
        Input("outlier.embed", "scores"),
        Input("caption.choose", "captions"),
        Input("geo.locate", "places"),
    )
    outputs = ("plan", "samples")
    keeps = "plan"

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Plan the release. Raises ListChangedError for a list that is not as it was planned."""
        del prior
        exclusions = Exclusions.planned(task.settings, tables.store)
        tars = task.settings.integer("shard.tars_per_split")
        survivors = pl.concat([tables.frame(given.step, given.table) for given in self.rows_in])
        placed = _placed(survivors, task.settings.integer("seed"), task.settings.number("shard.val_fraction"), tars)
        described = _described(placed, tables, redirects=bool(exclusions))
        described = described.with_columns(exclusions.naming(described).alias("detail"))
        described = described.with_columns(composed(task.settings.lists("shard.caption")).alias("caption"))
        excluded = pl.col("detail").is_not_null()
        wordless = pl.col("caption").fill_null("").str.strip_chars() == ""
        reason = pl.when(excluded).then(pl.lit("shard.excluded")).otherwise(pl.lit("shard.no_caption")).alias("reason")
        left = described.filter(excluded | wordless).with_columns(reason)
        rows = described.filter(~excluded & ~wordless).sort("sample_id")
        plan = rows.with_columns(pl.int_range(pl.len(), dtype=pl.Int32).over("tar").alias("position"))
        columns = list(TABLES["plan"].schema.names)
        stems = [tar_stem(s, split, n) for s in _subsets(tables) for split in SPLITS for n in range(tars)]
        return Result(
            outputs=[
                *(Output("plan", plan.filter(pl.col("tar") == s).select(columns), partition=s) for s in stems),
                Output("samples", _samples(rows)),
            ],
            ledger=ledger_frame(
                self.name,
                left.select("source", "sample_id", "sha256", "detail", "reason"),
            ),
            seen=count_by_source(survivors),
            kept=count_by_source(plan),
        )


def _placed(survivors: pl.DataFrame, seed: int, val_fraction: float, tars: int) -> pl.DataFrame:
    """Add split and tar number, both drawn from the split group."""
    groups = survivors["split_group"].unique().to_list()
    drawn = pl.DataFrame(
        {
            "split_group": groups,
            "split": ["val" if draw("split", seed, group) < val_fraction else "train" for group in groups],
            "number": [bucket(group, tars) for group in groups],
        },
        schema={"split_group": pl.String, "split": pl.String, "number": pl.Int32},
    )
    return survivors.join(drawn, on="split_group")


def _described(placed: pl.DataFrame, tables: Tables, *, redirects: bool) -> pl.DataFrame:
    """Join every side table and compose tar and image name; ``redirects``: with the urls that redirects led to."""
    candidates = tables.frame("filter.pool", "candidates", _OF_CANDIDATES)
    fetched = tables.frame("download.fetch", "fetched", [*_OF_FETCHED, *(["final_url"] if redirects else [])])
    inspected = tables.frame("dedup.inspect", "inspected", ["sample_id", "width", "height", "phash"])
    scores = tables.frame("outlier.embed", "scores", ["sample_id", "vlm", "detector"])
    captions = tables.frame("caption.choose", "captions", ["sample_id", "top", "ssl", "chosen"])
    places = tables.frame("geo.locate", "places", _OF_PLACES)
    rows = placed.join(candidates, on="sample_id").join(fetched, on="sample_id").join(inspected, on="sample_id")
    rows = rows.join(scores, on="sample_id", how="left").join(captions, on="sample_id", how="left")
    rows = rows.join(places, on="sample_id", how="left")
    extension = pl.col("media_type").replace_strict(dict(EXTENSIONS), default=None, return_dtype=pl.String)
    number = pl.col("number").cast(pl.String).str.zfill(4)
    return rows.with_columns(
        pl.concat_str("subset", pl.lit("-"), "split", pl.lit("-"), number).alias("tar"),
        pl.concat_str(name_without_suffix(), pl.lit("."), extension).alias("img_name"),
        pl.col("tar").alias("image_tar"),
    )


def composed(parts: Mapping[str, Sequence[str]]) -> pl.Expr:
    """Return the released text of each row.

    Args:
        parts: Columns (text, meta, chosen, top, ssl) by source, joined by a space in that order; what a row lacks is
            left out. ``*``: every source that is not named. A row that has none of them gets what it does have, the
            chosen caption or its text.
    """
    text = _joined(parts.get("*", ["text"]))
    for source, columns in sorted(parts.items()):
        if source != "*":
            text = pl.when(pl.col("source") == source).then(_joined(columns)).otherwise(text)
    return pl.when(text.str.len_bytes() > 0).then(text).otherwise(pl.coalesce("chosen", "text"))


def _joined(columns: Sequence[str]) -> pl.Expr:
    if not columns:
        return pl.lit("")
    known = [pl.when(pl.col(name).str.len_bytes() > 0).then(name) for name in columns]
    return pl.concat_str(known, separator=" ", ignore_nulls=True)


def _subsets(tables: Tables) -> list[str]:
    """Return the subsets that a build has candidates of; the web's, where there are none at all."""
    there = set(tables.frame("filter.pool", "candidates", ["subset"])["subset"])
    return [subset for subset in SUBSETS if subset in there] or [SUBSETS[0]]


def _samples(rows: pl.DataFrame) -> pl.DataFrame:
    """Return samples.parquet as planned; columns that later stages fill are null."""
    schema = empty_frame(TABLES["samples"]).schema
    missing = [pl.lit(None, schema[name]).alias(name) for name in schema if name not in rows.columns]
    return rows.with_columns(missing).select(pl.col(name).cast(kind) for name, kind in schema.items())

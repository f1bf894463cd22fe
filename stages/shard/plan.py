"""shard.plan: which sample goes into which tar, under which name, with which caption."""

from __future__ import annotations

import polars as pl

from manifests.identity import bucket, draw, tar_stem
from manifests.ledger import count_by_source
from manifests.schemas import LEDGER, TABLES
from manifests.tables import empty_frame
from stages.images import EXTENSIONS
from stages.step import Input, Output, Prior, Result, Step, Tables, Task

SUBSETS = ("pub11",)
SPLITS = ("train", "val")

_OF_CANDIDATES = "sample_id subset url text matched lon lat licence credit".split()
_OF_FETCHED = "sample_id tar offset length sha256 media_type".split()


class Plan(Step):
    """Draws the split by split group, spreads groups over tars, and composes names and captions.

    Both draws hash the split group alone, so they are stable when rows are added, and no group stands on both sides.
    """

    name = "shard.plan"
    kind = "reduce"
    VERSION = 1
    reads = ("seed", "shard.tars_per_split", "shard.val_fraction")
    inputs = (
        Input("dedup.cluster", "survivors"),
        Input("download.fetch", "fetched"),
        Input("filter.pool", "candidates"),
        Input("dedup.inspect", "inspected"),
    )
    outputs = ("plan", "samples")
    keeps = "plan"

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Plan the release."""
        del prior
        tars = task.settings.integer("shard.tars_per_split")
        survivors = tables.frame("dedup.cluster", "survivors")
        placed = _placed(survivors, task.settings.integer("seed"), task.settings.number("shard.val_fraction"), tars)
        rows = _described(placed, tables).sort("sample_id")
        plan = rows.with_columns(pl.int_range(pl.len(), dtype=pl.Int32).over("tar").alias("position"))
        columns = list(TABLES["plan"].schema.names)
        stems = [tar_stem(s, split, n) for s in SUBSETS for split in SPLITS for n in range(tars)]
        return Result(
            outputs=[
                *(Output("plan", plan.filter(pl.col("tar") == s).select(columns), partition=s) for s in stems),
                Output("samples", _samples(rows)),
            ],
            ledger=empty_frame(LEDGER),
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


def _described(placed: pl.DataFrame, tables: Tables) -> pl.DataFrame:
    """Join every side table and compose tar, image name and caption."""
    candidates = tables.frame("filter.pool", "candidates", _OF_CANDIDATES)
    fetched = tables.frame("download.fetch", "fetched", _OF_FETCHED)
    inspected = tables.frame("dedup.inspect", "inspected", ["sample_id", "width", "height", "phash"])
    rows = placed.join(candidates, on="sample_id").join(fetched, on="sample_id").join(inspected, on="sample_id")
    extension = pl.col("media_type").replace_strict(dict(EXTENSIONS), default=None, return_dtype=pl.String)
    number = pl.col("number").cast(pl.String).str.zfill(4)
    return rows.with_columns(
        pl.concat_str("subset", pl.lit("-"), "split", pl.lit("-"), number).alias("tar"),
        pl.concat_str("source", pl.lit("_"), "sample_id", pl.lit("."), extension).alias("img_name"),
        pl.col("text").alias("caption"),
        pl.col("tar").alias("image_tar"),
    )


def _samples(rows: pl.DataFrame) -> pl.DataFrame:
    """Return samples.parquet as planned; columns that later stages fill are null."""
    schema = empty_frame(TABLES["samples"]).schema
    missing = [pl.lit(None, schema[name]).alias(name) for name in schema if name not in rows.columns]
    return rows.with_columns(missing).select(pl.col(name).cast(kind) for name, kind in schema.items())

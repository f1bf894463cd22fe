"""dedup.cluster: finds copies across all sources and chooses who stays; the cluster map is kept."""

from __future__ import annotations

import polars as pl

from manifests.ledger import count_by_source, ledger_frame
from stages.dedup.grouping import group
from stages.dedup.near import NO_PROOF
from stages.step import Input, Output, Prior, Result, Step, Tables, Task

_REASONS = {"url": "dedup.same_url", "bytes": "dedup.same_bytes", "near": "dedup.near_duplicate"}
_COMPARED = "sample_id sha256 phash thumbnail texture".split()


class Cluster(Step):
    """Same url, same bytes, or nearly the same picture: of each cluster one row stays, by the order in the recipe.

    Rows of subsets that the recipe does not name stay, all of them: the published RS3 keeps every frame.
    """

    name = "dedup.cluster"
    kind = "reduce"
    VERSION = 1
    reads = ("dedup.radius", "dedup.confirm", "dedup.confirm_levels", "dedup.order", "dedup.subsets")
    inputs = (Input("dedup.inspect", "inspected"), Input("filter.pool", "candidates"))
    outputs = ("survivors", "clusters")
    keeps = "survivors"

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Cluster all inspected rows."""
        del prior
        known = tables.frame("filter.pool", "candidates", ["sample_id", "source", "subset", "url", "group"])
        parts = [
            frame.with_columns(pl.lit(partition).alias("partition"))
            for partition, frame in tables.partitions("dedup.inspect", "inspected", _COMPARED)
        ]
        rows = pl.concat(parts).join(known, on="sample_id") if parts else _nothing(known)
        settings = task.settings
        levels = settings.number("dedup.confirm_levels") if settings.text("dedup.confirm") == "thumbnail" else NO_PROOF
        compared = rows.filter(pl.col("subset").is_in(settings.texts("dedup.subsets")))
        clusters = group(compared, settings.integer("dedup.radius"), levels, settings.texts("dedup.order"))
        joined = _joined(rows.select("sample_id", "source", "subset", "group", "partition"), clusters)
        stay = pl.col("sample_id") == pl.col("cluster_id")
        survivors = joined.filter(stay).with_columns(_split_group())
        copies = clusters.filter(pl.len().over("cluster_id") > 1)
        return Result(
            outputs=[
                *_by_partition(survivors, [file.partition for file in tables.files("dedup.inspect", "inspected")]),
                Output("clusters", copies),
            ],
            ledger=_ledger(joined.filter(~stay), settings.integer("dedup.radius")),
            seen=count_by_source(rows),
            kept=count_by_source(survivors),
            facts={"clusters": copies["cluster_id"].n_unique()},
        )


def _joined(rows: pl.DataFrame, clusters: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with their cluster; a row that was compared with none is a cluster of its own."""
    return rows.join(clusters, on="sample_id", how="left").with_columns(pl.coalesce("cluster_id", "sample_id"))


def _split_group() -> pl.Expr:
    """What is never parted by the split: the source's own group, else the cluster.

    Archives name their groups each for itself, so that the source is part of it.
    """
    own = pl.when(pl.col("subset") == "rs3").then(pl.concat_str("source", pl.lit(":"), "group")).otherwise("group")
    return pl.coalesce(own, "cluster_id").alias("split_group")


def _by_partition(survivors: pl.DataFrame, partitions: list[str]) -> list[Output]:
    columns = ("sample_id", "source", "split_group")
    found = {str(name): part for (name,), part in survivors.partition_by("partition", as_dict=True).items()}
    return [Output("survivors", found.get(n, survivors.clear()).select(columns), partition=n) for n in partitions]


def _ledger(dropped: pl.DataFrame, radius: int) -> pl.DataFrame:
    near = pl.col("proof") == "near"
    rows = dropped.select(
        "source",
        "sample_id",
        pl.col("proof").replace_strict(_REASONS, default=None, return_dtype=pl.String).alias("reason"),
        pl.col("cluster_id").alias("other_id"),
        pl.col("distance").cast(pl.Float64).alias("value"),
        pl.when(near).then(pl.lit(float(radius))).alias("cut"),
        pl.when(pl.col("via_id") != pl.col("cluster_id")).then(pl.concat_str(pl.lit("via "), "via_id")).alias("detail"),
    )
    return ledger_frame("dedup.cluster", rows)


def _nothing(known: pl.DataFrame) -> pl.DataFrame:
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "sha256": pl.String,
        "phash": pl.UInt64,
        "thumbnail": pl.Array(pl.UInt8, 256),
        "texture": pl.Float32,
        "partition": pl.String,
    }
    return known.clear().with_columns(pl.lit(None, dtype).alias(name) for name, dtype in schema.items())

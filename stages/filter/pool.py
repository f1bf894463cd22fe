"""filter.pool: one candidate per sample id, pooled into partitions: by host, or by place in the archive."""

from __future__ import annotations

from collections import Counter

import polars as pl

from manifests.canonical import JsonValue
from manifests.ledger import count_by_source, ledger_frame
from manifests.recipe import Settings
from manifests.schemas import TABLES
from stages.exclusions import Exclusions
from stages.places import archive_partition, bucket_of, host_of, web_partition
from stages.step import Input, Output, Prior, Result, Step, Tables, Task


class Pool(Step):
    """Drops repeated, excluded and unsafe rows and spreads the rest over buckets, so that a host lives in one process.

    A row is judged in this order. Of rows that repeat an id the one in the file with the lowest digest, then the lowest
    row number, stays. Then come the lists of [exclude]; then the source's own scores and labels, where the recipe says
    so: a row without a score or label passes.

    A host with more rows than ``filter.host_cap`` is spread by url. Images of archives are cut in order of their
    official paths into parts of ``filter.archive_rows``. Rows have their place before lists and scores are looked at,
    so that a takedown moves no other row to another partition.
    """

    name = "filter.pool"
    kind = "reduce"
    VERSION = 1
    reads = ("filter.buckets", "filter.host_cap", "filter.archive_rows", "filter.max_nsfw", "filter.unsafe_labels")
    asks = ("exclude.ids", "exclude.urls", "exclude.hosts")
    inputs = (Input("filter.match", "candidates"),)
    outputs = ("candidates",)
    keeps = "candidates"

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Pool all candidates. Raises ListChangedError for a list that is not as it was planned."""
        del prior
        exclusions = Exclusions.planned(task.settings, tables.store)
        everything = tables.frame("filter.match", "candidates")
        ordered = _in_published_order(everything)
        firsts = _judged(ordered.unique("sample_id", keep="first", maintain_order=True), exclusions, task.settings)
        kept = firsts.filter(pl.col("reason").is_null())
        placed, spread = _placed(firsts, task.settings)
        parts = placed.filter(pl.col("reason").is_null()).partition_by("partition", as_dict=True)
        columns = TABLES["candidates"].schema.names
        return Result(
            outputs=[
                Output("candidates", part.select(columns), partition=str(name))
                for (name,), part in sorted(parts.items())
            ],
            ledger=ledger_frame(self.name, _left(ordered, firsts)),
            seen=count_by_source(everything),
            kept=count_by_source(kept),
            facts={"layout": {"buckets": task.settings.integer("filter.buckets"), "spread": list[JsonValue](spread)}},
        )


def _judged(rows: pl.DataFrame, exclusions: Exclusions, settings: Settings) -> pl.DataFrame:
    """Add the ledger's columns reason, value, cut and detail: null for rows that stay."""
    max_nsfw = settings.number("filter.max_nsfw")
    labels = [label.strip().lower() for label in settings.texts("filter.unsafe_labels")]
    # The score is stored as float32: so is the cut that it is held against. 1 cuts nothing, whatever a source says.
    over = (pl.col("nsfw") > pl.lit(max_nsfw, pl.Float32)) & (max_nsfw < 1)
    labelled = pl.col("nsfw_label").str.strip_chars().str.to_lowercase().is_in(labels)
    excluded = pl.col("excluded_by").is_not_null()
    return (
        rows.with_columns(exclusions.naming(rows).alias("excluded_by"))
        .with_columns(over.fill_null(value=False).alias("over"), labelled.fill_null(value=False).alias("labelled"))
        .with_columns(
            pl.when(excluded).then(pl.lit("filter.excluded"))
            .when(pl.col("over") | pl.col("labelled")).then(pl.lit("filter.unsafe")).alias("reason"),
            pl.when(~excluded & pl.col("over")).then("nsfw").cast(pl.Float64).alias("value"),
            pl.when(~excluded & pl.col("over")).then(pl.lit(max_nsfw)).alias("cut"),
            pl.when(excluded).then("excluded_by").when("labelled").then("nsfw_label").alias("detail"),
        )
    )  # fmt: skip


def _left(ordered: pl.DataFrame, firsts: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that leave: those that repeat an id, and of the others those that a reason was found for."""
    stays = firsts.select("sample_id", pl.col("locator").alias("other_id"))
    repeated = ordered.filter(~pl.col("sample_id").is_first_distinct()).join(stays, on="sample_id", how="left")
    columns = ["source", "sample_id", "locator", "url"]
    return pl.concat(
        [
            repeated.select(*columns, "other_id", pl.lit("filter.repeated_row").alias("reason")),
            firsts.filter(pl.col("reason").is_not_null()).select(*columns, "reason", "value", "cut", "detail"),
        ],
        how="diagonal",
    )


def _in_published_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Sort by file digest, then by row as a number."""
    place = pl.col("locator").str.splitn(":", 2)
    return (
        frame.with_columns(
            place.struct.field("field_0").alias("_file"), place.struct.field("field_1").cast(pl.Int64).alias("_row")
        )
        .sort("_file", "_row")
        .drop("_file", "_row")
    )


def _of_archives() -> pl.Expr:
    """A url of an archive has no host: ``<source>:<path>``. Line breaks and tabs do not count in urls of the web."""
    of_source = pl.col("url").str.starts_with(pl.concat_str("source", pl.lit(":")))
    return of_source & ~pl.col("url").str.contains(r"^[a-z0-9]+:[\t\r\n]*/")


def _placed(rows: pl.DataFrame, settings: Settings) -> tuple[pl.DataFrame, list[str]]:
    """Return ``rows`` with a column ``partition``, and the hosts that were spread by url."""
    of_archives = rows.select(_of_archives()).to_series()
    web, spread = _in_buckets(
        rows.filter(~of_archives), settings.integer("filter.buckets"), settings.integer("filter.host_cap")
    )
    return pl.concat([web, _in_parts(rows.filter(of_archives), settings.integer("filter.archive_rows"))]), spread


def _in_parts(frame: pl.DataFrame, part_rows: int) -> pl.DataFrame:
    """Cut each source's rows, sorted by url, into parts of ``part_rows``."""
    ordered = frame.sort("source", "subset", "url", "sample_id")
    numbered = ordered.select("source", pl.int_range(pl.len()).over("source", "subset") // part_rows, "subset")
    names = [archive_partition(source, number, subset) for source, number, subset in numbered.iter_rows()]
    return ordered.with_columns(pl.Series("partition", names, dtype=pl.String))


def _in_buckets(frame: pl.DataFrame, buckets: int, host_cap: int) -> tuple[pl.DataFrame, list[str]]:
    """Give each row of the web the partition of its host's bucket; return also the hosts that are spread by url."""
    urls = frame["url"].to_list()
    hosts = [host_of(url) for url in urls]
    spread = frozenset(host for host, rows in Counter(hosts).items() if rows > host_cap)
    names = [web_partition(bucket_of(url, host, buckets, spread)) for url, host in zip(urls, hosts, strict=True)]
    return frame.with_columns(pl.Series("partition", names, dtype=pl.String)), sorted(spread)

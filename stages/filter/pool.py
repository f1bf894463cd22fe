"""filter.pool: one candidate per sample id, pooled into partitions: by host, or by place in the archive."""

from __future__ import annotations

from collections import Counter

import polars as pl

from manifests.canonical import JsonValue
from manifests.ledger import count_by_source, ledger_frame
from stages.places import archive_partition, bucket_of, host_of, web_partition
from stages.step import Input, Output, Prior, Result, Step, Tables, Task


class Pool(Step):
    """Drops repeated rows and spreads the rest over buckets, so that a host lives in one process.

    A host with more rows than ``filter.host_cap`` is spread by url. Images of archives are cut in order of their
    official paths into parts of ``filter.archive_rows``. Of rows that repeat an id the one in the file with the lowest
    digest, then the lowest row number, stays.
    """

    name = "filter.pool"
    kind = "reduce"
    VERSION = 1
    reads = ("filter.buckets", "filter.host_cap", "filter.archive_rows")
    inputs = (Input("filter.match", "candidates"),)
    outputs = ("candidates",)
    keeps = "candidates"

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Pool all candidates."""
        del prior
        everything = tables.frame("filter.match", "candidates")
        ordered = _in_published_order(everything)
        kept = ordered.unique("sample_id", keep="first", maintain_order=True)
        repeated = ordered.filter(~pl.col("sample_id").is_first_distinct())
        firsts = kept.select("sample_id", pl.col("locator").alias("other_id"))
        ledger = ledger_frame(
            self.name,
            repeated.join(firsts, on="sample_id", how="left").select(
                "source", "sample_id", "locator", "url", "other_id", pl.lit("filter.repeated_row").alias("reason")
            ),
        )
        buckets, host_cap = task.settings.integer("filter.buckets"), task.settings.integer("filter.host_cap")
        of_archives = kept["subset"] == "rs3"
        placed, spread = _placed(kept.filter(~of_archives).drop("locator"), buckets, host_cap)
        outputs = [
            Output("candidates", part.drop("bucket"), partition=web_partition(int(number)))
            for (number,), part in sorted(placed.partition_by("bucket", as_dict=True).items())
        ]
        part_rows = task.settings.integer("filter.archive_rows")
        outputs += _archive_parts(kept.filter(of_archives).drop("locator"), part_rows)
        return Result(
            outputs=outputs,
            ledger=ledger,
            seen=count_by_source(everything),
            kept=count_by_source(kept),
            facts={"layout": {"buckets": buckets, "spread": list[JsonValue](spread)}},
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


def _archive_parts(frame: pl.DataFrame, part_rows: int) -> list[Output]:
    """Cut each source's rows, sorted by url, into parts of ``part_rows``."""
    by_source = frame.sort("url").partition_by("source", as_dict=True, maintain_order=True)
    return [
        Output("candidates", rows[start : start + part_rows], partition=archive_partition(source, number))
        for (source,), rows in sorted(by_source.items())
        for number, start in enumerate(range(0, rows.height, part_rows))
    ]


def _placed(frame: pl.DataFrame, buckets: int, host_cap: int) -> tuple[pl.DataFrame, list[str]]:
    """Return ``frame`` with a column ``bucket``, and the hosts that were spread by url."""
    urls = frame["url"].to_list()
    hosts = [host_of(url) for url in urls]
    spread = frozenset(host for host, rows in Counter(hosts).items() if rows > host_cap)
    numbers = [bucket_of(url, host, buckets, spread) for url, host in zip(urls, hosts, strict=True)]
    return frame.with_columns(pl.Series("bucket", numbers, dtype=pl.Int32)), sorted(spread)

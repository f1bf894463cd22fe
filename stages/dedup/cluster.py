"""dedup.cluster: finds copies across all sources and chooses who stays, and keeps evaluation images out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from manifests.canonical import JsonValue
from manifests.ledger import count_by_source, ledger_frame
from manifests.schemas import LEDGER
from manifests.tables import empty_frame
from stages.dedup.evaluation_sets import KEY, planned_sets
from stages.dedup.grouping import SCHEMA, Groups, Index, group_rows
from stages.dedup.leak_finder import LeakFinder
from stages.dedup.leaks import one_kind
from stages.dedup.rows import Rows, thumbnails_of
from stages.dedup.second_proof import proof_of
from stages.step import Input, Output, Prior, Result, Step, Tables, Task

_REASONS = {"url": "dedup.same_url", "bytes": "dedup.same_bytes", "near": "dedup.near_duplicate"}
_INSPECTED = ("dedup.inspect", "inspected")
_COMPARED = ["sample_id", "sha256", "hash_kind", "phash", "thumbnail", "texture"]
_POOL = ("filter.pool", "candidates")


class Cluster(Step):
    """Same url, same bytes, or nearly the same picture: of each cluster one row stays, by the order in the recipe.

    Rows of subsets that the recipe does not name stay, all of them: the published RS3 keeps every frame. Then a row
    that would stay leaves if it, or a copy that left for it, shows an image of an evaluation set.

    The tables are read a partition at a time: once for what is compared, once for the thumbnails of rows that have a
    rival, once for what is written. In between about 100 bytes a row are held, and those thumbnails; at the end, what
    is written.
    """

    name = "dedup.cluster"
    kind = "reduce"
    VERSION = 2
    reads = (
        "dedup.radius", "dedup.confirm", "dedup.confirm_noise", "dedup.confirm_correlation", "dedup.order",
        "dedup.subsets",
    )  # fmt: skip
    asks = (KEY,)
    inputs = (Input(*_INSPECTED), Input(*_POOL))
    outputs = ("survivors", "clusters", "leaks")
    keeps = "survivors"

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Cluster all inspected rows."""
        del prior
        settings = task.settings
        radius = settings.integer("dedup.radius")
        proof = proof_of(settings.values)
        sets = planned_sets(settings, tables.store)
        finder = LeakFinder(sets, radius, proof)
        pool = _Pool.read(tables, settings.texts("dedup.subsets"), settings.texts("dedup.order"), finder)
        groups = group_rows(pool.rows, pool.thumbnails, radius, proof)
        leaving = finder.leaving(pool.rows, groups)
        written = [pool.written(part, groups, leaving, radius) for part in pool.parts]
        kept: Counter[str] = Counter()
        for part in written:
            kept.update(count_by_source(part.survivors))
        clusters = pl.concat([pl.DataFrame(schema=SCHEMA), *(part.clusters for part in written)])
        facts: dict[str, JsonValue] = {"clusters": clusters["cluster_id"].n_unique()}
        if groups.left_out:
            facts["compared_by_phash_alone"] = groups.left_out
        outputs = [Output("survivors", part.survivors, partition=part.name) for part in written]
        outputs.append(Output("clusters", clusters))
        if sets:
            outputs.append(Output("leaks", finder.table()))
            facts["benchmarks"] = {name: dict[str, JsonValue](counts) for name, counts in finder.counts().items()}
        ledger = pl.concat([empty_frame(LEDGER), *(part.ledger for part in written)])
        return Result(outputs, ledger, seen=dict(pool.seen), kept=dict(kept), facts=facts)


@dataclass(frozen=True, slots=True)
class _Part:
    """One partition: its name, where its compared rows begin in `Rows`, and their places in `inspected`."""

    name: str
    start: int
    places: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Written:
    """What becomes of one partition."""

    name: str
    survivors: pl.DataFrame
    clusters: pl.DataFrame
    ledger: pl.DataFrame


@dataclass(frozen=True, slots=True)
class _Pool:
    """All rows, read a partition at a time."""

    tables: Tables
    subsets: list[str]
    parts: list[_Part]
    rows: Rows
    seen: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, tables: Tables, subsets: list[str], order: list[str], finder: LeakFinder) -> _Pool:
        """Read what is compared of all partitions, and hand every picture to the finder."""
        parts: list[_Part] = []
        rows: list[Rows] = []
        seen: Counter[str] = Counter()
        kinds: set[str] = set()
        start = 0
        for name in (file.partition for file in tables.files(*_INSPECTED)):
            known = tables.part(*_POOL, name, ["sample_id", "source", "subset", "url"])
            frame = _joined(tables, name, _COMPARED, known)
            seen.update(count_by_source(frame))
            kinds.update(frame["hash_kind"].unique())
            one_kind(kinds)
            places = np.flatnonzero(frame["subset"].is_in(subsets).to_numpy())
            numbers = np.full(len(frame), -1)
            numbers[places] = np.arange(start, start + len(places))
            finder.look(frame, numbers)
            parts.append(_Part(name, start, places))
            rows.append(Rows.of(frame[places], order))
            start += len(places)
        finder.finish()
        return cls(tables, subsets, parts, Rows.joined(rows), seen)

    def thumbnails(self, some: Index) -> NDArray[np.uint8]:
        """Read the thumbnails of rows, which rise: uint8 [n, 256]."""
        levels = np.empty((len(some), 256), np.uint8)
        for part in self.parts:
            begin, end = np.searchsorted(some, (part.start, part.start + len(part.places)))
            if begin == end:
                continue
            column = self.tables.part(*_INSPECTED, part.name, ["thumbnail"])["thumbnail"]
            levels[begin:end] = thumbnails_of(column.gather(part.places[some[begin:end] - part.start]))
        return levels

    def written(self, part: _Part, groups: Groups, leaving: pl.DataFrame, radius: int) -> _Written:
        """Return what becomes of a partition's rows."""
        known = self.tables.part(*_POOL, part.name, ["sample_id", "source", "subset", "group"])
        frame = _joined(self.tables, part.name, ["sample_id"], known)
        numbers = np.arange(part.start, part.start + len(part.places))
        mine = groups.frame(self.rows, numbers)
        rows = frame.join(mine, on="sample_id", how="left", maintain_order="left")
        rows = rows.with_columns(pl.coalesce("cluster_id", "sample_id"))
        stays = pl.col("sample_id") == pl.col("cluster_id")
        survivors = rows.filter(stays).with_columns(_split_group())
        leaked = survivors.select("source", "sample_id").join(leaving, on="sample_id")
        kept = survivors.join(leaving, on="sample_id", how="anti", maintain_order="left")
        return _Written(
            name=part.name,
            survivors=kept.select("sample_id", "source", "split_group"),
            clusters=mine.filter(pl.Series(groups.size[numbers] > 1)),
            ledger=ledger_frame(
                "dedup.cluster", pl.concat([_dropped(rows.filter(~stays), radius), _leaked(leaked, radius)])
            ),
        )


def _joined(tables: Tables, name: str, columns: list[str], known: pl.DataFrame) -> pl.DataFrame:
    """Return a partition's inspected rows, in their order, with what the pool knows of them."""
    frame = tables.part(*_INSPECTED, name, columns)
    return frame.join(known, on="sample_id", maintain_order="left")


def _split_group() -> pl.Expr:
    """What is never parted by the split: the source's own group, else the cluster.

    Archives name their groups each for itself, so that the source is part of it.
    """
    own = pl.when(pl.col("subset") == "rs3").then(pl.concat_str("source", pl.lit(":"), "group")).otherwise("group")
    return pl.coalesce(own, "cluster_id").alias("split_group")


def _dropped(dropped: pl.DataFrame, radius: int) -> pl.DataFrame:
    near = pl.col("proof") == "near"
    return dropped.select(
        "source",
        "sample_id",
        pl.col("proof").replace_strict(_REASONS, default=None, return_dtype=pl.String).alias("reason"),
        pl.col("cluster_id").alias("other_id"),
        pl.col("distance").cast(pl.Float64).alias("value"),
        pl.when(near).then(pl.lit(float(radius))).alias("cut"),
        pl.when(pl.col("via_id") != pl.col("cluster_id")).then(pl.concat_str(pl.lit("via "), "via_id")).alias("detail"),
    )


def _leaked(leaked: pl.DataFrame, radius: int) -> pl.DataFrame:
    turned = pl.when(pl.col("view") > 0).then(pl.format(", view {}", "view")).otherwise(pl.lit(""))
    return leaked.select(
        "source",
        "sample_id",
        pl.lit("dedup.benchmark_leak").alias("reason"),
        pl.when(pl.col("shown_by") != pl.col("sample_id")).then("shown_by").alias("other_id"),
        pl.col("distance").cast(pl.Float64).alias("value"),
        pl.lit(float(radius)).alias("cut"),
        pl.concat_str("benchmark", pl.lit(": "), "item", turned).alias("detail"),
    )

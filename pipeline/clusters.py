"""Reads the cluster map: which rows are copies of which, by which proof, and which sources lose rows to which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import polars as pl

from manifests.manifest import Manifest
from manifests.reasons import reasons
from manifests.schemas import LEDGER, TABLES
from manifests.store import Store
from pipeline.table_scan import scan

_TABLE = TABLES["clusters"]
_PROOFS = {"near": 0, "semantic": 1, "bytes": 2, "url": 3}


@dataclass(frozen=True, slots=True)
class Member:
    """A row that was dropped for another.

    Attributes:
        sample_id: Of the row.
        source: Of the row; empty if it is not known.
        leader: The row that stayed.
        via: The row it is tied to directly.
        proof: How it is tied to that row: near, bytes or url.
        distance: Bits between the hashes of both; None unless near.
        confirm: Standard deviation of their thumbnails' difference, grey levels; None unless near.
    """

    sample_id: str
    source: str
    leader: str
    via: str
    proof: str
    distance: int | None
    confirm: float | None


@dataclass(frozen=True, slots=True)
class Cluster:
    """Copies of one picture.

    Attributes:
        leader: The row that stayed.
        source: Of the leader.
        rows: How many rows there are, the leader included.
        members: Some of the others: those that differ most from what they are tied to first.
    """

    leader: str
    source: str
    rows: int
    members: list[Member]


def leaders(store: Store, manifest: Manifest, ids: Collection[str]) -> dict[str, str]:
    """Return the leader of every row that is in a cluster, by its id."""
    wanted = pl.col("sample_id").is_in(list(ids))
    parts = [scan(store, _TABLE, path, wanted, ["sample_id", "cluster_id"]) for path in _paths(manifest, "clusters")]
    return {row[0]: row[1] for part in parts for row in part.iter_rows()}


def largest(store: Store, manifest: Manifest, most: int) -> list[str]:
    """Return the leaders of the largest clusters, the largest first."""
    parts = [
        scan(store, _TABLE, path, None, ["cluster_id"]).group_by("cluster_id").len()
        for path in _paths(manifest, "clusters")
    ]
    if not parts:
        return []
    sizes = pl.concat(parts).group_by("cluster_id").sum()
    found: list[str] = sizes.sort("len", "cluster_id", descending=[True, False]).head(most)["cluster_id"].to_list()
    return found


def clusters(store: Store, manifest: Manifest, wanted: Collection[str], most: int) -> dict[str, Cluster]:
    """Return the clusters of some leaders, each with at most ``most`` of the rows that were dropped."""
    mine = pl.col("cluster_id").is_in(list(wanted))
    parts = [scan(store, _TABLE, path, mine) for path in _paths(manifest, "clusters")]
    if not parts:
        return {}
    rows = pl.concat(parts)
    sizes = dict(rows.group_by("cluster_id").len().iter_rows())
    dropped = _most_different(rows.filter(pl.col("sample_id") != pl.col("cluster_id")))
    shown = dropped.group_by("cluster_id", maintain_order=True).head(most)
    members = _members(store, manifest, shown)
    of_leader = sources_of(store, manifest, sizes)
    return {
        leader: Cluster(leader, of_leader.get(leader, ""), sizes[leader], [m for m in members if m.leader == leader])
        for leader in wanted
        if leader in sizes
    }


def farthest(store: Store, manifest: Manifest, most: int) -> list[Member]:
    """Return near copies that were dropped: the greatest distance first, then the greatest thumbnail difference."""
    near = pl.col("proof") == "near"
    parts = [_most_different(scan(store, _TABLE, path, near)).head(most) for path in _paths(manifest, "clusters")]
    return _members(store, manifest, _most_different(pl.concat(parts)).head(most)) if parts else []


def sources_of(store: Store, manifest: Manifest, ids: Collection[str]) -> dict[str, str]:
    """Return the source of rows that dedup.cluster saw, whether they stayed or left."""
    wanted, names = pl.col("sample_id").is_in(list(ids)), ["sample_id", "source"]
    parts = [scan(store, TABLES["survivors"], path, wanted, names) for path in _paths(manifest, "survivors")]
    if manifest.ledger.rows:
        parts.append(scan(store, LEDGER, manifest.ledger.path, wanted, names))
    return {row[0]: row[1] for part in parts for row in part.iter_rows()}


def overlap(store: Store, manifest: Manifest) -> dict[tuple[str, str], int]:
    """Return how many copies of one source left for a row of another: (source that lost, source that stayed) to rows.

    The second is empty where the row that stayed is not known. The sum over it is the funnel's column Duplicate.
    """
    duplicate = [name for name, reason in reasons().items() if reason.column == "duplicate"]
    counts: Counter[tuple[str, str]] = Counter()
    if not manifest.ledger.rows:
        return counts
    left = scan(
        store, LEDGER, manifest.ledger.path, pl.col("reason").is_in(duplicate), ["source", "sample_id", "other_id"]
    )
    lost = left.group_by("source", "other_id").len()
    known = Counter[str]()
    for stayed in _stayed(store, manifest):
        pairs = (
            lost.join(stayed, left_on="other_id", right_on="sample_id").group_by("source", "kept").agg(pl.sum("len"))
        )
        for source, kept, rows in pairs.iter_rows():
            counts[source, kept] += rows
            known[source] += rows
    for source, rows in left.group_by("source").len().iter_rows():
        if rows > known[source]:
            counts[source, ""] += rows - known[source]
    return dict(sorted(counts.items()))


def _stayed(store: Store, manifest: Manifest) -> Iterator[pl.DataFrame]:
    """Yield (sample_id, kept) of the rows that others left for: survivors, and rows that then left themselves."""
    names = ["sample_id", "source"]
    for path in _paths(manifest, "survivors"):
        yield scan(store, TABLES["survivors"], path, None, names).rename({"source": "kept"})
    yield scan(store, LEDGER, manifest.ledger.path, None, names).rename({"source": "kept"})


def _most_different(rows: pl.DataFrame) -> pl.DataFrame:
    proof = pl.col("proof").replace_strict(_PROOFS, default=len(_PROOFS), return_dtype=pl.Int8)
    return rows.sort(proof, "distance", "confirm", "sample_id", descending=[False, True, True, False], nulls_last=True)


def _members(store: Store, manifest: Manifest, rows: pl.DataFrame) -> list[Member]:
    sources = sources_of(store, manifest, rows["sample_id"].to_list())
    return [
        Member(
            sample_id=row["sample_id"],
            source=sources.get(row["sample_id"], ""),
            leader=row["cluster_id"],
            via=row["via_id"],
            proof=row["proof"],
            distance=row["distance"],
            confirm=row["confirm"],
        )
        for row in rows.iter_rows(named=True)
    ]


def _paths(manifest: Manifest, output: str) -> list[str]:
    return [receipt.path for receipt in manifest.outputs if receipt.name == output and receipt.rows]

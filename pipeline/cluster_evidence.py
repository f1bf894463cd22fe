"""What `explain` says of dedup.cluster: the cluster of a sample with its proofs, and what kept it out as a leak."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from manifests.canonical import JsonValue
from manifests.manifest import Manifest
from manifests.schemas import LEDGER, TABLES
from manifests.store import Store
from pipeline.clusters import Cluster, Member, clusters, leaders
from pipeline.second_proof import Rule
from pipeline.table_scan import scan

MOST = 20
"""How many copies of a cluster, and how many images of evaluation sets, are listed."""

_LEAK = "dedup.benchmark_leak"


def cluster_evidence(
    store: Store, manifest: Manifest, ids: Collection[str], inspected: Sequence[Manifest]
) -> dict[str, dict[str, JsonValue]]:
    """Return the evidence of every sample that is in a cluster.

    Of a copy: ``leader``, ``via``, ``proof``, and where that is near ``distance`` (bits), ``confirm`` and
    ``confirm_limit``, the greatest difference of the thumbnails for these two (grey levels); of a leader how many
    ``copies`` left for it. Of both the ``radius`` that the commit was made under, and ``members``, the copies that
    differ most first, with how many ``more`` there are.

    Args:
        store: The workdir.
        manifest: The commit of dedup.cluster.
        ids: Samples.
        inspected: The commits of dedup.inspect.
    """
    of_sample = leaders(store, manifest, ids)
    found = clusters(store, manifest, sorted(set(of_sample.values())), MOST)
    mine = {m.sample_id: m for m in _asked(store, manifest, of_sample)}
    shown = [*mine.values(), *(member for cluster in found.values() for member in cluster.members)]
    ties = _Ties(Rule.of(manifest), _textures(store, inspected, shown))
    evidence = {}
    for identity, leader in of_sample.items():
        own = ties.tie(mine[identity]) if identity in mine else {"copies": found[leader].rows - 1}
        limits: dict[str, JsonValue] = {"radius": ties.rule.radius}
        evidence[identity] = {"leader": leader, **own, **limits, **ties.members(found[leader])}
    return evidence


def leak_evidence(store: Store, manifest: Manifest, ids: Collection[str]) -> dict[str, dict[str, JsonValue]]:
    """Return, of every sample that left as a leak, the images of evaluation sets that it or a copy of it shows.

    Each of ``leaks`` has benchmark, item, view, distance (bits) and shown_by, the sample that shows it; the nearest
    first.
    """
    files = [receipt.path for receipt in manifest.outputs if receipt.name == "leaks" and receipt.rows]
    if not files or not manifest.ledger.rows:
        return {}
    wanted = pl.col("sample_id").is_in(list(ids)) & (pl.col("reason") == _LEAK)
    left = scan(store, LEDGER, manifest.ledger.path, wanted, ["sample_id", "other_id"])
    shows = {identity: [identity, *([other] if other else [])] for identity, other in left.iter_rows()}
    every = pl.col("sample_id").is_in([shown_by for names in shows.values() for shown_by in names])
    rows = pl.concat([scan(store, TABLES["leaks"], path, every) for path in files])
    nearest = rows.sort("distance", "benchmark", "item", "sample_id").rename({"sample_id": "shown_by"})
    columns = ["benchmark", "item", "view", "distance", "shown_by"]
    evidence: dict[str, dict[str, JsonValue]] = {}
    for identity, names in shows.items():
        mine = nearest.filter(pl.col("shown_by").is_in(names)).select(columns)
        evidence[identity] = _listed("leaks", mine.head(MOST).to_dicts(), len(mine))
    return evidence


def _asked(store: Store, manifest: Manifest, of_sample: dict[str, str]) -> Iterable[Member]:
    """Return the asked samples that are copies, whether or not they are among the members that are listed."""
    copies = [identity for identity, leader in of_sample.items() if identity != leader]
    wanted = pl.col("sample_id").is_in(copies)
    for receipt in manifest.outputs if copies else ():
        if receipt.name == "clusters" and receipt.rows:
            for row in scan(store, TABLES["clusters"], receipt.path, wanted).iter_rows(named=True):
                tie = row["via_id"], row["proof"], row["distance"], row["confirm"]
                yield Member(row["sample_id"], "", row["cluster_id"], *tie)


def _textures(store: Store, inspected: Sequence[Manifest], members: Iterable[Member]) -> dict[str, float]:
    """Return the texture of both pictures of every near tie."""
    names = sorted({name for m in members if m.proof == "near" for name in (m.sample_id, m.via)})
    wanted, columns = pl.col("sample_id").is_in(names), ["sample_id", "texture"]
    textures: dict[str, float] = {}
    for receipt in (o for manifest in inspected for o in manifest.outputs) if names else ():
        if receipt.name == "inspected" and receipt.rows:
            textures.update(scan(store, TABLES["inspected"], receipt.path, wanted, columns).iter_rows())
    return textures


@dataclass(frozen=True, slots=True)
class _Ties:
    """How rows are tied, in the words of an explanation."""

    rule: Rule
    textures: Mapping[str, float]

    def tie(self, member: Member) -> dict[str, JsonValue]:
        tie: dict[str, JsonValue] = {"via": member.via, "proof": member.proof}
        if member.distance is None:
            return tie
        tie |= {"distance": member.distance, "confirm": member.confirm}
        if self.rule.proof and member.sample_id in self.textures and member.via in self.textures:
            limit = self.rule.limit(self.textures[member.sample_id], self.textures[member.via], member.distance)
            tie["confirm_limit"] = round(limit, 4)
        return tie

    def members(self, cluster: Cluster) -> dict[str, JsonValue]:
        rows: list[JsonValue] = [
            {"sample_id": member.sample_id, "source": member.source, **self.tie(member)} for member in cluster.members
        ]
        return _listed("members", rows, cluster.rows - 1)


def _listed(name: str, rows: Iterable[JsonValue], total: int) -> dict[str, JsonValue]:
    """Return some rows of a list, and how many more there are."""
    listed = list(rows)
    more = total - len(listed)
    return {name: listed, "more": more} if more else {name: listed}

"""What the page of a build shows of its copies, read from the tables of the commits that count."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from manifests.canonical import JsonValue
from manifests.manifest import Manifest
from manifests.schemas import LEDGER, TABLES
from manifests.store import Store
from pipeline.clusters import Cluster, Member, clusters, farthest, largest, overlap
from pipeline.page.cards import Card, cards, commits_of
from pipeline.page.near_survivors import NearSurvivors, Pair, near_survivors
from pipeline.planner import Planner
from pipeline.second_proof import Rule
from pipeline.table_scan import scan

MOST_CLUSTERS = 20
MOST_MEMBERS = 11
MOST_PAIRS = 12
MOST_LEAKS = 12
_MORE = 20  # times as many pairs are looked at, because each picture is shown in one of a list alone


@dataclass(frozen=True, slots=True)
class Leak:
    """An image that shows one of an evaluation set: its nearest item, as the table `leaks` tells it."""

    sample_id: str
    benchmark: str
    item: str
    distance: int
    view: int


@dataclass(frozen=True, slots=True)
class Leaks:
    """What leak control found.

    Attributes:
        items: By evaluation set: how many images it has; None if that is not told.
        found: By evaluation set: images of the build that show one of it, and how many of it they show.
        shown: Some of the images, the nearest first.
    """

    items: dict[str, int | None]
    found: dict[str, tuple[int, int]]
    shown: list[Leak]


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the page shows beside the report's own numbers.

    Attributes:
        rule: What near pairs were judged against.
        subsets: Those that lose their copies.
        clusters: The largest ones.
        dropped: Near copies, the farthest first.
        near: Pairs that both stayed.
        pairs: Of ``near``, those that are shown: outside the radius, and within it.
        overlap: As `pipeline.clusters.overlap`.
        leaks: None where the build has no table of them.
        leaked: Samples shown that left as evaluation images although they would have stayed.
        cards: Every sample shown.
    """

    rule: Rule
    subsets: list[str]
    clusters: list[Cluster]
    dropped: list[Member]
    near: NearSurvivors
    pairs: tuple[list[Pair], list[Pair]]
    overlap: dict[tuple[str, str], int]
    leaks: Leaks | None
    leaked: frozenset[str]
    cards: dict[str, Card]


def read_facts(store: Store, planner: Planner, report: Mapping[str, Any]) -> Facts | None:
    """Read what the page shows; None where dedup.cluster has not run.

    Args:
        store: The workdir.
        planner: Plans over it.
        report: The document of `pipeline.report.make_report`.

    Raises:
        CorruptFileError: If a table cannot be read.
    """
    commits = commits_of(planner, "dedup.cluster")
    if not commits:
        return None
    (cluster,) = commits
    listed = cluster.parts.recipe["dedup.subsets"]
    subsets = [str(name) for name in listed] if isinstance(listed, list) else []
    sources = [row["source"] for name in subsets for row in report["funnel"][name]["rows"]]
    found = clusters(store, cluster, largest(store, cluster, MOST_CLUSTERS), MOST_MEMBERS)
    dropped = _members_once(farthest(store, cluster, MOST_PAIRS * _MORE))
    near = near_survivors(store, cluster, commits_of(planner, "dedup.inspect"), sources)
    pairs = _pairs_once(near.outside), _pairs_once(near.disagreed)
    leaks = _leaks(store, cluster)
    shown = {c.leader for c in found.values()} | {m.sample_id for c in found.values() for m in c.members}
    shown |= {identity for member in dropped for identity in (member.sample_id, member.via)}
    shown |= {identity for pair in (*pairs[0], *pairs[1]) for identity in (pair.first, pair.second)}
    shown |= {leak.sample_id for leak in (leaks.shown if leaks else ())}
    # Thumbnails of near members are judged by the texture of what they are tied to, shown or not.
    needed = shown | {m.via for c in found.values() for m in c.members}
    return Facts(
        rule=Rule.of(cluster),
        subsets=subsets,
        clusters=list(found.values()),
        dropped=dropped,
        near=near,
        pairs=pairs,
        overlap=overlap(store, cluster),
        leaks=leaks,
        leaked=_leaked(store, cluster, shown),
        cards=cards(store, planner, sorted(needed)),
    )


def _members_once(members: Iterable[Member]) -> list[Member]:
    """Return the first members of which none shows a picture that another shows."""
    taken: list[Member] = []
    seen: set[str] = set()
    for member in members:
        if len(taken) < MOST_PAIRS and not {member.sample_id, member.via} & seen:
            taken.append(member)
            seen |= {member.sample_id, member.via}
    return taken


def _pairs_once(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the first pairs of which none shows a picture that another shows."""
    taken: list[Pair] = []
    seen: set[str] = set()
    for pair in pairs:
        if len(taken) < MOST_PAIRS and not {pair.first, pair.second} & seen:
            taken.append(pair)
            seen |= {pair.first, pair.second}
    return taken


def _leaks(store: Store, cluster: Manifest) -> Leaks | None:
    receipts = [receipt for receipt in cluster.outputs if receipt.name == "leaks"]
    if not receipts:
        return None
    rows = pl.concat([scan(store, TABLES["leaks"], receipt.path) for receipt in receipts])
    sums = rows.group_by("benchmark").agg(pl.n_unique("sample_id"), pl.n_unique("item"))
    found = {name: (images, items) for name, images, items in sums.iter_rows()}
    nearest = rows.sort("distance", "benchmark", "sample_id", "item").unique("sample_id", maintain_order=True)
    shown = [Leak(**row) for row in nearest.head(MOST_LEAKS).iter_rows(named=True)]
    told = cluster.facts.get("benchmarks")
    sets = told if isinstance(told, dict) else {}
    items = {name: _count(sets.get(name), "items") for name in sorted({*sets, *found})}
    return Leaks(items, found, shown)


def _leaked(store: Store, cluster: Manifest, ids: Collection[str]) -> frozenset[str]:
    if not cluster.ledger.rows:
        return frozenset()
    wanted = pl.col("sample_id").is_in(list(ids)) & (pl.col("reason") == "dedup.benchmark_leak")
    return frozenset(scan(store, LEDGER, cluster.ledger.path, wanted, ["sample_id"])["sample_id"])


def _count(told: JsonValue, name: str) -> int | None:
    value = told.get(name) if isinstance(told, dict) else None
    return value if isinstance(value, int) else None

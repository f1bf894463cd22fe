"""Pairs of rows that both stayed although they nearly are copies: just outside the radius, or kept by their thumbnails.

Hashes of at most `MOST_ROWS` survivors are compared, the first by sample id: ids are digests, so that is a random draw
which is the same every time. Fewer are where hashes lie so close together that the pairs would not fit in memory.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from manifests.manifest import Manifest
from manifests.schemas import TABLES
from manifests.store import Store
from manifests.tables import empty_frame
from pipeline.second_proof import Rule
from pipeline.table_scan import scan
from stages.dedup.pigeonhole import MAX_RADIUS, pairs_within
from stages.dedup.rows import thumbnails_of
from stages.dedup.second_proof import Looks, confirmed

MOST_ROWS = 1_000_000
BEYOND_BITS = 2
_MOST_PAIRS = 10_000_000
_PROBE_ROWS = 8_192
_JUDGED_PAIRS = 2_000  # pairs of hashes of each kind whose thumbnails are read
_ROWS_OF_A_HASH = 2

_Ids = NDArray[np.object_]
_Hashes = NDArray[np.uint64]
_Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows beside each other.

    Attributes:
        first: Sample id of one, the lesser.
        second: Sample id of the other.
        distance: Bits between their hashes.
        confirm: Standard deviation of the difference of their thumbnails, grey levels.
        limit: The greatest at which thumbnails of these two agree, grey levels.
        brightness: Difference of their mean brightness, grey levels.
        agrees: Whether the thumbnails agree.
    """

    first: str
    second: str
    distance: int
    confirm: float
    limit: float
    brightness: float
    agrees: bool


@dataclass(frozen=True, slots=True)
class NearSurvivors:
    """What was found among the rows that stayed.

    Attributes:
        rows: How many rows stayed.
        compared: How many of them were compared.
        outside: Pairs just outside the radius: the nearest hashes first, then the nearest thumbnails.
        disagreed: Pairs within the radius whose thumbnails differ by more than their limit: the nearest to it first.
        agreed: Pairs that are within both: there should be none.
    """

    rows: int
    compared: int
    outside: list[Pair]
    disagreed: list[Pair]
    agreed: list[Pair]


def near_survivors(
    store: Store, cluster: Manifest, inspected: Sequence[Manifest], sources: Collection[str], most_rows: int = MOST_ROWS
) -> NearSurvivors:
    """Find the near pairs among the rows of some sources that stayed.

    Args:
        store: The workdir.
        cluster: The commit of dedup.cluster.
        inspected: The commits of dedup.inspect.
        sources: Those whose copies are dropped.
        most_rows: How many rows are compared at most.

    Raises:
        CorruptFileError: If a table cannot be read.
    """
    rule = Rule.of(cluster)
    files = {manifest.partition: [o.path for o in manifest.outputs if o.name == "inspected"] for manifest in inspected}
    rows, total = _draw(store, cluster, files, sources, most_rows)
    reach = min(rule.radius + BEYOND_BITS, MAX_RADIUS)
    rows = rows.head(_affordable(rows["phash"].to_numpy(), reach))
    near = _near(rows["phash"].to_numpy(), rule.radius, reach)
    of_pairs = rows[np.unique(np.concatenate([near.first, near.second]))]
    proofs = _proofs(store, of_pairs, files)
    ids = rows["sample_id"].to_numpy()
    pairs = _judged(ids[near.first], ids[near.second], near.distance, proofs, rule)
    within = [pair for pair in pairs if pair.distance <= rule.radius]
    return NearSurvivors(
        rows=total,
        compared=len(rows),
        outside=sorted(
            (pair for pair in pairs if pair.distance > rule.radius),
            key=lambda pair: (pair.distance, pair.confirm, pair.first, pair.second),
        ),
        disagreed=sorted(
            (pair for pair in within if not pair.agrees),
            key=lambda pair: (max(0.0, pair.confirm - pair.limit), pair.distance, pair.first, pair.second),
        ),
        agreed=[pair for pair in within if pair.agrees],
    )


def _draw(
    store: Store, cluster: Manifest, files: Mapping[str, list[str]], sources: Collection[str], most: int
) -> tuple[pl.DataFrame, int]:
    """Return the first rows by id with their hash and partition, and how many rows there are."""
    drawn = pl.DataFrame(schema={"sample_id": pl.String, "phash": pl.UInt64, "partition": pl.String})
    total, wanted = 0, pl.col("source").is_in(list(sources))
    for receipt in cluster.outputs:
        if receipt.name != "survivors" or not receipt.rows or receipt.partition is None:
            continue
        stayed = scan(store, TABLES["survivors"], receipt.path, wanted, ["sample_id"])
        total += len(stayed)
        for path in files.get(receipt.partition, []) if len(stayed) else ():
            hashes = scan(store, TABLES["inspected"], path, None, ["sample_id", "phash"])
            mine = hashes.join(stayed, on="sample_id", how="semi").with_columns(partition=pl.lit(receipt.partition))
            drawn = pl.concat([drawn, mine]).sort("sample_id").head(most)
    return drawn, total


def _affordable(hashes: _Hashes, reach: int) -> int:
    """Return how many of the first rows have no more pairs than fit, judged by how many a few of them have."""
    if len(hashes) <= _PROBE_ROWS:
        return len(hashes)
    probed, _, _ = pairs_within(np.unique(hashes[:_PROBE_ROWS]), reach)
    return min(len(hashes), int(_PROBE_ROWS * (_MOST_PAIRS / max(1, len(probed))) ** 0.5))


@dataclass(frozen=True, slots=True, eq=False)
class _Near:
    """Pairs of rows: places of both, int64 [M], and bits between them, int64 [M]."""

    first: _Index
    second: _Index
    distance: _Index


def _near(hashes: _Hashes, radius: int, reach: int) -> _Near:
    """Find the nearest pairs of hashes and stand a few rows of each hash for them."""
    distinct, first_row, of_row, counts = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    low, high, bits = pairs_within(distinct, reach)
    nearest = np.lexsort((high, low, bits))
    low, high, distance = low[nearest], high[nearest], bits[nearest].astype(np.int64)
    inside = int(np.searchsorted(distance, radius, side="right"))
    taken = np.r_[0 : min(inside, _JUDGED_PAIRS), inside : min(len(distance), inside + _JUDGED_PAIRS)].astype(np.int64)
    low, high, distance = low[taken], high[taken], distance[taken]
    several = np.flatnonzero(counts > 1)[:_JUDGED_PAIRS]
    order = np.argsort(of_row, kind="stable")
    starts = np.cumsum(counts) - counts
    last_row = order[starts + np.minimum(counts, _ROWS_OF_A_HASH) - 1]
    # Of each hash its first row and its second, where it has one: among these a pair may stand twice.
    firsts = [first_row[several], *(first_row[low], first_row[low], last_row[low], last_row[low])]
    seconds = [last_row[several], *(first_row[high], last_row[high], first_row[high], last_row[high])]
    bits_of_all = np.concatenate([np.zeros(len(several), np.int64), *(distance,) * 4])
    one, other = np.concatenate(firsts), np.concatenate(seconds)
    pairs = np.stack([np.minimum(one, other), np.maximum(one, other), bits_of_all])
    unique = np.unique(pairs, axis=1)
    return _Near(unique[0], unique[1], unique[2])


@dataclass(frozen=True, slots=True, eq=False)
class _Proofs:
    """Second proofs of some rows, and the place of each by sample id."""

    place: Mapping[str, int]
    looks: Looks


def _proofs(store: Store, rows: pl.DataFrame, files: Mapping[str, list[str]]) -> _Proofs:
    names = ["sample_id", "phash", "texture", "thumbnail"]
    parts = [empty_frame(TABLES["inspected"]).select(names)]
    schema = parts[0].schema
    for (partition,), mine in rows.partition_by("partition", as_dict=True, maintain_order=True).items():
        wanted = pl.col("sample_id").is_in(mine["sample_id"].to_list())
        scanned = [scan(store, TABLES["inspected"], path, wanted, names) for path in files[str(partition)]]
        parts += [frame.cast({"thumbnail": schema["thumbnail"]}) for frame in scanned]
    found = pl.concat(parts)
    looks = Looks.of(found["phash"].to_numpy(), found["texture"].to_numpy(), thumbnails_of(found["thumbnail"]))
    return _Proofs({identity: row for row, identity in enumerate(found["sample_id"])}, looks)


def _judged(first: _Ids, second: _Ids, distance: _Index, proofs: _Proofs, rule: Rule) -> list[Pair]:
    """Return the pairs of rows with the difference of their thumbnails."""
    one, other = (np.array([proofs.place[name] for name in side], np.int64) for side in (first, second))
    looks = proofs.looks
    agrees, _ = confirmed(looks, looks, one, other, rule.proof)
    _, confirm = confirmed(looks, looks, one, other, None)
    brightness = np.abs(looks.sums[one] - looks.sums[other]) / looks.thumbnails.shape[1]
    textures = looks.texture[one].tolist(), looks.texture[other].tolist()
    limits = [rule.limit(a, b, bits) for a, b, bits in zip(*textures, distance.tolist(), strict=True)]
    return [
        Pair(str(a), str(b), *values)
        for a, b, *values in zip(
            first,
            second,
            distance.tolist(),
            confirm.tolist(),
            limits,
            brightness.tolist(),
            agrees.tolist(),
            strict=True,
        )
    ]

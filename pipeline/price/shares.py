"""Which share of its rows a step keeps: as in this workdir, else as in the published table, source by source."""

from __future__ import annotations

from collections.abc import Mapping

from manifests.ledger import RowCounts
from manifests.recipe import Recipe
from manifests.sources import PUB11, SourceSpec, load_sources
from pipeline.price.rates import Rates

LEAST_ROWS = 200
"""Rows a step must have seen of a source here before its own share is believed."""

_PAPER_CUT = 0.90 * 0.80


class Shares:
    """Shares of rows kept.

    Args:
        recipe: The recipe.
        specs: Its enabled sources.
        books: What steps saw and kept in this workdir, by step and source.
        rates: The table; of a staged world it holds the world's own shares.
    """

    def __init__(
        self,
        recipe: Recipe,
        specs: Mapping[str, SourceSpec],
        books: Mapping[str, Mapping[str, RowCounts]],
        rates: Rates,
    ) -> None:
        self._recipe = recipe
        self._specs = specs
        self._books = books
        self._world = rates.worlds[recipe.world.kind] if recipe.world else {}
        self._all = _sums()

    def of(self, step: str, source: str) -> float:
        """Return the share of a source's rows that a step keeps."""
        if self._is_seen(step, source):
            return _share(self._books[step][source])
        spec = self._specs[source]
        if step in self._world and spec.subset == "pub11":
            return self._world[step]
        if step == "dedup.cluster" and spec.subset not in self._recipe.dedup.subsets:
            return 1.0
        if step == "filter.match" and (spec.keywords == "all" or spec.is_archive):
            return 1.0
        table = spec.published.model_dump() if spec.published else self._all
        return _published(step, table, self._cut_factor())

    def is_firm(self, step: str, source: str) -> bool:
        """Whether that share is this workdir's or the source's own, not the mean of others."""
        known = self._is_seen(step, source) or step in self._world
        return known or self._specs[source].published is not None or step not in _COLUMNS

    def _is_seen(self, step: str, source: str) -> bool:
        counts = self._books.get(step, {}).get(source)
        return counts is not None and counts.seen >= LEAST_ROWS

    def _cut_factor(self) -> float:
        """Return what the recipe's cuts keep as a multiple of what the paper's did."""
        cuts = self._recipe.outlier
        return cuts.vlm.keep_top * cuts.detector_cut.keep_top / _PAPER_CUT


_COLUMNS = ("filter.match", "download.fetch", "dedup.inspect", "dedup.cluster", "outlier.cut")
"""The steps that a column of the published table stands for; the others keep all rows but a few."""


def _published(step: str, row: Mapping[str, int], cut_factor: float) -> float:
    valid = row["download"] - row["invalid"]
    distinct = valid - row["duplicate"]
    match step:
        case "filter.match":
            return _part(row["after_keyword"], row["amount"])
        case "download.fetch":
            return _part(row["download"], row["after_keyword"])
        case "dedup.inspect":
            return _part(valid, row["download"])
        case "dedup.cluster":
            return _part(distinct, valid)
        case "outlier.cut":
            return min(1.0, _part(row["remain"], distinct) * (cut_factor if row["outlier"] else 1.0))
        case _:
            return 1.0


def _part(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _share(counts: RowCounts) -> float:
    """Return what of the rows that are settled was kept: a deferred one is neither kept nor gone."""
    settled = counts.seen - sum(counts.deferred.values())
    return counts.kept / settled if settled else 1.0


def _sums() -> dict[str, int]:
    """Return the published table of PUB11, added up: what is known of a source of one's own."""
    rows = [
        spec.published.model_dump(exclude={"amount_text"}) for key in PUB11 if (spec := load_sources()[key]).published
    ]
    return {name: sum(row[name] for row in rows) for name in rows[0]}

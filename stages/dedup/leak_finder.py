"""Looks at the pictures of a build, some partitions at a time, for those that show images of evaluation sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from manifests.schemas import TABLES
from manifests.tables import empty_frame
from stages.dedup.evaluation_sets import EvaluationSet
from stages.dedup.grouping import Groups
from stages.dedup.leaks import HashKindError, find_leaks
from stages.dedup.rows import Rows
from stages.dedup.second_proof import SecondProof

_ROWS_AT_ONCE = 1_000_000  # about half a gigabyte: enough that the sets' own hashes cost little beside
_LEAKS = TABLES["leaks"]


class LeakFinder:
    """Collects which pictures show which images of evaluation sets.

    Args:
        sets: The sets; without any nothing is looked at.
        radius: As `find_leaks`.
        proof: As `find_leaks`.
    """

    columns: ClassVar = ("sample_id", "sha256", "hash_kind", "phash", "thumbnail", "texture")

    def __init__(self, sets: Sequence[EvaluationSet], radius: int, proof: SecondProof | None) -> None:
        self._sets = sets
        self._radius = radius
        self._proof = proof
        self._waiting: list[pl.DataFrame] = []
        self._found: list[pl.DataFrame] = []

    def look(self, frame: pl.DataFrame, numbers: NDArray[np.int64] | None = None) -> None:
        """Take pictures: a frame with `columns`, and their row numbers where they have one (-1: none)."""
        if not self._sets:
            return
        rows = np.full(len(frame), -1) if numbers is None else numbers
        self._waiting.append(frame.select(*self.columns, pl.Series("number", rows, dtype=pl.Int64)))
        if sum(map(len, self._waiting)) >= _ROWS_AT_ONCE:
            self.finish()

    def finish(self) -> None:
        """Look at what was taken since the last time.

        Raises:
            HashKindError: The pictures are hashed in another way than a set: names it.
        """
        if not self._waiting:
            return
        images, self._waiting = pl.concat(self._waiting), []
        for one in self._sets:
            try:
                leaks = find_leaks(images, one.items, self._radius, self._proof)
            except HashKindError as error:
                raise HashKindError(f"evaluation set {one.name}: {error}") from error
            numbered = leaks.join(images.select("sample_id", "number"), on="sample_id")
            self._found.append(numbered.with_columns(pl.lit(one.name).alias("benchmark")))

    def pairs(self) -> pl.DataFrame:
        """Return what was found: the columns of `find_leaks`, benchmark and number; sorted by sample_id."""
        none = empty_frame(_LEAKS).with_columns(
            pl.lit(None, pl.Float32).alias("confirm"), pl.lit(None, pl.Int64).alias("number")
        )
        pairs = pl.concat([none, *(part.select(none.columns) for part in self._found)])
        return pairs.sort("sample_id", "benchmark", "item")

    def table(self) -> pl.DataFrame:
        """Return what was found as the table `leaks`."""
        return self.pairs().select(_LEAKS.schema.names)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return, by set: items (hashed), unread (could not be), items_found, and the samples that show them."""
        pairs = self.pairs()
        by_name = {one.name: pairs.filter(pl.col("benchmark") == one.name) for one in self._sets}
        return {
            one.name: {
                "items": len(one.items),
                "unread": len(one.unread),
                "items_found": by_name[one.name]["item"].n_unique(),
                "samples": by_name[one.name]["sample_id"].n_unique(),
            }
            for one in self._sets
        }

    def leaving(self, rows: Rows, groups: Groups) -> pl.DataFrame:
        """Return the rows that would stay and must leave: those that show an item, or whose copies do.

        Args:
            rows: The rows that were compared, by the numbers that `look` was told.
            groups: Who stays for each of them. A row without a number stays for itself.

        Returns:
            sample_id, and the surest evidence, its own before a copy's: shown_by (the sample that shows the item),
            benchmark, item, distance, view.
        """
        pairs = self.pairs().rename({"sample_id": "shown_by"})
        compared = pairs["number"].to_numpy() >= 0
        leaders = pairs["shown_by"].to_list()
        for place, name in zip(
            np.flatnonzero(compared),
            rows.names(groups.leader[pairs["number"].to_numpy()[compared]]),
            strict=True,
        ):
            leaders[place] = name
        told = pairs.with_columns(pl.Series("sample_id", leaders, dtype=pl.String))
        surest = told.sort(
            "sample_id", pl.col("shown_by") != pl.col("sample_id"), "distance", "confirm", "benchmark", "item"
        )
        return surest.unique("sample_id", keep="first", maintain_order=True).select(
            "sample_id", "shown_by", "benchmark", "item", "distance", "view"
        )

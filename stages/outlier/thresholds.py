"""Where the cuts lie, and who passes them: pure functions of the stored scores of one pool.

The rule is the paper's (arXiv 2306.11300v5, section III-A): a row stays iff ``s >= m`` and ``c >= n``, with m and n
quantiles over the whole deduplicated pool. A cell of the paper's figure 13 holds floor(share x rows) rows, so the cut
value is the score of the floor(share x rows)-th best row. What the paper leaves open is ours: rows equal to the cut
value stay, so a little more than the share may stay; rows without a score count as the lowest of the pool and never
pass; of a pool in which the share to leave is less than one row, nobody leaves; and one row stays whatever the share.

Scores are compared as they are stored, rounded to 1e-4: 0.21 as float32 passes a cut at 0.21.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import polars as pl
from numpy.typing import NDArray

DECIMALS = 4
"""Decimals that scores are stored with."""

NO_FLOOR = -1.0
"""``at_least`` that cuts nobody: no cosine and no probability is lower."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """Which scores of one kind pass; both conditions must hold.

    Attributes:
        keep_top: Share of the pool that passes, in (0, 1]; 1: no cut by share.
        at_least: Least score that passes; -1: no cut by value.
    """

    keep_top: float = 1.0
    at_least: float = NO_FLOOR


@dataclass(frozen=True, slots=True)
class Judged:
    """A pool after its cuts.

    Attributes:
        rows: One row per row of the pool, in its order: reason str? (null: stays), value f64?, cut f64?, detail str?,
            as the ledger has them.
        vlm_cut: Least VLM score that passed; None: nobody was cut by it.
        detector_cut: The same of the detector's score.
    """

    rows: pl.DataFrame
    vlm_cut: float | None
    detector_cut: float | None


def exact(scores: pl.Series) -> NDArray[np.float64]:
    """Return stored scores as the decimal numbers they stand for, float64 [N]; NaN where there is none."""
    values = scores.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return np.where(np.isfinite(values), np.round(values, DECIMALS), np.nan)


def rows_in_top(pool_rows: int, keep_top: float) -> int:
    """Return how many of ``pool_rows`` are in the top share: floor(keep_top x rows), at least 1.

    Where less than one row is to leave, that is all of them: a pool too small for a quantile is not cut by one.
    """
    share = Decimal(str(keep_top))  # as written: 0.29 x 100 is 29, though not in binary fractions
    if (1 - share) * pool_rows < 1:
        return pool_rows
    return max(1, int(share * pool_rows))


def share_cut(scores: NDArray[np.float64], keep_top: float) -> float | None:
    """Return the score of the last row in the top share, None where every row that has a score is in it.

    Args:
        scores: float64 [N] of the whole pool, as `exact` gives them; NaN: no score, lower than any.
        keep_top: Share in (0, 1].
    """
    stay = rows_in_top(scores.size, keep_top)
    known = scores[~np.isnan(scores)]
    if stay >= known.size:
        return None
    place = known.size - stay
    return float(np.partition(known, place)[place])


def cut_value(scores: NDArray[np.float64], threshold: Threshold) -> float | None:
    """Return the least score that passes ``threshold`` in this pool, None where every score does."""
    by_share = share_cut(scores, threshold.keep_top)
    if threshold.at_least <= NO_FLOOR:
        return by_share
    return threshold.at_least if by_share is None else max(by_share, threshold.at_least)


def judge(pool: pl.DataFrame, vlm: Threshold, detector: Threshold) -> Judged:
    """Judge every row of a pool.

    Args:
        pool: Columns vlm and detector, f32?; null or NaN: no score.
        vlm: What the VLM score must pass.
        detector: What the detector's score must pass.
    """
    s, c = exact(pool["vlm"]), exact(pool["detector"])
    m, n = cut_value(s, vlm), cut_value(c, detector)
    scored = pl.DataFrame({"s": s, "c": c}, nan_to_null=True)
    missed_vlm, missed_detector = _missed("s", m), _missed("c", n)
    none = pl.col("s").is_null() | pl.col("c").is_null()
    rows = scored.select(
        pl.when(none)
        .then(pl.lit("outlier.no_score"))
        .when(missed_vlm)
        .then(pl.lit("outlier.vlm"))
        .when(missed_detector)
        .then(pl.lit("outlier.detector"))
        .alias("reason"),
        _where(none, missed_vlm, missed_detector, "s", "c").alias("value"),
        _where(none, missed_vlm, missed_detector, pl.lit(m, pl.Float64), pl.lit(n, pl.Float64)).alias("cut"),
        pl.when(none)
        .then(_what_is_missing())
        .when(missed_vlm & missed_detector)
        .then(pl.format("detector {} is below {} too", "c", pl.lit(n, pl.Float64)))
        .alias("detail"),
    )
    return Judged(rows, m, n)


def _missed(column: str, cut: float | None) -> pl.Expr:
    return pl.lit(value=False) if cut is None else pl.col(column) < cut


def _where(
    none: pl.Expr, vlm: pl.Expr, detector: pl.Expr, of_vlm: pl.Expr | str, of_detector: pl.Expr | str
) -> pl.Expr:
    """The VLM's number where its cut was missed, the detector's where only that was, else null."""
    return pl.when(none).then(None).when(vlm).then(of_vlm).when(detector).then(of_detector)


def _what_is_missing() -> pl.Expr:
    return (
        pl.when(pl.col("s").is_null() & pl.col("c").is_null())
        .then(pl.lit("neither score: the encoder could not take the image, or gave no number"))
        .when(pl.col("s").is_null())
        .then(pl.lit("no vlm score: the encoder gave no number"))
        .otherwise(pl.lit("no detector score: the detector gave no number"))
    )

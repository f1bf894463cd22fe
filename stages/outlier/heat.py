"""The paper's heat map (arXiv 2306.11300v5, figure 13): how many rows each pair of shares would leave."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.outlier.thresholds import share_cut

SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)
"""Shares of the pool, of both axes; the paper's grid."""


def heat_map(vlm: NDArray[np.float64], detector: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many rows remain at each pair of shares.

    The cell (1, 1) is the pool without the rows that lack a score: those never pass.

    Args:
        vlm: VLM scores of the whole pool, float64 [N], as `thresholds.exact` gives them; NaN: none.
        detector: The detector's scores of the same rows, float64 [N].

    Returns:
        int64 [9, 9]: rows are shares of the VLM score, columns shares of the detector's, both in order of `SHARES`.
    """
    known = ~(np.isnan(vlm) | np.isnan(detector))
    # The cuts rise as the shares fall, so the number of cuts that a score reaches tells every share it is in.
    reached = [_cuts_reached(scores, known) for scores in (vlm, detector)]
    counts = np.zeros((len(SHARES) + 1, len(SHARES) + 1), np.int64)
    np.add.at(counts, (reached[0], reached[1]), 1)
    at_least = counts[::-1, ::-1].cumsum(axis=0).cumsum(axis=1)[::-1, ::-1]
    return at_least[1:, 1:]


def _cuts_reached(scores: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.int64]:
    values = [share_cut(scores, share) for share in SHARES]
    cuts = np.array([-np.inf if value is None else value for value in values])
    return np.searchsorted(cuts, scores[known], side="right").astype(np.int64)

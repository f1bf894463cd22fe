import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.outlier.heat import SHARES, heat_map
from stages.outlier.thresholds import Threshold, cut_value

SCORE = st.integers(0, 30).map(lambda n: n / 100) | st.just(float("nan"))


def test_the_papers_axes():
    assert tuple(round(1 - 0.05 * step, 2) for step in range(9)) == SHARES


def test_independent_scores_leave_the_product_of_the_shares():
    side = np.arange(100) / 100
    vlm, detector = (axis.ravel() for axis in np.meshgrid(side, side, indexing="ij"))
    grid = heat_map(vlm, detector)
    assert grid[0, 0] == 10_000
    assert grid[2, 4] == 9_000 * 0.8
    assert grid[4, 2] == grid[2, 4]
    assert grid[8, 8] == 3_600


def test_rows_are_shares_of_the_vlm_score():
    vlm, detector = np.arange(20) / 20, np.ones(20)
    grid = heat_map(vlm, detector)
    assert grid[:, 0].tolist() == [20, 19, 18, 17, 16, 15, 14, 13, 12]
    assert (grid == grid[:, :1]).all()  # all detector scores are equal: none is below any cut


def test_no_pool_is_a_map_of_zeros():
    assert heat_map(np.empty(0), np.empty(0)).tolist() == [[0] * 9] * 9


@given(st.lists(st.tuples(SCORE, SCORE), max_size=50))
def test_every_cell_counts_the_rows_that_pass_both_cuts(pairs):
    vlm, detector = (np.array([pair[side] for pair in pairs], np.float64) for side in (0, 1))
    grid = heat_map(vlm, detector)
    for i, share in enumerate(SHARES):
        for j, other in enumerate(SHARES):
            m, n = cut_value(vlm, Threshold(share)), cut_value(detector, Threshold(other))
            low = -np.inf
            passing = (vlm >= (low if m is None else m)) & (detector >= (low if n is None else n))
            assert grid[i, j] == passing.sum()

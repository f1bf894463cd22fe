import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.outlier.thresholds import Threshold, cut_value, exact, judge, rows_in_top, share_cut

SCORE = st.integers(-10_000, 10_000).map(lambda n: n / 10_000)
SCORES = st.lists(SCORE | st.none(), max_size=60)
SHARE = st.integers(1, 100).map(lambda n: n / 100)


def series(values):
    return pl.Series(values, dtype=pl.Float32)


def pool(vlm, detector=None):
    return pl.DataFrame({"vlm": series(vlm), "detector": series([1.0] * len(vlm) if detector is None else detector)})


def kept(vlm, detector=None, s=None, c=None):
    return judge(pool(vlm, detector), s or Threshold(), c or Threshold()).rows["reason"].is_null().to_list()


def test_the_papers_cells():
    rows = 4_019_225
    assert [rows_in_top(rows, share) for share in (1.0, 0.95, 0.9, 0.8)] == [rows, 3_818_263, 3_617_302, 3_215_380]


def test_shares_are_decimal_numbers():
    assert rows_in_top(100, 0.29) == 29  # 0.29 * 100 is 28.999999999999996 in binary fractions
    assert rows_in_top(1000, 0.7) == 700


def test_a_pool_in_which_less_than_one_row_is_to_leave_is_not_cut():
    assert [rows_in_top(n, 0.9) for n in (0, 1, 2, 9, 10, 11, 20)] == [0, 1, 2, 9, 9, 9, 18]
    assert kept([0.1, 0.2, 0.3], s=Threshold(0.9)) == [True] * 3
    assert kept([0.1, 0.2, 0.3, 0.4, 0.5], s=Threshold(0.8)) == [False, True, True, True, True]


def test_at_least_one_row_stays_whatever_the_share():
    assert [rows_in_top(n, 0.01) for n in (2, 50, 99, 200)] == [1, 1, 1, 2]
    assert kept([0.3, 0.9, 0.1], s=Threshold(0.01)) == [False, True, False]


def test_rows_equal_to_the_cut_stay():
    assert kept([0.5, 0.5, 0.5, 0.2], s=Threshold(0.5)) == [True, True, True, False]
    assert kept([0.5] * 30, s=Threshold(0.1)) == [True] * 30


def test_both_conditions_of_one_cut_hold():
    scores = [0.1, 0.2, 0.3, 0.4, 0.5]
    assert kept(scores, s=Threshold(at_least=0.35)) == [False, False, False, True, True]
    assert kept(scores, s=Threshold(0.8, 0.35)) == [False, False, False, True, True]
    assert kept(scores, s=Threshold(0.2, 0.35)) == [False, False, False, False, True]
    assert kept([-1.0, 1.0], s=Threshold(at_least=-1.0)) == [True, True]


@pytest.mark.parametrize("written", [0.21, 0.7, 0.1, 0.3333, 0.0001, -0.1235])
def test_a_stored_score_passes_the_same_number_written_as_a_setting(written):
    assert float(np.float32(written)) != written
    assert kept([written], s=Threshold(at_least=written)) == [True]
    assert kept([written], s=Threshold(at_least=written + 0.00005)) == [False]


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_never_passes(nothing):
    everything = Threshold()
    judged = judge(pool([nothing, 0.5, nothing, 0.5], [0.5, nothing, nothing, 0.5]), everything, everything)
    assert judged.rows["reason"].to_list() == ["outlier.no_score"] * 3 + [None]
    assert judged.rows["value"].to_list() == judged.rows["cut"].to_list() == [None] * 4
    details = judged.rows["detail"].to_list()
    assert [detail.split(":")[0] for detail in details[:3]] == ["no vlm score", "no detector score", "neither score"]


def test_rows_without_a_score_count_as_the_lowest_of_the_pool():
    # Of ten rows one is to leave. The one without a score is the lowest, so that no scored row is cut.
    assert kept([None, *np.arange(1, 10) / 10], s=Threshold(0.9)) == [False] + [True] * 9
    assert share_cut(exact(series([None] * 8 + [0.1, 0.2])), 0.9) is None
    assert share_cut(exact(series([None] * 8)), 0.5) is None


def test_what_the_ledger_is_told():
    vlm, detector = [0.1, 0.9, 0.1, 0.9], [0.9, 0.2, 0.2, 0.9]
    judged = judge(pool(vlm, detector), Threshold(at_least=0.5), Threshold(0.5))
    assert (judged.vlm_cut, judged.detector_cut) == (0.5, 0.9)
    assert judged.rows.rows() == [
        ("outlier.vlm", 0.1, 0.5, None),
        ("outlier.detector", 0.2, 0.9, None),
        ("outlier.vlm", 0.1, 0.5, "detector 0.2 is below 0.9 too"),
        (None, None, None, None),
    ]


def test_an_empty_pool():
    judged = judge(pool([]), Threshold(0.9), Threshold(0.8, 0.5))
    assert (judged.rows.height, judged.vlm_cut, judged.detector_cut) == (0, None, 0.5)


@given(SCORES, SHARE)
def test_at_least_the_share_stays_and_no_row_above_a_kept_one_leaves(values, share):
    scores = exact(series(values))
    stay = np.array(kept(values, s=Threshold(share)), dtype=bool)
    known = ~np.isnan(scores)
    assert not stay[~known].any()
    assert stay.sum() >= min(rows_in_top(len(values), share), known.sum())
    if stay.any() and (known & ~stay).any():
        assert scores[stay].min() > scores[known & ~stay].max()
        # Without its ties at the cut, fewer than the share would stay.
        assert (scores[stay] > scores[stay].min()).sum() < rows_in_top(len(values), share)


@given(SCORES, SHARE, SHARE)
def test_a_larger_share_keeps_every_row_that_a_smaller_one_keeps(values, one, other):
    small, large = sorted((one, other))
    fewer, more = (kept(values, s=Threshold(share)) for share in (small, large))
    assert all(b or not a for a, b in zip(fewer, more, strict=True))


@given(SCORES, SHARE, SCORE, st.randoms(use_true_random=False))
def test_the_order_of_the_pool_does_not_matter(values, share, floor, random):
    shuffled = values.copy()
    random.shuffle(shuffled)
    threshold = Threshold(share, floor)
    assert cut_value(exact(series(values)), threshold) == cut_value(exact(series(shuffled)), threshold)


@given(st.lists(st.tuples(SCORE | st.none(), SCORE | st.none()), max_size=40), SHARE, SHARE, SCORE)
def test_a_row_stays_iff_it_passes_both_cuts(values, share, other, floor):
    vlm, detector = [v for v, _ in values], [d for _, d in values]
    judged = judge(pool(vlm, detector), Threshold(share, floor), Threshold(other))
    passes = [
        s is not None and c is not None
        and (judged.vlm_cut is None or s >= judged.vlm_cut)
        and (judged.detector_cut is None or c >= judged.detector_cut)
        for s, c in values
    ]  # fmt: skip
    assert judged.rows["reason"].is_null().to_list() == passes

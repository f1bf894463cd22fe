import math

import numpy as np
import pytest

from stages.caption.chain import best_first, cosines, kept, ranks, rotation_variances, steadiest

NAN, INF = math.nan, math.inf


def test_cosines_are_rounded_so_that_last_bits_decide_nothing():
    picture = np.array([1, 0], np.float32)
    texts = np.array([[0.50001, 0], [0.50004, 0], [-0.00001, 0], [0.5001, 0]], np.float32)
    assert cosines(picture, texts) == [0.5, 0.5, 0.0, 0.5001]
    assert math.copysign(1, cosines(picture, texts)[2]) == 1
    assert ranks(cosines(picture, texts)) == [2, 3, 4, 1]


def test_ties_go_by_index_and_what_is_no_number_never_wins():
    scores = [0.1, NAN, 0.9, 0.1, INF, -INF, 0.9]
    assert best_first(scores) == [2, 6, 0, 3, 1, 4, 5]
    assert ranks(scores) == [3, 5, 1, 4, 6, 7, 2]
    assert kept(scores, 3) == [2, 6, 0]
    assert kept(scores, 99) == [2, 6, 0, 3]
    assert kept([NAN, NAN], 1) == []
    assert kept([], 5) == []


def test_variance_over_views_by_hand():
    views = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.float32)
    texts = np.array([[1, 0], [math.sqrt(0.5), math.sqrt(0.5)], [0.6, 0.8]], np.float32)
    assert rotation_variances(views, texts) == pytest.approx([0.25, 0.0, 0.01], abs=1e-7)
    assert rotation_variances(views, texts)[1] == 0.0
    assert steadiest(rotation_variances(views, texts)) == 1


def test_one_view_without_numbers_leaves_no_variance():
    views = np.array([[1, 0], [NAN, NAN]], np.float32)
    texts = np.array([[1, 0], [0, 1]], np.float32)
    assert all(math.isnan(value) for value in rotation_variances(views, texts))
    assert steadiest(rotation_variances(views, texts)) is None
    assert all(math.isnan(value) for value in cosines(views[1], texts))


def test_the_steadiest_is_the_first_of_equals_and_never_one_without_a_number():
    assert steadiest([None, NAN, 0.3, 0.2, 0.2, INF]) == 3
    assert steadiest([None, NAN]) is None
    assert steadiest([]) is None

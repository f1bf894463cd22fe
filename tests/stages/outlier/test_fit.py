import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.outlier.fit import PARTS, STRENGTHS, evaluate, fit_head, split

DIGESTS = [f"{n:064x}" for n in range(100)]


def clouds(count, distance, seed, features=6):
    """Two clouds of unlike scale and offset per feature; labels alternate."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 2 == 0
    points = draw.normal(size=(count, features)) + np.where(labels, distance, 0.0)[:, None]
    return (points * [1, 10, 100, 1, 1, 1] + [0, 5, 1000, 0, 0, 0]).astype(np.float32), labels


def probability(head, features):
    return 1 / (1 + np.exp(-(features.astype(np.float64) @ head.weight.astype(np.float64) + head.bias)))


def test_the_split_is_seven_one_two():
    parts = split(DIGESTS, 2023)
    assert [list(parts.values()).count(part) for part in PARTS] == [70, 10, 20]
    assert set(parts) == set(DIGESTS)


@given(st.lists(st.sampled_from(DIGESTS), min_size=60), st.randoms(use_true_random=False))
def test_the_split_knows_neither_order_nor_copies(digests, random):
    if len(set(digests)) < 10:
        return
    shuffled = [*digests, *digests[:5]]
    random.shuffle(shuffled)
    parts = split(digests, 1)
    assert split(shuffled, 1) == parts
    assert {"train", "val", "test"} == set(parts.values())


def test_another_seed_is_another_split():
    assert split(DIGESTS, 1) != split(DIGESTS, 2)


def test_the_smallest_split():
    parts = split(DIGESTS[:10], 5)
    assert [list(parts.values()).count(part) for part in PARTS] == [7, 1, 2]
    with pytest.raises(ValueError, match="9 distinct images; a split of 7:1:2 needs at least 10"):
        split([*DIGESTS[:9], *DIGESTS[:9]], 5)


def test_a_head_stands_on_raw_features():
    head = fit_head(clouds(400, 1.5, 1), clouds(60, 1.5, 2))
    features, labels = clouds(400, 1.5, 3)
    judged = evaluate(probability(head, features), labels)
    assert judged.auc > 0.98
    assert judged.accuracy > 0.93
    assert judged.brier < 0.06
    assert head.weight.dtype == np.float32
    assert set(head.losses) == set(STRENGTHS)
    assert head.losses[head.strength] == min(head.losses.values())


def test_both_kinds_weigh_alike():
    features, labels = clouds(600, 1.0, 4)
    few = labels & (np.cumsum(labels) > 30)  # thirty positives beside three hundred negatives
    train = features[~few], labels[~few]
    head = fit_head(train, clouds(100, 1.0, 5))
    test, truth = clouds(400, 1.0, 6)
    judged = evaluate(probability(head, test), truth)
    assert abs(judged.true_positive_rate - (1 - judged.false_positive_rate)) < 0.15


def test_a_constant_feature_harms_nobody():
    train, val = clouds(100, 2.0, 7), clouds(40, 2.0, 8)
    for part in (train[0], val[0]):
        part[:, 3] = 4.0
    head = fit_head(train, val)
    assert np.isfinite(head.weight).all()
    assert evaluate(probability(head, val[0]), val[1]).auc > 0.95


def test_the_numbers_of_an_evaluation():
    chances = np.array([0.95, 0.85, 0.55, 0.45, 0.35, 0.65, 0.15, 0.05])
    labels = np.array([True, True, True, True, False, False, False, False])
    judged = evaluate(chances, labels)
    assert judged.images == (4, 4)
    assert judged.accuracy == 6 / 8
    assert judged.true_positive_rate == 3 / 4
    assert judged.false_positive_rate == 1 / 4
    assert judged.auc == 14 / 16
    assert judged.brier == pytest.approx(((chances - labels) ** 2).mean())
    assert (judged.roc[0].threshold, judged.roc[0].true_positive_rate) == (None, 0.0)
    assert (judged.roc[-1].true_positive_rate, judged.roc[-1].false_positive_rate) == (1.0, 1.0)
    assert [found.images for found in judged.reliability] == [1, 1, 0, 1, 1, 1, 1, 0, 1, 1]
    assert judged.reliability[9].positive_share == 1.0
    assert judged.reliability[2].mean_probability is None
    json.dumps(judged.document(), allow_nan=False)


def test_the_edges_of_the_bins_and_a_long_curve_is_thinned():
    draw = np.random.default_rng(0)
    chances = np.concatenate([draw.uniform(size=5000), [0.0, 1.0]])
    labels = draw.uniform(size=chances.size) < chances
    labels[-2:] = [False, True]
    judged = evaluate(chances, labels)
    assert sum(found.images for found in judged.reliability) == chances.size
    assert len(judged.roc) == 101
    for found in judged.reliability:  # chances drawn as truth are calibrated
        assert found.positive_share == pytest.approx(found.mean_probability, abs=0.08)

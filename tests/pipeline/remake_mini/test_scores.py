import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.remake_mini.scores import FLOORS, auc, below_floor, class_accuracy, recall


def test_auc_is_the_one_of_scikit_learn():
    draws = np.random.default_rng(0)
    positive, negative = draws.integers(3, 9, 50).astype(np.float32), draws.integers(0, 7, 40).astype(np.float32)
    truth = [1] * 50 + [0] * 40
    assert auc(positive, negative) == pytest.approx(roc_auc_score(truth, np.concatenate([positive, negative])))
    assert auc(np.array([2.0], np.float32), np.array([1.0], np.float32)) == 1


def test_recall_counts_the_own_column_alone():
    similarity = np.array([[0.9, 0.1, 0.2], [0.8, 0.3, 0.5], [0.1, 0.2, 0.3]], dtype=np.float32)
    assert recall(similarity, 1) == pytest.approx(2 / 3)
    assert recall(similarity, 2) == pytest.approx(2 / 3)
    assert recall(similarity, 3) == 1


def test_accuracy_is_the_share_of_nearest_prompts():
    class Words:
        def texts(self, texts):
            return np.array([[1.0, 0.0] if "port" in text else [0.0, 1.0] for text in texts], dtype=np.float32)

    pictures = np.array([[1, 0.2], [0.1, 1], [1, 0]], dtype=np.float32)
    assert class_accuracy(Words(), pictures, ["port", "snow", "snow"], ["a {}", "{}"]) == pytest.approx(2 / 3)


def test_scores_below_their_floor_are_named():
    assert below_floor(FLOORS) == []
    (line,) = below_floor(FLOORS | {"vlm_auc": 0.5})
    assert line == "vlm_auc 0.5000 is below 0.97"

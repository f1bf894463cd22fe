"""Fitting a detector: a logistic regression over frozen features of the image tower, and how well it does.

The paper fine-tuned a ViTAE on 5,000 overhead pictures against 5,000 of ImageNet, split 7:1:2 (arXiv 2306.11300v5,
appendix B4). The split and the kinds of pictures are the paper's; the linear head is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from manifests.canonical import JsonValue
from manifests.identity import draw

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")

LEAST_IMAGES = 10
"""Images of each kind below which the tenth for validation would be empty."""

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Inverse regularisations C that validation chooses from."""

_TRAIN_TENTHS, _VAL_TENTHS = 7, 1
_ITERATIONS = 5_000
_ROC_POINTS = 101
_BINS = 10


@dataclass(frozen=True, slots=True, eq=False)
class FittedHead:
    """A linear head over raw features.

    Attributes:
        weight: float32 [F].
        bias: Of the logit.
        strength: The C that validation chose.
        losses: Validation log loss by C, classes weighted alike.
    """

    weight: NDArray[np.float32]
    bias: float
    strength: float
    losses: Mapping[float, float]


@dataclass(frozen=True, slots=True)
class RocPoint:
    """Rates at one threshold; threshold None: above every score."""

    threshold: float | None
    false_positive_rate: float
    true_positive_rate: float


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Of the pictures whose probability lies in [low, high): how many, their mean, and the share that is positive."""

    low: float
    high: float
    images: int
    mean_probability: float | None
    positive_share: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a detector does on pictures it was not fitted on.

    Attributes:
        images: Positives and negatives.
        accuracy: Share judged right at 0.5.
        auc: Area under the ROC curve.
        false_positive_rate: Share of the negatives at 0.5 or above.
        true_positive_rate: Share of the positives at 0.5 or above.
        brier: Mean squared distance of probability and truth; 0 is best.
        roc: At most 101 points of the curve, thresholds falling.
        reliability: Ten bins of equal width.
    """

    images: tuple[int, int]
    accuracy: float
    auc: float
    false_positive_rate: float
    true_positive_rate: float
    brier: float
    roc: tuple[RocPoint, ...]
    reliability: tuple[ReliabilityBin, ...]

    def document(self) -> dict[str, JsonValue]:
        """Return it as JSON."""
        return {**asdict(self), "images": {"positive": self.images[0], "negative": self.images[1]}}


def split(digests: Sequence[str], seed: int) -> dict[str, Part]:
    """Split pictures of one kind 7:1:2, in an order drawn by their digests.

    Args:
        digests: sha256 of each picture; equal ones are one picture, so no copy stands on two sides.
        seed: Another seed, another split.

    Raises:
        ValueError: If there are fewer than `LEAST_IMAGES` distinct pictures.
    """
    ordered = sorted(set(digests), key=lambda digest: (draw("detector split", seed, digest), digest))
    if len(ordered) < LEAST_IMAGES:
        raise ValueError(f"{len(ordered)} distinct images; a split of 7:1:2 needs at least {LEAST_IMAGES} of each kind")
    train, val = len(ordered) * _TRAIN_TENTHS // 10, max(1, len(ordered) * _VAL_TENTHS // 10)
    return {
        digest: "train" if place < train else "val" if place < train + val else "test"
        for place, digest in enumerate(ordered)
    }


def fit_head(
    train: tuple[NDArray[np.float32], NDArray[np.bool_]], val: tuple[NDArray[np.float32], NDArray[np.bool_]]
) -> FittedHead:
    """Fit a head on one part and choose its regularisation on another.

    Features are standardised for the fit, and the standardisation is folded into weight and bias. Both kinds weigh
    alike however many pictures they have, so a probability is that of a pool half of which is remote sensing.

    Args:
        train: Features float32 [N, F] and labels bool [N]; True: remote sensing.
        val: The same of the validation part.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.utils.class_weight import compute_sample_weight

    features = train[0].astype(np.float64)
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation[deviation == 0] = 1.0
    scaled, scaled_val = (features - mean) / deviation, (val[0] - mean) / deviation
    weights = compute_sample_weight("balanced", val[1])
    fitted, losses = {}, {}
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=_ITERATIONS).fit(scaled, train[1])
        fitted[strength] = model
        losses[strength] = float(log_loss(val[1], model.predict_proba(scaled_val)[:, 1], sample_weight=weights))
    best = min(STRENGTHS, key=lambda strength: (losses[strength], strength))
    weight = fitted[best].coef_[0] / deviation
    bias = float(fitted[best].intercept_[0] - weight @ mean)
    return FittedHead(weight.astype(np.float32), bias, best, losses)


def evaluate(probability: NDArray[np.float64], labels: NDArray[np.bool_]) -> Evaluation:
    """Measure probabilities against the truth.

    Args:
        probability: P(remote sensing), float64 [N].
        labels: bool [N], both values present.
    """
    from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

    positive = probability >= 0.5
    false_rates, true_rates, thresholds = roc_curve(labels, probability)
    shown = np.unique(np.linspace(0, len(thresholds) - 1, min(_ROC_POINTS, len(thresholds))).astype(int))
    return Evaluation(
        images=(int(labels.sum()), int((~labels).sum())),
        accuracy=float((positive == labels).mean()),
        auc=float(roc_auc_score(labels, probability)),
        false_positive_rate=float(positive[~labels].mean()),
        true_positive_rate=float(positive[labels].mean()),
        brier=float(brier_score_loss(labels, probability)),
        roc=tuple(
            RocPoint(
                float(thresholds[i]) if np.isfinite(thresholds[i]) else None,
                float(false_rates[i]),
                float(true_rates[i]),
            )
            for i in shown
        ),
        reliability=tuple(_bin(probability, labels, number) for number in range(_BINS)),
    )


def _bin(probability: NDArray[np.float64], labels: NDArray[np.bool_], number: int) -> ReliabilityBin:
    inside = np.minimum((probability * _BINS).astype(int), _BINS - 1) == number
    count = int(inside.sum())
    return ReliabilityBin(
        number / _BINS,
        (number + 1) / _BINS,
        count,
        float(probability[inside].mean()) if count else None,
        float(labels[inside].mean()) if count else None,
    )

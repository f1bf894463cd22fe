import math

import pytest
import torch
from torch.nn.functional import normalize

from stages import torchvision_shim
from stages.train.contrastive import info_nce

torchvision_shim.declare()


def features(count=64, dimensions=32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return tuple(normalize(torch.randn(count, dimensions, generator=draw), dim=1) for _ in range(2))


def transposed(rows):
    return list(zip(*rows, strict=True))


def by_hand(images, texts, scale, targets):
    """The formula, pair by pair, in float64."""
    scores = (images.double() @ texts.double().T * scale).tolist()
    count, total = len(scores), 0.0
    for rows, weights in ((scores, targets), (transposed(scores), transposed(targets))):
        for row, weight in zip(rows, weights, strict=True):
            top = max(row)
            log_sum = top + math.log(sum(math.exp(score - top) for score in row))
            mass = sum(weight) or 1.0
            total -= sum(w / mass * (score - log_sum) for w, score in zip(weight, row, strict=True)) / count / 2
    return total


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_the_loss_is_open_clips(scale):
    from open_clip.loss import ClipLoss

    images, texts = features()
    assert float(info_nce(images, texts, scale)) == pytest.approx(float(ClipLoss()(images, texts, scale)), abs=1e-6)


def test_the_gradients_are_open_clips():
    from open_clip.loss import ClipLoss

    found = []
    for loss in (info_nce, ClipLoss()):
        leaves = [part.clone().requires_grad_() for part in (*features(), torch.tensor(20.0))]
        loss(*leaves).backward()
        found.append([leaf.grad for leaf in leaves])
    for own, theirs in zip(*found, strict=True):
        assert torch.allclose(own, theirs, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_the_loss_is_the_formula(scale):
    images, texts = features(12)
    identity = torch.eye(12)
    expected = by_hand(images, texts, scale, identity.tolist())
    assert float(info_nce(images, texts, scale)) == pytest.approx(expected, abs=1e-5)
    assert float(info_nce(images, texts, scale, identity)) == pytest.approx(expected, abs=1e-5)


def test_weights_are_normalised_in_both_directions():
    images, texts = features(8)
    weights = torch.rand(8, 8, generator=torch.Generator().manual_seed(1))
    expected = by_hand(images, texts, 10.0, weights.tolist())
    assert float(info_nce(images, texts, 10.0, weights)) == pytest.approx(expected, abs=1e-5)
    assert float(info_nce(images, texts, 10.0, 5 * weights)) == pytest.approx(expected, abs=1e-5)


def test_a_pair_without_weight_adds_nothing():
    images, texts = features(8)
    weights = torch.eye(8)
    weights[3, 3] = 0
    loss = info_nce(images, texts, 10.0, weights)
    assert float(loss) == pytest.approx(by_hand(images, texts, 10.0, weights.tolist()), abs=1e-5)


def test_half_precision_features_are_compared_in_float32():
    images, texts = (part.bfloat16() for part in features())
    exact = info_nce(images.float(), texts.float(), 100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce(images, texts, 100.0)
    assert loss.dtype == torch.float32
    assert float(loss) == float(exact)

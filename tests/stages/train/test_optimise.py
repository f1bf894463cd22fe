import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages import torchvision_shim
from stages.train.optimise import Schedule, adamw, clamp_logit_scale, gradient_norm, set_learning_rate

torchvision_shim.declare()


@given(st.integers(0, 20), st.integers(1, 60))
def test_the_schedule_is_open_clips(warmup, rest):
    from open_clip_train.scheduler import cosine_lr

    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = cosine_lr(optimiser, 3e-4, warmup, warmup + rest)
    own = Schedule(3e-4, warmup, warmup + rest)
    for step in range(warmup + rest):
        assert own.at(step) == theirs(step)
        set_learning_rate(optimiser, own.at(step))
        assert optimiser.param_groups[0]["lr"] == own.at(step)


def test_a_schedule_may_be_warm_up_alone():
    assert [Schedule(1.0, 4, 4).at(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_what_decays_is_what_open_clip_lets_decay(trainee):
    model = trainee.model
    left_out = {
        p
        for n, p in model.named_parameters()
        if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n
    }
    plain, decayed = adamw(model, 1e-3, 0.5).param_groups
    assert set(plain["params"]) == left_out
    assert set(decayed["params"]) == set(model.parameters()) - left_out
    assert (plain["weight_decay"], decayed["weight_decay"]) == (0.0, 0.5)


def test_frozen_parameters_are_not_optimised(trainee):
    trainee.model.visual.proj.requires_grad_(False)
    held = [p for group in adamw(trainee.model, 1e-3, 0.5).param_groups for p in group["params"]]
    assert all(p is not trainee.model.visual.proj for p in held)
    assert len(held) == len(list(trainee.model.parameters())) - 1


@pytest.mark.parametrize(("clip", "left"), [(0.0, 5.0), (10.0, 5.0), (1.0, 1.0)])
def test_gradients_are_clipped_by_their_norm(clip, left):
    model = torch.nn.Linear(1, 1)
    model.weight.grad, model.bias.grad = torch.tensor([[3.0]]), torch.tensor([4.0])
    assert float(gradient_norm(model, clip)) == pytest.approx(5.0)
    assert math.hypot(float(model.weight.grad), float(model.bias.grad)) == pytest.approx(left, rel=1e-5)


@pytest.mark.parametrize(("value", "kept"), [(-1.0, 0.0), (2.5, 2.5), (9.0, math.log(100))])
def test_the_logit_scale_stays_within_bounds(trainee, value, kept):
    trainee.model.logit_scale.data.fill_(value)
    clamp_logit_scale(trainee.model)
    assert float(trainee.model.logit_scale.detach()) == pytest.approx(kept)

import numpy as np
import pytest
import torch
from PIL import Image

from stages import torchvision_shim
from stages.train.transforms import Transform
from tests.stages.train.tiny import PREPROCESS

torchvision_shim.declare()
CONFIG = {**PREPROCESS, "size": 32}
PICTURE = Image.fromarray(np.random.default_rng(0).integers(100, 256, (48, 64, 3)).astype(np.uint8))


def test_eval_is_the_models_own():
    from open_clip.transform import PreprocessCfg, image_transform_v2

    expected = image_transform_v2(PreprocessCfg(**CONFIG), is_train=False)(PICTURE)
    assert torch.equal(Transform(CONFIG, "eval", 1)(PICTURE, 3, 4), expected)


def test_draws_are_keyed_on_seed_epoch_and_sample_and_on_nothing_else():
    apply = Transform(CONFIG, "georsclip", 1)
    torch.manual_seed(0)
    first, before = apply(PICTURE, 0, 5), torch.random.get_rng_state()
    torch.manual_seed(99)
    apply(PICTURE, 2, 6)
    assert torch.equal(apply(PICTURE, 0, 5), first)
    others = (apply(PICTURE, 1, 5), apply(PICTURE, 0, 6), Transform(CONFIG, "georsclip", 2)(PICTURE, 0, 5))
    assert not any(torch.equal(other, first) for other in others)
    torch.manual_seed(0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_georsclip_turns_by_any_angle_flips_half_and_normalises():
    left_is_dark = np.full((64, 64, 3), 255, np.uint8)
    left_is_dark[:, :32] = 90
    apply = Transform(CONFIG, "georsclip", 3)
    tensors = [apply(Image.fromarray(left_is_dark), 0, key) for key in range(200)]
    assert all(t.shape == (3, 32, 32) and t.dtype == torch.float32 for t in tensors)
    corners = torch.stack([t[0, 0, 0] for t in tensors])
    assert 0.5 < (corners == -1).float().mean() < 1  # black, where the turn leaves nothing
    lines = [torch.stack([t[0, 16, 4], t[0, 4, 16], t[0, 16, 27], t[0, 27, 16]]) > 0 for t in tensors]
    for side in torch.stack(lines).float().mean(dim=0):
        assert side == pytest.approx(0.5, abs=0.15)  # bright as often on each side

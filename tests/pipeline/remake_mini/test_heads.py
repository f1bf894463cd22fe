import numpy as np
import pytest
import torch

from manifests.models import resolve
from pipeline.remake_mini.heads import Features, Heads, Settings, train_heads
from stages.mini_model import shipped_projection


def features():
    """Three classes whose pictures and texts lie near directions of their own; half of one class are photographs."""
    draws = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 8)
    centres, said = draws.normal(size=(3, 12)), draws.normal(size=(3, 6))
    images = centres[labels][:, None, :] + 0.1 * draws.normal(size=(24, 2, 12))
    choices = [(np.array([label, 3]), np.array([0.9, 0.1])) for label in labels]
    texts = np.concatenate([said, draws.normal(size=(1, 6))])
    return Features(images.astype(np.float32), texts.astype(np.float32), choices, labels, labels == 2)


def trained(seed):
    told = Settings(seed=seed, epochs=40, batch=12, warmup_steps=2, lr=1e-2)
    return train_heads(features(), 8, told, lambda _: None)


def test_training_brings_pictures_to_their_texts():
    heads = trained(0)
    given = features()
    with torch.inference_mode():
        images = torch.nn.functional.normalize(heads.image(torch.from_numpy(given.images[:, 0])), dim=-1)
        texts = torch.nn.functional.normalize(heads.text(torch.from_numpy(given.texts[:3])), dim=-1)
    assert ((images @ texts.T).argmax(dim=1).numpy() == given.labels).all()


def test_equal_seeds_are_equal_weights():
    one, again, other = (trained(seed).named_as_in_open_clip() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["text.proj.0.weight"], other["text.proj.0.weight"])


def test_names_and_shapes_are_those_of_the_shipped_file():
    spec = resolve("mini", "k")
    made = Heads(spec.features, 384, spec.dimensions).named_as_in_open_clip()
    shipped = shipped_projection()
    assert {name: tensor.shape for name, tensor in made.items()} == {n: t.shape for n, t in shipped.items()}
    assert sum(tensor.numel() for tensor in shipped.values()) == pytest.approx(992_000, rel=0.01)

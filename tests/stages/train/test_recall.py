import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from stages.train import recall as recall_module
from stages.train.members import read_members
from stages.train.recall import evaluate, recalls, validation_members
from tests.stages.train.tiny import pairs, samples_of, write_tar


def brute(queries, candidates, k):
    hits = 0
    for row, scores in enumerate(queries @ candidates.T):
        hits += row in np.argsort(-scores, kind="stable")[:k]
    return hits / len(queries)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10), st.booleans())
def test_recall_is_what_sorting_gives_ties_included(count, seed, tied):
    draw = np.random.default_rng(seed)
    images, texts = (draw.integers(-2, 3, (count, 3)).astype(np.float32) for _ in range(2))
    if tied:
        texts[:] = texts[0]
    found = recalls(torch.from_numpy(images), torch.from_numpy(texts))
    for k in (1, 5, 10):
        assert found[f"image_to_text_R@{k}"] == brute(images, texts, k)
        assert found[f"text_to_image_R@{k}"] == brute(texts, images, k)


def test_more_pairs_than_are_compared_at_a_time(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    images = normalize(torch.randn(300, 8, generator=draw), dim=1)
    texts = normalize(images + 0.5 * torch.randn(300, 8, generator=draw), dim=1)
    whole = recalls(images, texts)
    monkeypatch.setattr(recall_module, "_ROWS", 64)
    assert recalls(images, texts) == whole


def test_what_cannot_be_used_is_left_out(trainee, tmp_path):
    content = [*pairs(5), (b"no picture", "a caption"), *pairs(5, 5)]
    found = evaluate(trainee, samples_of(trainee, write_tar(tmp_path / "a.tar", content)), "cpu", "fp32", 0)
    assert found["pairs"] == 10
    nothing = samples_of(trainee, write_tar(tmp_path / "b.tar", [(b"", "a caption")]))
    assert evaluate(trainee, nothing, "cpu", "fp32", 0) == {"pairs": 0}


def test_validation_pairs_are_drawn_by_key_and_not_by_place(tmp_path):
    members = read_members([write_tar(tmp_path / "a.tar", pairs(40))])
    other = read_members(
        [write_tar(tmp_path / "b.tar", pairs(20, 20), first=20), write_tar(tmp_path / "c.tar", pairs(20))]
    )
    drawn = validation_members(members, 10, 1)
    assert len(drawn) == 10
    assert set(drawn.rows["key"]) == set(validation_members(other, 10, 1).rows["key"])
    assert set(drawn.rows["key"]) != set(validation_members(members, 10, 2).rows["key"])
    assert len(validation_members(members, 0, 1)) == len(validation_members(members, 40, 1)) == 40

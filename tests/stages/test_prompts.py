import numpy as np
import pytest

from stages.encoder import Placement, load_encoder
from stages.prompts import prompt_vector, prompts, prompts_digest


def test_the_papers_prompts():
    said = prompts("rs5m-33")
    assert len(said) == len(set(said)) == 33
    assert {"an aerial image.", "a remote sensing image.", "a satellite image."} <= set(said)
    assert {
        "a low resolution aerial image.",
        "a jpeg corrupted satellite image.",
        "a good remote sensing image.",
    } <= set(said)
    assert all(text.endswith(" image.") and "  " not in text for text in said)
    for kind in ("remote sensing", "aerial", "satellite"):
        assert sum(kind in text for text in said) == 11


def test_their_digest_is_stable_and_unknown_names_are_refused():
    assert prompts_digest("rs5m-33") == prompts_digest("rs5m-33")
    with pytest.raises(ValueError, match="rs5m-33"):
        prompts("rs5m-34")


def test_the_vector_is_the_mean_of_the_prompts_as_a_unit_vector():
    encoder = load_encoder("nano", Placement(), "k")
    vector = prompt_vector(encoder, "rs5m-33")
    assert vector.shape == (encoder.dimensions,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    cosines = encoder.texts(prompts("rs5m-33")) @ vector
    assert cosines.min() > 0
    assert vector @ encoder.texts(["a wooden chair"])[0] < cosines.min()

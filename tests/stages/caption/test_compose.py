import collections

import numpy as np
import pytest
from PIL import Image

from manifests.identity import draw
from manifests.vocabulary import make_vocabulary
from stages.caption.captioner import NotCaptioned, Sampling, candidate_seed
from stages.caption.compose import Compose, nucleus, pick
from tests.stages.caption.encoders import TableEncoder

WORDS = make_vocabulary(
    "test",
    {
        "scenes": ["a harbor", "a forest", "a desert"],
        "objects": ["boats", "trees", "rocks"],
        "templates": ["{scene}", "{scene} with {object}", "{object} and {other} in {scene}"],
        "scene_prompt": "an image of {scene}",
        "object_prompt": "an image with {object}",
    },
)
AXES = {"an image of a harbor": 0, "an image of a forest": 1, "an image of a desert": 2,
        "an image with boats": 0, "an image with trees": 1, "an image with rocks": 2}  # fmt: skip
TABLE = {text: tuple(np.eye(3)[axis]) for text, axis in AXES.items()}


def looks(level, view):
    """Level 0, 1, 2: surely one kind; 3: half harbor, half forest; 9: no number."""
    if level == 9:
        return (np.nan,) * 3
    return (0.7, 0.7, 0.0) if level == 3 else tuple(np.eye(3)[level])


def compose(candidates=20, words=WORDS, **changed):
    return Compose(TableEncoder(TABLE, looks), words, Sampling(2023, candidates, **changed))


def picture(level):
    return Image.new("RGB", (8, 8), (level, 0, 0))


def texts(found):
    return [candidate.text for candidate in found]


def test_candidates_are_distinct_sentences_of_what_the_encoder_takes_for_likely():
    for number in range(50):
        found, sure = compose(6).candidates([(f"sample {number}", picture(3)), (f"other {number}", picture(1))])
        assert len(set(texts(found))) == len(found) == 6
        assert all(("a forest" in text) != ("a harbor" in text) for text in texts(found))
        both = [text.partition(" in a ")[0].split(" and ") for text in texts(found) if " and " in text]
        assert all(set(pair) == {"trees", "boats"} for pair in both)
        assert all("a forest" in text and "{" not in text for text in texts(sure))
        assert all("trees" in text for text in texts(sure) if text != "a forest")


def test_an_image_gets_the_same_whatever_stands_beside_it():
    images = [(f"sample {number}", picture(number % 4)) for number in range(6)]
    together = compose().candidates(images)
    alone = [compose().candidates([image])[0] for image in reversed(images)][::-1]
    assert together == alone
    assert texts(together[3]) != texts(compose().candidates([("other", picture(3))])[0])


def test_the_seed_column_tells_the_sentence():
    (found,) = compose(2).candidates([("one", picture(3))])
    assert [candidate.seed for candidate in found] == [candidate_seed(2023, "one", number) for number in range(2)]
    (again,) = Compose(TableEncoder(TABLE, looks), WORDS, Sampling(7, 2)).candidates([("one", picture(3))])
    assert {candidate.seed for candidate in again}.isdisjoint(candidate.seed for candidate in found)


def test_a_vocabulary_with_few_sentences_gives_few_candidates():
    (found,) = compose(1000).candidates([("one", picture(0))])
    # One sure scene; two objects stay drawable: 1 + 2 + 2 sentences.
    assert 3 <= len(found) <= 5
    assert len(set(texts(found))) == len(found)


def test_a_picture_without_numbers_has_no_candidates():
    found = compose(5).candidates([("bad", picture(9)), ("good", picture(0))])
    assert found[0] == NotCaptioned("caption.rank: the encoder gave a cosine that is no finite number")
    assert len(found[1]) > 0
    assert compose().candidates([]) == []


def test_scenes_come_as_often_as_the_encoder_finds_them_likely():
    one = compose(1)
    drawn = [texts(one.candidates([(f"{number}", picture(3))])[0])[0] for number in range(600)]
    counts = collections.Counter("harbor" if "harbor" in text else "forest" for text in drawn)
    assert set(counts) == {"harbor", "forest"}
    assert 240 < counts["harbor"] < 360
    assert not any("desert" in text for text in drawn)


def test_nucleus_by_hand():
    logits = np.log([0.5, 0.3, 0.15, 0.05])

    def left(**changed):
        return np.flatnonzero(nucleus(logits, Sampling(0, 1, **changed))).tolist()

    assert left(top_p=1.0, top_k=0) == [0, 1, 2, 3]
    assert left(top_p=0.79, top_k=0) == [0, 1]
    assert left(top_p=0.81, top_k=0) == [0, 1, 2]
    assert left(top_p=1.0, top_k=1) == [0]
    assert left(top_p=0.01, top_k=0) == [0]
    assert left(top_p=0.79, top_k=0, temperature=0.1) == [0]
    assert np.flatnonzero(nucleus(logits, Sampling(0, 1, top_k=1), least=2)).tolist() == [0, 1]
    weights = nucleus(logits, Sampling(0, 1, top_p=1.0, top_k=0))
    assert weights / weights.sum() == pytest.approx([0.5, 0.3, 0.15, 0.05])
    sure = nucleus(np.array([0.0, -1e6]), Sampling(0, 1), least=2)
    assert sure[0] == 1
    assert sure[1] > 0


def test_pick_never_takes_what_weighs_nothing():
    weights = np.array([0.0, 1.0, 0.0, 3.0, 0.0])
    counts = collections.Counter(pick(weights, draw("pick", number)) for number in range(2000))
    assert set(counts) == {1, 3}
    assert 400 < counts[1] < 600
    assert (pick(weights, 0.0), pick(weights, 1 - 2**-53)) == (1, 3)

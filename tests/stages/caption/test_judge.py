import math

import numpy as np
import pytest
from PIL import Image

from stages.caption.captioner import Candidate, NotCaptioned
from stages.caption.judge import Judge
from tests.stages.caption.encoders import TableEncoder

TEXTS = ["a", "b", "c", "d", "e"]


def plane(degrees):
    return (math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))


# The first encoder sees the picture at 0 degrees, and the texts further and further from it.
FIRST = {"a": plane(10), "b": plane(20), "c": plane(30), "d": plane(40), "e": plane(50)}
# The second one turns the order around.
SECOND = {"a": plane(50), "b": plane(40), "c": plane(30), "d": plane(20), "e": plane(10)}


def still(level, view):
    return plane(0)


def shaking(level, view):
    return plane(10 if view % 2 else -10)


def numbered(texts=TEXTS):
    return [(number, Candidate(text, 100 + number)) for number, text in enumerate(texts)]


def picture(level=100):
    return Image.new("RGB", (40, 30), (level, 0, 0))


def judge(first=FIRST, second=SECOND, third=FIRST, *, keep=3, keep_again=2, seen=(still, still, shaking), count=4):
    encoders = {
        name: TableEncoder(table, see)
        for name, table, see in zip("ABR", (first, second, third), seen, strict=True)
    }  # fmt: skip
    return Judge(encoders, rank="A", rerank="B", rotate="R", keep=keep, keep_again=keep_again, rotations=count)


def judged(chain, texts=TEXTS):
    (found,) = chain.judge([picture()], [numbered(texts)])
    return found


def by_text(found):
    return {one.text: one for one in found}


def test_the_whole_chain_by_hand():
    found = by_text(judged(judge()))
    assert [found[text].rank_a for text in TEXTS] == [1, 2, 3, 4, 5]
    assert found["a"].score_a == round(math.cos(math.radians(10)), 4)
    # a, b, c stay; the second encoder puts c first and a last, so c and b stay.
    assert [found[text].rank_b for text in TEXTS] == [3, 2, 1, None, None]
    assert found["c"].score_b == round(math.cos(math.radians(30)), 4)
    assert [found[text].rotation_variance is None for text in TEXTS] == [True, False, False, True, True]
    expected = np.var([math.cos(math.radians(20 - turn)) for turn in (-10, 10, -10, 10)])
    assert found["b"].rotation_variance == pytest.approx(expected, abs=1e-7)
    assert found["b"].rotation_variance < found["c"].rotation_variance
    assert [(one.index, one.seed) for one in found.values()] == [(0, 100), (1, 101), (2, 102), (3, 103), (4, 104)]


def test_fewer_candidates_than_are_kept():
    found = by_text(judged(judge(keep=10, keep_again=5), ["b", "a"]))
    assert {text: (one.rank_a, one.rank_b) for text, one in found.items()} == {"a": (1, 2), "b": (2, 1)}
    assert all(one.rotation_variance is not None for one in found.values())


def test_equal_scores_go_by_number():
    same = dict.fromkeys(TEXTS, plane(15))
    found = judged(judge(same, same, same))
    assert [one.rank_a for one in found] == [1, 2, 3, 4, 5]
    assert [one.rank_b for one in found] == [1, 2, 3, None, None]
    assert [one.rotation_variance is not None for one in found] == [True, True, False, False, False]


def test_a_score_that_is_no_number_never_wins():
    first = FIRST | {"a": (math.nan, math.nan)}
    second = SECOND | {"c": (math.nan, 0.0)}
    found = by_text(judged(judge(first, second, keep=3, keep_again=3)))
    assert [found[text].rank_a for text in TEXTS] == [5, 1, 2, 3, 4]
    assert math.isnan(found["a"].score_a)
    assert found["a"].rank_b is None
    assert [found[text].rank_b for text in "bcd"] == [2, 3, 1]
    assert found["c"].rotation_variance is None
    assert {text for text in TEXTS if found[text].rotation_variance is not None} == {"b", "d"}


@pytest.mark.parametrize(
    ("place", "words"), [(0, "caption.rank A"), (1, "caption.rerank B"), (2, "caption.rotate R")]
)  # fmt: skip
def test_a_picture_that_gives_no_number_has_no_caption(place, words):
    seen = [still, still, shaking]
    seen[place] = lambda level, view: (math.nan, math.nan) if level == 200 else plane(view)
    chain = judge(seen=seen)
    found = chain.judge([picture(), picture(200), picture()], [numbered()] * 3)
    assert [isinstance(one, NotCaptioned) for one in found] == [False, True, False]
    assert words in found[1].detail


def test_equal_encoders_make_features_once():
    encoder = TableEncoder(FIRST, shaking)
    chain = Judge({"A": encoder}, rank="A", rerank="A", rotate="A", keep=3, keep_again=2, rotations=4)
    chain.judge([picture(), picture(90)], [numbered(), numbered(TEXTS[:2])])
    assert encoder.asked_pictures == [[100, 90], [100] * 4, [90] * 4]
    assert encoder.asked_texts == [TEXTS]
    chain.judge([picture(80)], [numbered()])
    assert encoder.asked_texts == [TEXTS]


def test_nothing_to_judge():
    assert judge().judge([], []) == []

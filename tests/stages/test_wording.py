import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.wording import MAX_CHARACTERS, MAX_FACT_CHARACTERS, clean, clean_fact

# "harbor" in Chinese and in Arabic; a Persian word whose parts a joiner keeps apart.
HARBORS = "\u6e2f\u53e3 \u0627\u0644\u0645\u064a\u0646\u0627\u0621"
JOINED = "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a harbor\nwith  boats \t", "a harbor with boats"),
        ("a\x00b\x1b[31mred", "a b [31mred"),
        ("zero\u200bwidth \u202ebidi\u2066", "zerowidth bidi"),
        ("\u2028line\u2029", "line"),
        ("cafe\u0301", "caf\u00e9"),
        (HARBORS, HARBORS),
        (JOINED, JOINED),
        ("\ud800lone", "lone"),
        ("", ""),
        (" \t\n\u00a0\u3000", ""),
        ("\u200c\u200d\u200b", ""),
    ],
)  # fmt: skip
def test_what_is_left_of_a_text(text, line):
    assert clean(text) == line


def test_three_thousand_words_are_cut_after_a_whole_word():
    line = clean(" ".join(f"word{number}" for number in range(3000)))
    assert MAX_CHARACTERS - 10 < len(line) <= MAX_CHARACTERS
    assert line.split()[-1] == f"word{len(line.split()) - 1}"
    assert clean("x" * 5000) == "x" * MAX_CHARACTERS
    assert clean("y" * MAX_CHARACTERS) == "y" * MAX_CHARACTERS


@given(st.text(max_size=1500))
def test_any_text_becomes_one_bounded_line(text):
    line = clean(text)
    assert len(line) <= MAX_CHARACTERS
    assert line == " ".join(line.split()) == clean(line)
    assert all(unicodedata.category(char) not in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp") for char in line)


def test_a_fact_is_short_and_a_text():
    assert clean_fact("parking\n lot \u202eegarag\u2069") == "parking lot egarag"
    line = clean_fact("runway " * 600)
    assert MAX_FACT_CHARACTERS - 7 < len(line) <= MAX_FACT_CHARACTERS
    assert line.split() == ["runway"] * len(line.split())
    assert [clean_fact(value) for value in (None, 3, ["a"], {"a": 1}, "\u200b\n")] == [""] * 5

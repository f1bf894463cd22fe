import re
from functools import cache, partial

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.lexicon import load_lexicon
from stages.filter import prefilter
from stages.filter.matcher import Matcher
from stages.filter.prefilter import FOLD, HYPHENS, SPACES, Hyperscan, Re2, make_prefilter

RS5M = load_lexicon("rs5m-1")
ENTRIES = RS5M.stems + RS5M.names
SHORT = ("a b c", "k-s", "naip")  # two separators; letters that have a second spelling beyond ASCII

hyperscan = pytest.importorskip("hyperscan", reason="no wheel of hyperscan for this machine: RE2 is used")
ENGINES = {"hyperscan": cache(partial(Hyperscan, hyperscan)), "re2": cache(Re2)}  # made once, as a worker does


@pytest.fixture(params=ENGINES)
def engine(request):
    return ENGINES[request.param]


def spelled(entry):
    """Texts that hold an entry, with every letter, space and hyphen in any spelling that the definition allows."""
    others = {letter: chr(code) for code, letter in FOLD.items() if code > 0x7F}

    def one(char):
        if char == " ":
            return st.lists(st.sampled_from(SPACES).map(chr), min_size=1, max_size=3).map("".join)
        if char == "-":
            return st.sampled_from(HYPHENS).map(chr)
        return st.sampled_from([char, char.upper(), *([others[char]] if char in others else [])])

    return st.tuples(st.text(max_size=3), *map(one, entry.lower()), st.text(max_size=3)).map("".join)


TEXTS = st.lists(
    st.one_of(st.none(), st.text(max_size=12), st.sampled_from(ENTRIES + SHORT).flatmap(spelled)), max_size=8
)


@settings(max_examples=400)
@given(TEXTS, st.integers(0, 3), st.booleans())
def test_no_text_with_a_keyword_is_passed_over(texts, start, large):
    column = pa.array(texts, pa.large_string() if large else pa.string())[start:]
    for lexicon in (ENTRIES, SHORT):
        holds = [bool(text) and stands_in(text, lexicon) for text in column.to_pylist()]
        for make in ENGINES.values():
            found = make(lexicon).possible(column)
            assert found.dtype == np.bool_
            assert not any(wanted and not one for one, wanted in zip(found, holds, strict=True))


def stays(engine, column):
    """Which texts stay after the exact test."""
    matcher = Matcher(RS5M, "stem", prefilter=engine(ENTRIES))
    may = matcher.possible(column).tolist()
    return [one and bool(matcher.keywords(text)) for one, text in zip(may, column.to_pylist(), strict=True)]


def stands_in(text, entries):
    folded = text.translate(FOLD)
    spaces, hyphens = "".join(map(chr, SPACES)), "".join(map(chr, HYPHENS))
    patterns = (e.lower().replace("-", f"[{re.escape(hyphens)}]").replace(" ", f"[{spaces}]+") for e in entries)
    return any(re.search(pattern, folded) for pattern in patterns)


@given(TEXTS)
def test_the_rows_that_stay_do_not_depend_on_the_engine(texts):
    column = pa.array(texts, pa.string())
    masks = [stays(make, column) for make in ENGINES.values()]
    assert masks[0] == masks[1]


def test_ordinary_texts_are_passed_over(engine):
    texts = ["a red car", "planet earth from space", "remote control", "satellite dish", None, "", "the aerial"]
    assert not engine(ENTRIES).possible(pa.array(texts)).any()


def test_a_find_across_two_rows_is_none_of_the_first(engine):
    """All rows are one run of bytes; what ends in a row may count for it, and the exact test decides."""
    texts = ["an aerial", " view", "aerial view"]
    found = engine(ENTRIES).possible(pa.array(texts))
    assert (found[0], found[2]) == (False, True)
    assert stays(engine, pa.array(texts)) == [False, False, True]


def test_bytes_that_are_no_text_do_no_harm(engine):
    raw = pa.array([b"aerial view \xff", b"\xff\xfe", b"usgs", b""], pa.binary())
    unchecked = pa.Array.from_buffers(pa.string(), 4, raw.buffers())
    assert engine(ENTRIES).possible(unchecked)[2]


def test_columns_without_bytes(engine):
    for column in (pa.array([], pa.string()), pa.nulls(3, pa.string()), pa.array(["", ""]), pa.array(["usgs"])[1:]):
        assert engine(ENTRIES).possible(column).tolist() == [False] * len(column)


def test_a_column_too_long_for_one_call_is_cut(monkeypatch):
    monkeypatch.setattr(prefilter, "_MAX_SCAN_BYTES", 16)
    texts = ["usgs", "a car", None, "landsat", "nothing", "x" * 40 + " naip"]
    found = Hyperscan(hyperscan, ENTRIES).possible(pa.array(texts))
    assert found.tolist() == [True, False, False, True, False, True]


def test_without_hyperscan_re2_looks(monkeypatch):
    assert isinstance(make_prefilter(ENTRIES), Hyperscan)
    monkeypatch.setattr(prefilter, "_hyperscan", lambda: None)
    assert isinstance(make_prefilter(ENTRIES), Re2)

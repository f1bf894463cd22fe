import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.filter.values import FLOAT32_MAX, canonical, detail, number, pixels, word

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def plain(value):
    """What JSON can hold of a value, the slow way."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return value


@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=5))
def test_canonical_json_is_that_of_the_standard_library_sorted_and_without_nulls_at_the_top(raw):
    kept = {name: value for name, item in raw.items() if (value := plain(item)) is not None}
    expected = json.dumps(kept, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    assert canonical(raw) == (expected if kept else None)


def test_what_json_has_no_word_for():
    raw = {"when": date(2020, 1, 2), "bytes": b"\x01\xff", "exact": Decimal("1.50"), "none": float("nan")}
    assert canonical(raw) == '{"bytes":"01ff","exact":"1.50","when":"2020-01-02"}'


@pytest.mark.parametrize(
    ("value", "read"),
    [(None, None), ("", None), ("x", "x"), (b"x", "x"), (b"", None), (7, "7"), (7.0, "7"), (7.5, "7.5"),
     (True, "true"), (False, "false"), ({"a": 1}, None), ({}, None), ([], None), (["x"], None), (("x",), None),
     (float("nan"), None), (float("inf"), None), (datetime(2020, 1, 2, 3, tzinfo=UTC), "2020-01-02T03:00:00+00:00")],
)  # fmt: skip
def test_a_value_as_words(value, read):
    assert word(value) == read


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(ValueError, match="utf-8"):
        word(b"\xff")


@pytest.mark.parametrize(
    ("value", "read"),
    [(None, None), ("x", None), ("1.5", 1.5), (2, 2.0), (True, 1.0), (float("nan"), None), (1e39, None),
     (FLOAT32_MAX, FLOAT32_MAX), (10**400, None), (Decimal("0.5"), 0.5), ([1], None)],
)  # fmt: skip
def test_a_value_as_a_number(value, read):
    assert number(value) == read


@pytest.mark.parametrize(("value", "read"), [(0, None), (0.9, None), (1.9, 1), ("640", 640), (2**31, None), (-3, None)])
def test_a_value_as_pixels(value, read):
    assert pixels(value) == read


@given(st.text())
def test_a_detail_is_short_plain_ascii(words):
    said = detail(words)
    assert said.isascii()
    assert said.isprintable()
    assert len(said) <= 200

import pyarrow as pa
import pytest

from manifests.lexicon import load_lexicon
from stages.filter.matcher import Matcher
from stages.filter.text_columns import is_list, possible_rows, text_strings

MATCHER = Matcher(load_lexicon("rs5m-1"), "stem")


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view(),
     pa.dictionary(pa.int8(), pa.string())],
    ids=str,
)  # fmt: skip
def test_every_type_of_text_is_looked_at(kind):
    values = ["a dog", "usgs", None, "USGS"]
    raw = pa.array([v and v.encode() for v in values], pa.binary()) if "binary" in str(kind) else pa.array(values)
    column = raw.dictionary_encode() if pa.types.is_dictionary(kind) else raw.cast(kind)
    assert possible_rows(text_strings(column), MATCHER).tolist() == [False, True, False, True]


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string()), pa.list_(pa.string(), 2)])
def test_a_list_may_hold_a_keyword_where_any_of_its_texts_does(kind):
    column = pa.array([["a", "dog"], ["x", "usgs"], None, [None, "modis"]], kind)
    assert is_list(kind)
    assert possible_rows(column, MATCHER).tolist() == [False, True, False, True]


def test_a_column_of_nothing_holds_nothing():
    assert possible_rows(text_strings(pa.nulls(3)), MATCHER).tolist() == [False] * 3

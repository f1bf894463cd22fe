import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.lexicon import load_lexicon
from manifests.sources import SourceSpec, load_sources
from stages.filter.matcher import Matcher
from stages.filter.rows import (
    HITS,
    MetadataError,
    check_names,
    find,
    listed,
    make_hit,
    make_hits,
    record_layout,
    resolve,
)

MATCHER = Matcher(load_lexicon("rs5m-1"), "stem")
SOURCES = load_sources()
SPEC = SourceSpec.model_validate({
    "key": "mine", "name": "Mine", "format": "parquet", "text": ["title", "caption"],
    "columns": {"url": ["url", "link"], "nsfw": ["unsafe"], "width": ["w", "width"]},
})  # fmt: skip
OWN = SPEC.model_copy(update={"own": True})


def refusal(spec, names):
    with pytest.raises(MetadataError) as error:
        resolve(spec, names, "some.parquet")
    return str(error.value)


def test_columns_are_found_by_their_spelling_first_then_in_any_case():
    layout = resolve(OWN, ("URL", "Title", "title", "CAPTION", "Unsafe", "WIDTH", "w", "more"), "x")
    assert layout.text == ("title", "CAPTION")
    assert dict(layout.fields) == {"url": "URL", "nsfw": "Unsafe", "width": "w"}
    assert resolve(SPEC, ("Link", "title", "caption"), "x").fields == {"url": "Link"}


@pytest.mark.parametrize(
    ("spec", "names", "words"),
    [
        (SPEC, ("url", "title", "captoin"), "no text column caption, which source mine needs; its columns are url,"),
        (SPEC, ("title", "caption"), "no url column url or link, which"),
        (SPEC, ("x",), "no url column url or link, no text column title, no text column caption, which"),
        (OWN, ("url", "title", "caption", "w"), "some.parquet: no nsfw column unsafe, which source mine needs"),
        (OWN, ("url", "title", "caption", "unsafe"), "no width column w or width, which"),
        (SPEC, (), "its columns are . Check"),
        (SPEC, ("url", "title", "caption", "a", "a"), "a column name stands twice: a"),
        (SOURCES["laioncoco"], ("URL", "TEXT", "top_caption"), "no text column all_captions, which source laioncoco"),
        (SOURCES["laion2b"], ("URL", "text_"), "no text column TEXT or caption, which"),
    ],
)  # fmt: skip
def test_every_text_column_must_be_there_and_all_that_the_recipe_names(spec, names, words):
    assert words in refusal(spec, names)


def test_other_columns_of_a_described_source_may_be_missing():
    assert resolve(SPEC, ("url", "title", "caption"), "x").fields == {"url": "url"}


def test_a_text_may_have_another_name():
    laion = SOURCES["laion2b"]
    assert resolve(laion, ("url", "caption"), "x").text == ("caption",)
    assert resolve(laion, ("url", "caption", "TEXT"), "x").text == ("TEXT",)
    assert record_layout(laion, ("Caption", "url")).text == ("Caption",)


def test_a_column_is_a_text_or_something_else():
    spec = SPEC.model_copy(update={"columns": SPEC.columns.model_copy(update={"credit": ("caption",)})})
    assert "column caption is named as a text and as credit of source mine" in refusal(
        spec, ("url", "title", "caption")
    )


def test_an_error_shows_a_few_short_names():
    assert listed(["a", "b\n\x1b", "y" * 99]) == "a, b\\n\\x1b, " + "y" * 60
    assert listed([str(column) for column in range(21)]).endswith("18, 19 and 1 more")
    said = refusal(SPEC, [f"{column} " + "x" * 5000 for column in range(10_000)])
    assert "and 9980 more. Check" in said
    assert len(said) < 2000
    assert len(refusal(SPEC, ["x" * 5000] * 2)) < 200


def test_records_need_a_url_and_any_text_somewhere():
    for names in (("Url", "CAPTION"), ("link", "title")):
        check_names(OWN, names, "x")
    with pytest.raises(MetadataError, match="x: no text column title or caption, which"):
        check_names(OWN, ("url",), "x")
    with pytest.raises(MetadataError, match="no url column url or link, which"):
        check_names(OWN, ("title",), "x")


@given(st.lists(st.sampled_from(["title", "Title", "caption", "CAPTION", "url", "w", "x", ""]), unique=True))
def test_a_record_has_all_texts_of_its_source(names):
    layout = record_layout(SPEC, names)
    assert [name.lower() for name in layout.text] == ["title", "caption"]
    for wanted, column in zip(SPEC.text, layout.text, strict=True):
        assert column == wanted if wanted in names or column not in names else column.lower() == wanted
    assert set(layout.fields.values()) <= set(names)
    assert ("url" in layout.fields) == ("url" in names)


TEXTS = st.lists(
    st.sampled_from([b"usgs", b"aerial view", b"a dog", b"", b" ", b"USGS", b"a dog ", b"\xff"]), max_size=8
)


@given(TEXTS)
def test_a_text_that_stands_twice_is_published_once(texts):
    layout = resolve(SPEC, ("url", "title", "caption"), "x")
    joined, matched = find(texts, layout, MATCHER)
    told = joined.split(". ") if joined else []
    assert len(set(told)) == len(told)
    wanted = []
    for text in (raw.decode(errors="replace") for raw in texts):
        if text.strip() and text not in wanted:
            wanted.append(text)
    assert told == wanted
    assert matched == tuple(MATCHER.keywords(joined))


def test_captions_that_repeat_stay_in_what_a_row_is_made_known_by():
    layout = resolve(SOURCES["laioncoco"], ("URL", "top_caption", "all_captions"), "x")
    texts = [b"usgs map", b"a map", b"usgs map", b"a map"]
    found = find(texts, layout, MATCHER)
    hit = make_hit(3, texts, found, {"URL": "u"}, layout)
    assert (hit["text"], hit["texts"]) == ("usgs map. a map", ["usgs map", "a map", "usgs map", "a map"])
    table = make_hits([3], [texts], [found], {"URL": pa.array(["u"])}, layout)
    assert table.equals(pa.Table.from_pylist([hit], HITS))

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stages.filter.records as records
from manifests.lexicon import load_lexicon
from manifests.sources import SourceSpec
from stages.filter.matcher import Matcher
from stages.filter.records import MAX_LEVELS, Record, is_deep, scan_records
from stages.filter.rows import HITS

MATCHER = Matcher(load_lexicon("rs5m-1"), "stem")
ALL = Matcher(load_lexicon("rs5m-1"), "stem", takes_all=True)
SPEC = SourceSpec.model_validate({
    "key": "mine", "name": "Mine", "format": "jsonl", "text": ["title", "lines"],
    "columns": {
        "url": ["url"], "source_key": ["id"], "width": ["w"], "credit": ["by"], "tags": ["tags"], "tag_ids": ["mids"],
    },
})  # fmt: skip


def scan(rows, matcher=MATCHER, spec=SPEC):
    scans = list(scan_records(rows, spec, matcher))
    assert all(one.hits.schema.equals(HITS) for one in scans)
    assert all(one.rows_seen for one in scans)
    return scans


def joined(scans):
    hits = [hit for one in scans for hit in one.hits.to_pylist()]
    return hits, [bad for one in scans for bad in one.bad], sum(one.rows_seen for one in scans)


def as_records(rows):
    return [
        Record(row, {}, values) if isinstance(values, str) else Record(row, values) for row, values in enumerate(rows)
    ]


def oracle(rows, matcher):
    """A record at a time: those that stay as (row, url, texts, text, keywords), and those that are bad."""
    hits, bad = [], []
    for row, values in enumerate(rows):
        if isinstance(values, str):
            bad.append(row)
            continue
        given = [values.get("title"), *(values.get("lines") or [None])]
        if not all(isinstance(text, str | None) for text in (*given, values.get("url"))):
            bad.append(row)
            continue
        if any(has_halves(text) for text in (*given, values.get("url"))):
            bad.append(row)
            continue
        texts = [text or "" for text in ([given[0], *values["lines"]] if values.get("lines") is not None else given)]
        text = ". ".join(dict.fromkeys(text for text in texts if text.strip()))
        if matcher.takes_all or matcher.keywords(text):
            if has_halves(values.get("by")):
                bad.append(row)
            else:
                hits.append((row, values.get("url") or None, texts, text, list(matcher.keywords(text))))
    return hits, bad


def has_halves(text):
    return any("\ud800" <= char <= "\udfff" for char in text or "")


TEXTS = st.none() | st.sampled_from(
    ["aerial view", "aerial", "view", "a dog", "", " ", "USGS\0", "usgs \ud800", "\udcff", "\u00e9 modis", "\n"]
)
ROWS = st.fixed_dictionaries(
    {},
    optional={
        "title": TEXTS | st.just(5), "lines": st.none() | st.lists(TEXTS, max_size=3) | st.just([["usgs"]]),
        "url": st.sampled_from(["http://a", "", None, "u\udfff", 7]), "by": st.sampled_from(["me", "\ud800", None]),
    },
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(ROWS | st.just("a line too many"), max_size=25), st.integers(1, 7), st.booleans())
def test_any_records_are_read_as_the_oracle_reads_them_whatever_the_blocks(rows, block_rows, takes_all):
    matcher = ALL if takes_all else MATCHER
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "BLOCK_ROWS", block_rows)
        scans = scan(as_records(rows), matcher)
    assert [one.rows_seen for one in scans[:-1]] == [block_rows] * (len(scans) - 1)
    hits, bad, seen = joined(scans)
    assert (hits, bad, seen) == joined(scan(as_records(rows), matcher))
    told = [(hit["row"], hit["url"], hit["texts"], hit["text"], hit["matched"]) for hit in hits]
    assert (told, [row for row, _ in bad]) == oracle(rows, matcher)
    assert seen == len(rows)


def test_blocks_end_at_their_rows_or_their_text():
    rows = [{"title": "x" * 10, "url": "u", "lines": ["y" * 9]}] * 10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "BLOCK_CHARS", 60)
        assert [one.rows_seen for one in scan(as_records(rows))] == [3, 3, 3, 1]
    assert [one.rows_seen for one in scan(as_records(rows * 1000))] == [4096, 4096, 1808]
    assert scan([]) == []


def test_records_are_read_as_they_are_needed():
    def endless():
        row = 0
        while True:
            yield Record(row, {"title": "usgs", "url": "u"})
            row += 1

    coming = scan_records(endless(), SPEC, MATCHER)
    assert [next(coming).rows_seen for _ in range(2)] == [4096, 4096]


def test_what_a_row_keeps():
    values = {
        "id": 12, "url": "http://a", "title": None, "lines": ["Landsat 8", None, " "], "w": "640", "by": "me",
        "tags": ["sea", "sky"], "mids": "/m/1,/m/2", "note": {"b": [1.5, None], "a": "x"}, "unannounced": True,
    }  # fmt: skip
    ((hit,), bad, seen) = joined(scan(as_records([values])))
    assert (bad, seen) == ([], 1)
    assert {name: value for name, value in hit.items() if value is not None} == {
        "row": 0, "url": "http://a", "texts": ["", "Landsat 8", "", " "], "text": "Landsat 8", "matched": ["Landsat"],
        "source_key": "12", "width": 640, "credit": "me",
        "tags": [{"name": "sea", "mid": "/m/1", "prob": None}, {"name": "sky", "mid": "/m/2", "prob": None}],
        "extra": '{"note":{"a":"x","b":[1.5,null]},"unannounced":true}',
    }  # fmt: skip


def test_texts_are_looked_at_alone():
    rows = as_records([{"title": "aerial", "lines": ["view"], "url": "u"}, {"title": "aerial\nview", "url": "v"}])
    assert [hit["url"] for hit in joined(scan(rows))[0]] == ["v"]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"title": {"a": "usgs"}}, "title holds dict, not text"),
        ({"lines": ["usgs", ["x"]]}, "lines holds list, not text"),
        ({"url": ["http://a"]}, "url holds list, not text"),
        ({"title": "\udcff"}, "title is not UTF-8"),
        ({"by": "\udcff"}, "by is not UTF-8"),
        ({"id": "\ud800"}, "id is not UTF-8"),
        ({"note": ["\ud800"]}, "a column is not UTF-8"),
        ({"\ud800": 1}, "a column is not UTF-8"),
        ({"tags": ["sea", "\ud800"]}, "tags is not UTF-8"),
        ({"tags": ["sea"], "mids": ["\ud800"]}, "tags is not UTF-8"),
        ({"note": json.loads("[" * 65 + "]" * 65)}, "note is nested deeper than 64 levels"),
        ({"by": json.loads('{"a":' * 65 + "1" + "}" * 65)}, "by is nested deeper than 64 levels"),
        ({"by": 10**5000}, None),
        ({"by": b"\xff"}, None),
    ],
)
def test_why_a_record_is_bad(values, why):
    good = {"title": "usgs", "url": "http://a"}
    hits, bad, seen = joined(scan(as_records([good, good | values, good])))
    assert ([hit["row"] for hit in hits], seen) == ([0, 2], 3)
    ((row, said),) = bad
    assert row == 1
    assert said == why or why is None


def test_a_problem_is_told_in_few_plain_bytes():
    _, bad, _ = joined(scan([Record(0, {}, "caf\u00e9\n" + "x" * 500)]))
    assert bad[0][1].startswith("caf\\xe9\\nxxx")
    assert len(bad[0][1]) == 200


def test_records_that_do_not_match_are_counted_whatever_else_they_hold():
    odd = {"title": "a dog", "by": "\ud800", "note": json.loads("[" * 65 + "]" * 65)}
    assert joined(scan(as_records([odd]))) == ([], [], 1)


def test_each_record_has_its_own_spelling_and_a_text_for_every_column_of_the_source():
    rows = [
        {"title": "usgs", "url": "a"}, {"TITLE": "usgs", "Url": "b"}, {"Title": "x", "title": "usgs", "URL": "c"},
        {"lines": "usgs"}, {"LINES": ["usgs", "usgs"], "by": "me"}, {"title": "usgs", "lines": []},
    ]  # fmt: skip
    hits, bad, _ = joined(scan(as_records(rows)))
    assert bad == []
    assert [(hit["url"], hit["texts"]) for hit in hits] == [
        ("a", ["usgs", ""]), ("b", ["usgs", ""]), ("c", ["usgs", ""]), (None, ["", "usgs"]),
        (None, ["", "usgs", "usgs"]), (None, ["usgs"]),
    ]  # fmt: skip
    assert [hit["extra"] for hit in hits] == [None, None, '{"Title":"x"}', None, None, None]
    alone = [joined(scan([record]))[0][0] for record in as_records(rows)]
    assert alone == hits


def test_a_record_may_have_a_text_under_another_name_or_use_it_twice():
    spec = SPEC.model_copy(update={"text": ("title",), "instead": {"title": ("name", "label")}})
    rows = as_records([{"label": "usgs 1"}, {"Name": "usgs 2", "label": "x"}, {"title": None, "name": "usgs 3"}])
    assert [hit["texts"] for hit in joined(scan(rows, ALL, spec))[0]] == [["usgs 1"], ["usgs 2"], [""]]
    columns = SPEC.columns.model_copy(update={"credit": ("title",)})
    ((hit,), bad, _) = joined(scan(as_records([{"title": "usgs"}]), spec=SPEC.model_copy(update={"columns": columns})))
    assert (hit["credit"], hit["texts"], bad) == ("usgs", ["usgs", ""], [])


@given(st.integers(0, 70))
def test_depth_is_counted_in_lists_and_objects(levels):
    value = 1
    for level in range(levels):
        value = [value, 2] if level % 2 else {"a": value, "b": 2}
    assert is_deep(value) == (levels > MAX_LEVELS)

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.identity import locator, sample_id
from manifests.recipe import Settings
from manifests.schemas import TABLES
from manifests.sources import SourceSpec, load_sources
from manifests.tables import empty_frame
from stages.filter.matched_rows import MatchedRows, is_english, is_url, keyword_counts
from stages.filter.rows import HITS, MetadataError, Scan

WIT = load_sources()["wit"]
DIGEST = "d" * 64


OWN = SourceSpec(
    key="mine", name="mine", own=True, format="csv", columns={"url": ["url"]}, text=["text"],
    licence="CC-BY-4.0", credit="Ann",
)  # fmt: skip


def rows(source=WIT, **changed):
    settings = {"filter.max_text_bytes": 40, "filter.english_only": True, **changed}
    return MatchedRows(source, DIGEST, Settings(settings))


def hit(row=0, **values):
    blank = dict.fromkeys(HITS.names) | {"row": row, "url": "http://a.org/x", "texts": ["usgs"], "text": "usgs"}
    return blank | {"matched": ["USGS"]} | values


def scan(*hits, seen=10, bad=()):
    return Scan(seen, pa.Table.from_pylist(list(hits), HITS), bad)


def ledger(collected):
    return {
        int(row["locator"].split(":")[1]): row["reason"].removeprefix("filter.")
        for row in collected.departures.frame().iter_rows(named=True)
    }


def test_what_stays_has_the_shape_of_the_table_and_what_leaves_a_reason():
    collected = rows()
    collected.add(
        scan(
            hit(0, language="en", width=7, tags=[{"name": "sea", "mid": "/m/1", "prob": 0.5}], extra='{"a":1}'),
            hit(1, url=None), hit(2, url=" "), hit(3, url="javascript:alert(1)"), hit(4, url="ftp://a.org/x"),
            hit(5, url="data:image/png;base64,AA"), hit(6, url="http:///x"), hit(7, text="u" * 41),
            hit(8, language="de"), bad=((9, "not UTF-8"),),
        )
    )  # fmt: skip
    frame = collected.frame()
    assert frame.schema == empty_frame(TABLES["matched"]).schema
    (kept,) = frame.iter_rows(named=True)
    assert kept["sample_id"] == sample_id("wit", None, "http://a.org/x", ["usgs"])
    assert (kept["locator"], kept["source"], kept["subset"]) == (locator(DIGEST, 0), "wit", "pub11")
    assert (kept["width"], kept["tags"][0]["mid"], kept["extra"]) == (7, "/m/1", '{"a":1}')
    assert ledger(collected) == {
        1: "no_url", 2: "no_url", 3: "bad_url", 4: "bad_url", 5: "bad_url", 6: "bad_url", 7: "text_too_long",
        8: "not_english", 9: "bad_row",
    }  # fmt: skip
    assert (collected.seen, collected.unmatched) == (10, 0)
    assert keyword_counts([frame]) == {"USGS": 1}


def test_other_languages_may_be_let_in():
    collected = rows(**{"filter.english_only": False})
    collected.add(scan(hit(language="de")))
    assert collected.frame().height == 1


def test_rows_the_footer_declares_and_rows_read_must_agree():
    collected = rows()
    collected.add(scan(seen=3))
    collected.check(3)
    collected.check(None)
    with pytest.raises(MetadataError, match="3 rows were read, the file declares 4"):
        collected.check(4)


@pytest.mark.parametrize(
    ("language", "english"),
    [(None, True), ("", True), ("en", True), ("EN", True), ("en-GB", True), ("en_US", True), (" english ", True),
     ("eng", True), ("de", False), ("enm", False), ("simple", False), ("und", False)],
)  # fmt: skip
def test_what_is_english(language, english):
    assert is_english(language) is english


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://a.org", True), ("https://a.org/x?y#z", True), ("HTTP://A.ORG/X", True), ("http://[::1]/x", True),
        ("http://user@a.org:80/", True), ("http://b\u00fccher.example/x", True), ("//a.org/x", False),
        ("a.org/x", False),
        ("http://", False), ("http:///x", False), ("http://[::1/x", False), ("ftp://a.org/x", False),
        ("javascript:alert(1)", False), ("data:image/png;base64,AA", False), ("file:///etc/passwd", False),
        ("x", False),
    ],
)  # fmt: skip
def test_what_can_be_asked_for(url, asked):
    assert is_url(url) is asked


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=6))
def test_the_books_close(pieces):
    collected = rows()
    for good, bad in pieces:
        found = [hit(n, url="http://a.org/x" if good else None) for n in range(3)]
        collected.add(scan(*found, seen=3 + bad + 2, bad=tuple((3 + n, "torn") for n in range(bad))))
    left = collected.departures.frame().height
    assert collected.seen == collected.frame().height + left + collected.unmatched
    assert collected.unmatched == 2 * len(pieces)


def test_terms_of_a_source_of_ones_own_are_those_of_its_rows():
    collected = rows(OWN)
    collected.add(scan(hit(0), hit(1, licence="CC0"), hit(2, credit="Bob")))
    terms = collected.frame().select("licence", "credit").rows()
    assert terms == [("CC-BY-4.0", "Ann"), ("CC0", "Ann"), ("CC-BY-4.0", "Bob")]
    for source in (WIT, OWN.model_copy(update={"licence": "unknown", "credit": ""})):
        collected = rows(source)
        collected.add(scan(hit(0)))
        assert collected.frame().select("licence", "credit").rows() == [(None, None)]


def test_a_file_of_bad_rows_is_given_up_and_the_others_are_not():
    collected = rows()
    collected.add(scan(seen=1000, bad=tuple((row, "torn") for row in range(1000))))
    with pytest.raises(
        MetadataError, match=r"wit: 1001 of the first 1001 rows .* last: blank; check that the file bel"
    ):
        collected.add(scan(seen=1, bad=((1000, "blank"),)))
    collected = rows()
    collected.add(scan(seen=4000, bad=tuple((row, "torn") for row in range(2000))))
    assert collected.departures.frame().height == 2000
    with pytest.raises(MetadataError, match="2001 of the first 4001"):
        collected.add(scan(seen=1, bad=((4000, "torn"),)))

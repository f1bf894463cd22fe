import bz2
import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.lexicon import load_lexicon
from manifests.sources import load_sources
from stages.filter.matcher import Matcher
from stages.filter.redcaps import scan_redcaps
from stages.filter.rows import HITS, MetadataError

MATCHER = Matcher(load_lexicon("rs5m-1"), "stem")
SPEC = load_sources()["redcaps"]


def annotation(caption="aerial view of a lake", **changed):
    return {
        "image_id": "bpzj7r", "author": "somebody", "url": "https://i.redd.it/a.jpg", "raw_caption": "RAW [OC]",
        "caption": caption, "subreddit": "aerialporn", "score": 72, "created_utc": 1558215401, "permalink": "/r/x/",
        "crosspost_parents": None,
    } | changed  # fmt: skip


def scan(data, spec=SPEC):
    told = data if isinstance(data, bytes) else json.dumps({"info": {"year": 2019}, "annotations": data}).encode()
    scans = list(scan_redcaps(io.BytesIO(told), spec, MATCHER))
    assert all(one.hits.schema.equals(HITS) for one in scans)
    hits = [hit for one in scans for hit in one.hits.to_pylist()]
    return hits, [bad for one in scans for bad in one.bad], sum(one.rows_seen for one in scans)


def test_what_a_row_keeps_of_an_annotation():
    hits, bad, seen = scan([annotation("a dog"), annotation(crosspost_parents=["b", "c"], gilded=True)])
    assert (bad, seen) == ([], 2)
    (hit,) = hits
    assert {name: value for name, value in hit.items() if value is not None} == {
        "row": 1,
        "url": "https://i.redd.it/a.jpg",
        "texts": ["aerial view of a lake"],
        "text": "aerial view of a lake",
        "matched": ["aerial view"],
        "source_key": "bpzj7r",
        "credit": "somebody",
        "extra": '{"created_utc":1558215401,"crosspost_parents":["b","c"],"gilded":true,"permalink":"/r/x/",'
        '"raw_caption":"RAW [OC]","score":72,"subreddit":"aerialporn"}',
    }


def test_bad_rows_keep_their_places_and_nothing_else_is_lost():
    deep = json.loads("[" * 65 + "]" * 65)
    rows = [
        annotation(), None, ["aerial view"], annotation(5), annotation("aerial view \ud800"), annotation(url=7),
        annotation(author="\udfff"), annotation(author=None, url=None), annotation(None), annotation(extra=deep),
        annotation("a dog", extra=deep), annotation("nul \0 aerial view"), "aerial view", annotation(),
    ]  # fmt: skip
    hits, bad, seen = scan(rows)
    assert [hit["row"] for hit in hits] == [0, 7, 11, 13]
    assert bad == [
        (1, "no object but NoneType"), (2, "no object but list"), (3, "caption holds int, not text"),
        (4, "caption is not UTF-8"), (5, "url holds int, not text"), (6, "author is not UTF-8"),
        (9, "nested deeper than 64 levels"), (10, "nested deeper than 64 levels"), (12, "no object but str"),
    ]  # fmt: skip
    assert seen == len(rows)
    assert (hits[1]["url"], hits[1]["credit"], hits[2]["text"]) == (None, None, "nul \0 aerial view")


def test_a_byte_that_is_no_utf8_spoils_its_row_alone():
    data = json.dumps({"annotations": [annotation(), annotation("aerial view ?"), annotation()]}).encode()
    hits, bad, seen = scan(data.replace(b"?", b"\xff"))
    assert ([hit["row"] for hit in hits], bad, seen) == ([0, 2], [(1, "caption is not UTF-8")], 3)


PIECES = st.lists(st.sampled_from(["aerial view", "AERIAL ", "view", "modis", "x", " ", "\0", "\u00e9", "\n", '"']))


@given(st.lists(st.none() | PIECES.map("".join), max_size=30), st.booleans())
def test_captions_match_as_the_matcher_says(captions, packed):
    told = json.dumps({"annotations": [annotation(caption) for caption in captions]}).encode()
    hits, bad, seen = scan(gzip.compress(told) if packed else told)
    wanted = [(row, text) for row, text in enumerate(captions) if text and MATCHER.keywords(text)]
    assert ([(hit["row"], hit["text"]) for hit in hits], bad, seen) == (wanted, [], len(captions))


def test_a_packed_file_that_is_cut_off_fails():
    told = json.dumps({"annotations": [annotation(str(row)) for row in range(1000)]}).encode()
    assert scan(bz2.compress(told))[2] == 1000
    for packed in (gzip.compress(told), bz2.compress(told)):
        with pytest.raises(MetadataError, match="again"):
            scan(packed[:-40])


def test_the_recipe_may_name_the_other_caption():
    spec = SPEC.model_copy(update={"text": ("raw_caption",)})
    hits, _, _ = scan([annotation("a", raw_caption="Aerial View")], spec)
    assert hits[0]["texts"] == ["Aerial View"]
    assert json.loads(hits[0]["extra"])["caption"] == "a"


def test_a_caption_that_the_recipe_misspells_is_missed():
    spec = SPEC.model_copy(update={"text": ("raw_caption", "captoin")})
    with pytest.raises(
        MetadataError, match="no text column captoin, which source redcaps needs; its columns are image_id"
    ):
        scan([annotation()], spec)


def test_an_annotation_without_a_caption_has_an_empty_text():
    spec = SPEC.model_copy(update={"text": ("raw_caption", "caption")})
    short = {"url": "u", "caption": "usgs"}
    hits, bad, _ = scan([annotation(), short], spec)
    assert ([hit["texts"] for hit in hits], bad) == ([["RAW [OC]", "aerial view of a lake"], ["", "usgs"]], [])


def test_a_file_of_another_kind_says_what_it_lacks():
    with pytest.raises(MetadataError, match="a list 'annotations', but the file is an object with the keys images"):
        scan(b'{"images": []}')
    with pytest.raises(MetadataError, match=r"no text column caption.*its columns are url, title"):
        scan([{"url": "http://a", "title": "aerial view"}])
    with pytest.raises(MetadataError, match=r"no url column url.*its columns are caption"):
        scan([{"caption": "aerial view"}])
    with pytest.raises(MetadataError, match="empty"):
        scan(b"")


def test_no_annotations_are_no_rows():
    assert scan([]) == ([], [], 0)
    assert scan([1, None])[1:] == ([(0, "no object but int"), (1, "no object but NoneType")], 2)

import bz2
import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stages.filter.vg as vg
from manifests.lexicon import load_lexicon
from manifests.sources import load_sources
from stages.filter.matcher import Matcher
from stages.filter.rows import HITS, MetadataError
from stages.filter.vg import scan_vg

MATCHER = Matcher(load_lexicon("rs5m-1"), "stem")
SPEC = load_sources()["vg"]
IMAGES = [
    {"image_id": 1, "url": "http://a/1.jpg", "width": 800, "height": 600, "coco_id": None, "flickr_id": 8505158818},
    {"image_id": 2, "url": "http://a/2.jpg", "width": 500, "height": 281, "coco_id": 547168, "flickr_id": None},
]


def entry(image_id, *phrases, key="id"):
    regions = [{"region_id": row, "image_id": image_id, "phrase": text, "x": 1} for row, text in enumerate(phrases)]
    return {key: image_id, "regions": regions}


def scan(entries, images=IMAGES, matcher=MATCHER, pack=bytes):
    files = [io.BytesIO(pack(x if isinstance(x, bytes) else json.dumps(x).encode())) for x in (entries, images)]
    scans = list(scan_vg(*files, SPEC, matcher))
    assert all(one.hits.schema.equals(HITS) for one in scans)
    hits = [hit for one in scans for hit in one.hits.to_pylist()]
    return hits, [bad for one in scans for bad in one.bad], sum(one.rows_seen for one in scans)


def test_a_row_an_image_with_what_is_known_of_it():
    phrases = ("a red car.", "road", " aerial photograph of a city.", "road", "", "a Landsat scene")
    hits, bad, seen = scan([entry(7, "a dog"), entry(2, *phrases), entry(1, "modis")], pack=gzip.compress)
    assert (bad, seen) == ([], 3)
    first, second = hits
    assert {name: value for name, value in first.items() if value is not None} == {
        "row": 1,
        "url": "http://a/2.jpg",
        # The id is made of what was published, in its order; a phrase that stands twice counts once.
        "texts": ["a red car.", "road", " aerial photograph of a city.", "", "a Landsat scene"],
        "text": "aerial photograph of a city. a Landsat scene. a red car. road",
        "matched": ["aerial photo", "Landsat"],
        "source_key": "2",
        "width": 500,
        "height": 281,
        "extra": '{"coco_id":547168}',
    }
    assert (second["url"], second["text"], second["extra"]) == ("http://a/1.jpg", "modis", '{"flickr_id":8505158818}')


PHRASES = st.lists(st.sampled_from(["aerial view", "aerial", "view", "USGS map", "a dog", ".", " ", "x. aerial"]))


@given(st.lists(PHRASES, max_size=8))
def test_rows_are_those_with_a_phrase_that_matches(images):
    hits, bad, seen = scan([entry(row, *phrases) for row, phrases in enumerate(images)])
    # Alone: two phrases that stand side by side, "aerial" and "view", make no keyword.
    wanted = [row for row, phrases in enumerate(images) if any(MATCHER.keywords(text) for text in phrases)]
    assert ([hit["row"] for hit in hits], bad, seen) == (wanted, [], len(images))
    for hit in hits:
        phrases = list(dict.fromkeys(images[hit["row"]]))
        assert hit["texts"] == phrases
        told = [text.strip().removesuffix(".") for text in phrases if text.strip()]
        first = [text for text in told if MATCHER.keywords(text)]
        assert hit["text"] == ". ".join(first + [text for text in told if text not in first])
        assert set(hit["matched"]) == {word for text in phrases for word in MATCHER.keywords(text)}


def test_images_that_nothing_is_known_of_have_no_url():
    malformed = [
        None, 5, {"image_id": 3}, {"image_id": 4, "url": 7, "width": "wide"}, {"url": "http://a/5"},
        {"image_id": 6, "url": "http://a/" + "x" * 9000}, {"image_id": True, "url": "u"}, [1],
    ]  # fmt: skip
    images = [*malformed, *IMAGES, {"image_id": 1, "url": "http://other"}]
    hits, bad, _ = scan([entry(number, "usgs") for number in (9, 3, 4, 6, 1)], images)
    assert bad == []
    assert [(hit["source_key"], hit["url"], hit["width"]) for hit in hits] == [
        ("9", None, None), ("3", None, None), ("4", None, None), ("6", None, None), ("1", "http://a/1.jpg", 800),
    ]  # fmt: skip


def test_the_id_stands_under_either_name_or_in_a_region():
    regions = entry(2, "usgs")["regions"]
    own = {"regions": [{"id": 2, "phrase": "usgs"}]}
    rows = [entry(1, "usgs", key="image_id"), {"regions": regions}, {"id": "2", "regions": regions}, own]
    images = [{"id": image["image_id"], **image, "image_id": None} for image in IMAGES]
    hits, bad, _ = scan(rows, images)
    assert [hit["url"] for hit in hits] == ["http://a/1.jpg", "http://a/2.jpg", "http://a/2.jpg"]
    assert bad == [(3, "no image_id")]


def test_bad_rows_keep_their_places():
    rows = [
        entry(1, "usgs"), None, {"id": 1}, {"id": 1, "regions": {}}, {"id": 1, "regions": ["usgs"]},
        entry(1, "usgs", 5), entry(1, "usgs", "\ud800"), {"id": [1], "regions": []}, entry(1, "usgs", None),
        {"id": 1, "regions": []}, entry(1, "usgs " + "x" * (1 << 20)), entry(2, "usgs"),
    ]  # fmt: skip
    hits, bad, seen = scan(rows)
    assert [hit["row"] for hit in hits] == [0, 8, 11]
    assert bad == [
        (1, "no object but NoneType"), (2, "regions are no list but NoneType"), (3, "regions are no list but dict"),
        (4, "a region is no object"), (5, "a phrase is no text"), (6, "phrases is not UTF-8"), (7, "no image_id"),
        (10, "more than 1048576 characters"),
    ]  # fmt: skip
    assert seen == len(rows)


def test_a_garbled_url_spoils_its_image_alone():
    images = [{"image_id": 1, "url": "http://a/\ud800"}, IMAGES[1]]
    hits, bad, _ = scan([entry(1, "usgs"), entry(2, "usgs")], images)
    assert ([hit["row"] for hit in hits], bad) == ([1], [(0, "url is not UTF-8")])


def test_the_files_the_other_way_round_or_damaged():
    entries = [entry(1, "usgs")]
    with pytest.raises(MetadataError, match="entries without url; their keys are id, regions"):
        scan(IMAGES, entries)
    with pytest.raises(MetadataError, match="entries without regions; their keys are image_id, url"):
        scan(IMAGES)
    with pytest.raises(MetadataError, match="the file is an object"):
        scan({"images": entries})
    for cut in (json.dumps(IMAGES).encode()[:-5], bz2.compress(json.dumps(IMAGES).encode())[:-5], b""):
        with pytest.raises(MetadataError, match="again"):
            scan(entries, cut)


def test_what_an_error_shows_of_many_long_keys_is_short():
    with pytest.raises(MetadataError, match="and 300 more") as error:
        scan([{f"{row} {key} " + "x" * 500: 1 for key in range(50)} for row in range(16)])
    assert len(str(error.value)) < 2000


def test_more_images_than_fit_are_refused(monkeypatch):
    monkeypatch.setattr(vg, "MAX_IMAGES", 1)
    with pytest.raises(MetadataError, match="more than 1 images"):
        scan([entry(1, "usgs")])


def test_nothing_is_no_rows_and_every_image_stays_where_keywords_do_not_count():
    assert scan([], []) == ([], [], 0)
    matcher = Matcher(load_lexicon("rs5m-1"), "stem", takes_all=True)
    hits, _, _ = scan([entry(1, "a dog", "a cat"), {"id": 2, "regions": []}], matcher=matcher)
    assert [(hit["text"], hit["texts"]) for hit in hits] == [("a dog. a cat", ["a dog", "a cat"]), ("", [])]

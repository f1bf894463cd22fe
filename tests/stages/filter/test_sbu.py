import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.lexicon import load_lexicon
from manifests.sources import load_sources
from stages.filter.matcher import Matcher
from stages.filter.rows import HITS, MetadataError
from stages.filter.sbu import scan_sbu
from stages.filter.streams import MAX_LINE_BYTES

MATCHER = Matcher(load_lexicon("rs5m-1"), "stem")
SPEC = load_sources()["sbu"]


def scan(data, captions=None, matcher=MATCHER, spec=SPEC):
    told = data if isinstance(data, bytes) else json.dumps(data).encode()
    beside = None if captions is None else io.BytesIO(captions)
    opened = []

    def again():
        opened.append(io.BytesIO(told))
        return opened[-1]

    scans = list(scan_sbu(again, beside, spec, matcher))
    assert all(file.closed for file in opened)
    assert all(one.hits.schema.equals(HITS) for one in scans)
    hits = [hit for one in scans for hit in one.hits.to_pylist()]
    return hits, [bad for one in scans for bad in one.bad], sum(one.rows_seen for one in scans)


def told_of(hits):
    return [(hit["row"], hit["url"], hit["text"], hit["credit"]) for hit in hits]


def test_arrays_in_any_order_with_and_without_users():
    urls, captions = ["http://a/0", "http://a/1", None], ["a dog", "aerial view", "usgs"]
    rows = [(1, "http://a/1", "aerial view", None), (2, None, "usgs", None)]
    assert told_of(scan({"image_urls": urls, "captions": captions})[0]) == rows
    hits, bad, seen = scan({"user_ids": [5, "a@b", None], "captions": captions, "other": [[1], 2], "image_urls": urls})
    assert (bad, seen) == ([], 3)
    assert told_of(hits) == [(*rows[0][:3], "a@b"), rows[1]]
    assert all(hit["extra"] is None for hit in hits)


def test_bad_entries_keep_their_places():
    captions = ["usgs", 5, None, "usgs \ud800", {"a": 1}, "usgs", "usgs", "usgs " + "x" * (1 << 20), "usgs"]
    urls = ["u", "u", "u", "u", "u", ["u"], "u\udfff", "u", "v"]
    hits, bad, seen = scan({"image_urls": urls, "captions": captions, "user_ids": ["\ud800", *"bcdefghi"]})
    assert told_of(hits) == [(8, "v", "usgs", "i")]
    assert bad == [
        (0, "user_ids is not UTF-8"), (1, "captions holds int, not text"), (3, "captions is not UTF-8"),
        (4, "captions holds dict, not text"), (5, "image_urls holds list, not text"), (6, "image_urls is not UTF-8"),
        (7, "captions: more than 1048576 characters"),
    ]  # fmt: skip
    assert seen == 9


@pytest.mark.parametrize(
    ("urls", "captions", "users", "words"),
    [
        (3, 2, None, "image_urls has 3 entries, captions has 2 entries"),
        (2, 9, 2, "image_urls has 2 entries, captions has 9 entries, user_ids has 2 entries"),
        (4, 4, 0, "image_urls has 4 entries, captions has 4 entries, user_ids has 0 entries"),
        (0, 1, None, "image_urls has 0 entries, captions has 1 entries"),
    ],
)
def test_arrays_of_unequal_length_fail(urls, captions, users, words):
    data = {"image_urls": ["u"] * urls, "captions": ["usgs"] * captions}
    with pytest.raises(MetadataError, match="which caption belongs to which picture cannot be told: " + words):
        scan(data if users is None else data | {"user_ids": ["x"] * users})


def test_two_text_files_line_by_line():
    urls = b"\xef\xbb\xbfhttp://a/0\r\nhttp://a/1\n\nhttp://a/3\nhttp://a/4\nhttp://a/5"
    captions = (
        'usgs "one\naerial view\x85\u2028\nlandsat\nmodis '.encode() + b"\xff\n\nusgs" + b"x" * MAX_LINE_BYTES + b"\n"
    )
    hits, bad, seen = scan(gzip.compress(urls, mtime=0), gzip.compress(captions))
    assert told_of(hits) == [
        (0, "http://a/0", 'usgs "one', None),
        (1, "http://a/1", "aerial view\x85\u2028", None),
        (2, None, "landsat", None),
    ]
    assert bad == [(3, "captions is not UTF-8"), (5, f"a line of more than {MAX_LINE_BYTES} bytes")]
    assert seen == 6


LINES = st.lists(
    st.sampled_from(["usgs", "an aerial view", "a dog", "", " ", "\u00e9", '"', "{", "[", "1"]), max_size=20
)


@given(LINES, st.booleans())
def test_both_forms_give_the_same_rows(captions, ends):
    urls = [f"http://a/{row}" for row in range(len(captions))]
    end = "\n" if ends and captions else ""
    # Without an end, an empty last line is no line.
    captions = captions if ends else [*captions, "last"]
    urls = urls if ends else [*urls, "http://last"]
    wanted = [(row, urls[row], text, None) for row, text in enumerate(captions) if MATCHER.keywords(text)]
    hits, bad, seen = scan({"image_urls": urls, "captions": captions})
    assert (told_of(hits), bad, seen) == (wanted, [], len(captions))
    lines = [("\n".join(part) + end).encode() for part in (urls, captions)]
    hits, bad, seen = scan(*lines)
    assert (told_of(hits), bad, seen) == (wanted, [], len(captions))


@pytest.mark.parametrize(("urls", "captions"), [(b"u\nv\nw\n", b"usgs\n"), (b"u\n", b"usgs\n\n\n"), (b"", b"usgs")])
def test_text_files_of_unequal_length_fail(urls, captions):
    words = "the file of urls has {} entries, the file of captions has {} entries"
    counts = [len(part.splitlines()) for part in (urls, captions)]
    with pytest.raises(MetadataError, match=words.format(*counts)):
        scan(urls, captions)


@pytest.mark.parametrize(
    ("data", "captions", "words"),
    [
        (b"http://a\n", None, "no file of captions beside it"),
        (b"", None, "no file of captions beside it"),
        (b'{"captions": []}', None, "a list 'image_urls', but the file is an object with the keys captions"),
        (b'{"image_urls": []}', b"usgs", "a list 'captions'"),
        (b" [1]", None, "the file is a list"),
        (b'\xef\xbb\xbf\n{"image_urls": ["u"], "captions": ["usgs"', None, "the file ends there"),
        (gzip.compress(b'{"image_urls": [], "captions": []}', mtime=0)[:-9], None, "again"),
    ],
)
def test_what_is_missing_or_damaged(data, captions, words):
    with pytest.raises(MetadataError, match=words):
        scan(data, captions)


def test_every_caption_stays_where_keywords_do_not_count():
    matcher = Matcher(load_lexicon("rs5m-1"), "stem", takes_all=True)
    hits, bad, seen = scan({"image_urls": ["u", "v"], "captions": ["a dog", None]}, matcher=matcher)
    assert (told_of(hits), bad, seen) == ([(0, "u", "a dog", None), (1, "v", "", None)], [], 2)


def test_the_source_names_the_arrays():
    columns = SPEC.columns.model_copy(
        update={"url": ("links", "image_urls"), "credit": ("users",), "source_key": ("ids", "keys"), "licence": ("l",)}
    )
    spec = SPEC.model_copy(update={"columns": columns, "text": ("titles", "captions")})
    data = {"captions": ["a dog", "usgs"], "titles": ["x", None], "users": ["me", "you"], "image_urls": ["u", "v"]}
    ((hit,), bad, seen) = scan(data | {"keys": [1, 2], "other": [5]}, spec=spec)
    assert (hit["url"], hit["texts"], hit["credit"], hit["source_key"]) == ("v", ["", "usgs"], "you", "2")
    assert (hit["licence"], hit["extra"], bad, seen) == (None, None, [], 2)
    with pytest.raises(MetadataError, match="users has 1 entries"):
        scan(data | {"users": ["me"]}, spec=spec)
    with pytest.raises(MetadataError, match="a list 'titles', but the file is an object with the keys captions, users"):
        scan({name: array for name, array in data.items() if name != "titles"}, spec=spec)
    with pytest.raises(MetadataError, match="a list 'links'"):
        scan({name: array for name, array in data.items() if name != "image_urls"}, spec=spec)
    assert told_of(scan(b"u\nv\n", b"a dog\nusgs\n", spec=spec)[0]) == [(1, "v", "usgs", None)]


def test_nothing_is_no_rows():
    assert scan({"image_urls": [], "captions": [], "user_ids": []}) == ([], [], 0)
    assert scan(b"", b"") == ([], [], 0)

import bz2
import gzip
import io
from urllib.parse import quote_plus, unquote_plus, unquote_to_bytes

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.lexicon import load_lexicon
from manifests.sources import load_sources
from stages.filter import photo_ids
from stages.filter.matcher import Matcher
from stages.filter.photo_ids import read_photo_ids
from stages.filter.rows import HITS, MetadataError
from stages.filter.yfcc import form_decoded, scan_yfcc

MATCHER = Matcher(load_lexicon("rs5m-1"), "stem")
YFCC = load_sources()["yfcc14m"]
SHORT, FULL = YFCC.headers
BLANK = dict.fromkeys(FULL, "") | {"photo_id": "7", "download_url": "http://farm1.example.org/7.jpg", "marker": "0"}


def listed(*ids):
    return "".join(f"{line}\t{photo}\thash{photo}\n" for line, photo in enumerate(ids)).encode()


def records(*rows, header=FULL):
    return "".join("\t".join((BLANK | row)[name] for name in header) + "\n" for row in rows).encode()


def scan(data, ids=(7,), **options):
    listing = listed(*ids) if isinstance(ids, tuple) else ids
    scans = list(scan_yfcc(io.BytesIO(data), io.BytesIO(listing), YFCC, MATCHER, **options))
    assert all(one.hits.schema.equals(HITS) for one in scans)
    hits = [hit for one in scans for hit in one.hits.to_pylist()]
    return hits, [bad for one in scans for bad in one.bad], sum(one.rows_seen for one in scans)


@pytest.mark.parametrize("header", [SHORT, FULL])
def test_a_record(header):
    row = {
        "title": "Aerial+view%2C+north",
        "description": "A+%3Cb%3Ebridge%3C%2Fb%3E+at+100%25", "user_name": "J%C3%B6rg+B",
        "device": "Canon+EOS", "date_taken": "2009-05-22 12:02:14.0", "longitude": "8.5", "latitude": "-47.25",
        "user_tags": "new+york,a%2Cb", "machine_tags": "geo%3Alat%3D1", "license_name": "CC BY-SA",
        "download_url": "http://a.org/a+b%20c.jpg", "photo_id": "4294967296123", "extension": "jpg",
    }  # fmt: skip
    ((hit,), bad, seen) = scan(records(BLANK, row, header=header), (4294967296123,))
    assert (bad, seen, hit["row"]) == ([], 1, 1)
    assert hit["texts"] == ["Aerial view, north", "A <b>bridge</b> at 100%"]
    assert hit["text"] == "Aerial view, north. A <b>bridge</b> at 100%"
    assert (hit["url"], hit["source_key"]) == ("http://a.org/a+b%20c.jpg", "4294967296123")
    assert (hit["taken_at"], hit["lon"], hit["lat"]) == ("2009-05-22 12:02:14.0", 8.5, -47.25)
    assert (hit["licence"], hit["credit"]) == ("CC BY-SA", "J\u00f6rg B")
    assert [tag["name"] for tag in hit["tags"]] == ["new york", "a,b"]
    assert '"device":"Canon EOS"' in hit["extra"]
    assert '"machine_tags":"geo:lat=1"' in hit["extra"]


def test_records_that_are_not_listed_are_no_rows():
    rows = [{"photo_id": str(photo), "title": "usgs"} for photo in (1, 2, 3, 4)] + [{"photo_id": "x", "title": "usgs"}]
    hits, bad, seen = scan(records(*rows), (2, 4, 9))
    assert ([(hit["row"], hit["source_key"]) for hit in hits], bad, seen) == ([(1, "2"), (3, "4")], [], 2)
    assert scan(records(*rows), (9,)) == ([], [], 0)


def test_why_a_record_is_bad():
    short = b"\t".join(records(BLANK).split(b"\t")[:20]) + b"\n"
    data = b"".join([
        records({"title": "usgs", "marker": "1"}, {"title": "a dog", "marker": "1"}), short,
        short.replace(b"\t7\t", b"\t8\t"), b"torn line\n", records({"title": "usgs%FF"}, {"title": "a%FF"}),
        records({"title": "\u00e9", "description": "usgs"}), records({"title": "x"}).replace(b"x", b"\xff"),
        records({"title": "usgs", "user_name": "%C3"}),
    ])  # fmt: skip
    hits, bad, seen = scan(data)
    assert ([hit["row"] for hit in hits], seen) == ([7], 9)
    assert [(row, why.split(" where")[0]) for row, why in bad] == [
        (0, "a video, not a photo"), (2, "20 fields"), (4, "1 fields"), (5, "title is not UTF-8"), (8, "not UTF-8"),
        (9, "user_name is not UTF-8"),
    ]  # fmt: skip


def test_a_date_that_is_not_known():
    assert scan(records({"title": "usgs", "date_taken": "null"}))[0][0]["taken_at"] is None


PIECES = st.sampled_from(["aerial", "view", "+", "+", "%20", "%0A", "%C2%A0", "%", "%2", "%zz", "%2B", "%2525", "%61",
                          "erial", "USGS", "sentinel", "-", "%2D", "1", "a", "%E2%80%90", "\u00e9", "%FF"])  # fmt: skip
TEXTS = st.lists(PIECES, max_size=7).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS, st.integers(1, 4)), min_size=1, max_size=6), st.integers(1, 300))
def test_no_match_is_lost_to_the_encoding(rows, block_bytes):
    data = records(*({"title": title, "description": told, "photo_id": str(photo)} for title, told, photo in rows))
    matched, bad = [], []
    for row, (*texts, photo) in enumerate(rows):
        read = [unquote_to_bytes(text.replace("+", " ")) for text in texts]
        if photo in (1, 3) and any(MATCHER.keywords(text.decode(errors="replace")) for text in read):
            try:
                matched.append((row, [text.decode() for text in read]))
            except UnicodeDecodeError:
                bad.append(row)
    hits, found_bad, seen = scan(data, (3, 1), block_bytes=block_bytes)
    assert [(hit["row"], hit["texts"]) for hit in hits] == matched
    assert ([row for row, _ in found_bad], seen) == (bad, sum(photo in (1, 3) for *_, photo in rows))


@given(st.lists(TEXTS | st.text(max_size=5), max_size=6))
def test_decoding_a_column_is_decoding_each_text(texts):
    decoded = form_decoded(pa.array(texts, pa.string())).cast(pa.binary()).to_pylist()
    assert decoded == [unquote_to_bytes(text.replace("+", " ")) for text in texts]


@given(st.text(max_size=8))
def test_what_was_encoded_is_read_back(text):
    assert form_decoded(pa.array([quote_plus(text)])).to_pylist() == [unquote_plus(quote_plus(text))] == [text]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_both_files_may_be_packed(pack):
    data = records({"title": "usgs"})
    (hit,) = scan(pack(data), pack(listed(5, 7, 6)))[0]
    assert hit["source_key"] == "7"


def test_the_list_is_sorted_numbers():
    ids = read_photo_ids(io.BytesIO(listed(30, 4, 10**17, 4)), block_bytes=9)
    assert ids.dtype == np.int64
    assert ids.tolist() == [4, 4, 30, 10**17]


@pytest.mark.parametrize(
    ("listing", "says"),
    [
        (b"", "names no photo"), (b"1\t2\n", "line 1 is not"), (listed(1, 2) + b"line\tid\thash\n", "line 3 is not"),
        (listed(10**18), "line 1 is not"), (b"1\t\thash\n", "line 1 is not"), (b"1\t-2\thash\n", "line 1 is not"),
        (bz2.compress(listed(1))[:-5], "bzip2 cut off"), (b"PAR1\x15", "a Parquet file"),
    ],
)  # fmt: skip
def test_a_list_that_will_not_do(listing, says):
    with pytest.raises(MetadataError, match=f"metadata file: .*{says}"):
        scan(records(BLANK), listing)


def test_a_list_longer_than_memory_allows_is_refused(monkeypatch):
    monkeypatch.setattr(photo_ids, "MAX_IDS", 2)
    assert len(read_photo_ids(io.BytesIO(listed(1, 2)))) == 2
    with pytest.raises(MetadataError, match="more than 2 photo ids"):
        read_photo_ids(io.BytesIO(listed(1, 2, 3)))


def test_files_that_will_not_do():
    with pytest.raises(MetadataError, match="metadata file: is empty"):
        scan(b"")
    with pytest.raises(MetadataError, match="its column download_url, field 17 of 25, holds no urls"):
        scan(records({"download_url": "7.jpg"}))
    with pytest.raises(MetadataError, match="none of its first lines is of source yfcc14m: 3 fields found"):
        scan(listed(7))
    with pytest.raises(MetadataError, match="fetch it again"):
        scan(bz2.compress(records(BLANK))[:-5])

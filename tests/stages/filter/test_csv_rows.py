import csv
import gzip
import io
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.lexicon import load_lexicon
from manifests.sources import SourceSpec
from stages.filter.csv_rows import scan_csv
from stages.filter.matcher import Matcher
from stages.filter.quoted import MAX_TORN, splitter
from stages.filter.rows import HITS, MetadataError
from stages.filter.streams import BLOCK_BYTES, MAX_LINE_BYTES

MATCHER = Matcher(load_lexicon("rs5m-1"), "stem")
MINE = {"key": "mine", "name": "Mine", "format": "csv", "columns": {"url": ["url"]}, "text": ["text"]}
HEADED = SourceSpec.model_validate(MINE)
BARE = SourceSpec.model_validate(MINE | {"headers": [["url", "text", "n"], ["url", "text"]]})
HEADER = b"url,text,n\n"


class Dribble(io.BytesIO):
    def read(self, size=-1):
        return super().read(min(size, 3) if size > 3 else size)


def scan(data, spec=HEADED, file=io.BytesIO, **options):
    scans = list(scan_csv(file(data), spec, MATCHER, **options))
    assert all(one.hits.schema.equals(HITS) for one in scans)
    hits = [hit for one in scans for hit in one.hits.to_pylist()]
    return hits, [bad for one in scans for bad in one.bad], sum(one.rows_seen for one in scans)


def found(data, spec=HEADED, **options):
    hits, bad, seen = scan(data, spec, **options)
    return [(hit["row"], hit["url"], hit["text"]) for hit in hits], [row for row, _ in bad], seen


def found_or_told(data, **options):
    try:
        return found(HEADER + data, **options)
    except MetadataError as error:
        return str(error)


URLS = st.sampled_from(["http://a", "FTP:x", "", 'http://b,\n"c'])
TEXTS = st.lists(
    st.sampled_from(["aerial view", "usgs", "a dog", '"', '""', ",", "\n", "\r\n", "\r", "\t", "\x00", "\u00e9"]),
    max_size=6,
).map("".join)


def _none_or_one_url(rows):
    return not rows or any(url for url, _, _ in rows)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(URLS, TEXTS, TEXTS), max_size=8).filter(_none_or_one_url),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(1, 60),
)
def test_what_a_csv_writer_writes_is_read_back(rows, quoting, end, block_bytes):
    file = io.StringIO(newline="")
    csv.writer(file, quoting=quoting, lineterminator=end).writerows([("url", "text", "n"), *rows])
    data = file.getvalue().encode()
    expected = [(n, url or None, text) for n, (url, text, _) in enumerate(rows) if MATCHER.keywords(text)]
    for options in ({}, {"block_bytes": block_bytes}, {"file": Dribble}):
        assert found(data, **options) == (expected, [], len(rows))


PIECES = st.sampled_from(
    [
        b"usgs",
        b"u:",
        b"u:,usgs,1\n",
        b"u:,usgs,1\n",
        b",",
        b",",
        b"\n",
        b"\n",
        b'"',
        b'"',
        b'""',
        b"\r\n",
        b"\xff",
        b"\x00",
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=2), max_size=40).map(b"".join), st.integers(1, 40))
def test_any_bytes_are_rows_that_are_found_bad_or_nothing_and_blocks_change_nothing(data, block_bytes):
    whole = found_or_told(data)
    assert found_or_told(data, block_bytes=block_bytes) == whole
    assert found_or_told(data, file=Dribble) == whole
    if isinstance(whole, str):
        assert "its column url, field 1 of 3, holds no" in whole
        return
    hits, bad, seen = whole
    assert seen <= data.count(b"\n") + 1
    rows = [row for row, _, _ in hits] + bad
    assert len(set(rows)) == len(rows)
    assert all(0 <= row < seen for row in rows)


@given(st.lists(st.sampled_from(["a", "\u00e9", '"', ",", "\n", "b c"]), max_size=12).map("".join))
def test_fields_are_those_of_the_csv_module_or_refused(record):
    try:
        expected = next(csv.reader(io.StringIO(record, newline=""), strict=True), None)
    except csv.Error:
        expected = None
    try:
        fields = [field.decode() for field in splitter(44)(record.encode())]
    except ValueError:
        fields = None
    if fields is not None and record:
        assert fields == expected
    elif expected is not None and record:
        assert "\n" in record  # more than one record


def test_quoted_fields():
    data = b'http://a,"an ""aerial view"",\r\nat\nnight",7\r\nhttp://b,plain,8\r\n"http://c","usgs",""\r\n'
    hits, bad, seen = scan(HEADER + data)
    assert [(hit["row"], hit["url"], hit["text"], hit["extra"]) for hit in hits] == [
        (0, "http://a", 'an "aerial view",\r\nat\nnight', '{"n":"7"}'), (2, "http://c", "usgs", '{"n":""}'),
    ]  # fmt: skip
    assert (bad, seen) == ([], 3)


def test_why_a_record_is_bad():
    data = b'u,usgs\nu,"usgs" x,1\nu,"a ""dog" x,1\nu,usgs \xff,1\n\nu,"multi\nline"\nu:,usgs,1\nu,"usgs'
    hits, bad, seen = scan(HEADER + data)
    assert ([hit["row"] for hit in hits], seen) == ([7], 9)
    quote = "a quote that is not closed where its field ends"
    few = "fields where 3 are expected: url, text, n"
    # The third record too is badly quoted, but holds no keyword.
    assert bad == [
        (0, f"2 {few}"), (1, quote), (3, "not UTF-8"), (4, f"1 {few}"), (5, quote), (6, f"1 {few}"), (8, quote),
    ]  # fmt: skip


@pytest.mark.parametrize("block_bytes", [1000, BLOCK_BYTES])
def test_a_quote_that_stands_alone_costs_its_line_and_no_more(block_bytes):
    good = b'http://a,"aerial view, ""north""",1\n'
    before, after = found(HEADER + good * 50 + b'http://b,"usgs,1\n' + good * 50, block_bytes=block_bytes)[:2]
    assert [row for row, _, _ in before] == [*range(50), *range(51, 101)]
    assert after == [50]
    # A quote inside a plain field is text.
    hits, bad, seen = found(HEADER + good * 3 + b'http://b,usgs 5" disk,1\n' + good * 3, block_bytes=block_bytes)
    assert ([row for row, _, _ in hits], bad, seen) == ([0, 1, 2, 3, 4, 5, 6], [], 7)


@pytest.mark.parametrize("block_bytes", [1 << 16, BLOCK_BYTES])
def test_an_unclosed_quote_swallows_no_file(block_bytes):
    lines = b"http://a,a dog,1\n" * 600_000 + b"http://a,usgs,1\n"
    tracemalloc.start()
    hits, bad, seen = found(HEADER + b'http://b,"usgs,1\n' + lines, block_bytes=block_bytes)
    assert tracemalloc.get_traced_memory()[1] < 60 << 20
    tracemalloc.stop()
    assert (hits, bad, seen) == ([(600_001, "http://a", "usgs")], [0], 600_002)


def test_quotes_that_are_never_closed_again_and_again_are_another_format():
    with pytest.raises(MetadataError, match=f"{MAX_TORN + 2} of {MAX_TORN + 1} records.*doubled"):
        scan(HEADER + b'u,"usgs,1\n' * 4000, block_bytes=4096)
    hits, bad, seen = found(HEADER + b'u,"usgs,1\n' * 900 + b"u:,usgs,1\n", block_bytes=4096)
    assert ([row for row, _, _ in hits], bad, seen) == ([900], [*range(900)], 901)


@pytest.mark.parametrize("block_bytes", [1 << 16, BLOCK_BYTES])
def test_a_record_over_the_bound(block_bytes):
    fits = b'u:,"usgs ' + b"x" * (MAX_LINE_BYTES - 12) + b'",1'
    long = b'u,"usgs ' + b"x" * (3 * MAX_LINE_BYTES) + b'",1'
    data = b"\n".join([fits, fits + b"1", long, b"u,usgs,1", b'u,"' + b"usgs\n" * 300_000 + b'",1', b"u,usgs,2"])
    hits, bad, seen = scan(HEADER + data, block_bytes=block_bytes)
    assert [hit["row"] for hit in hits] == [0, 3, seen - 1]
    assert (bad[0], bad[1]) == ((1, "a line of more than 1048576 bytes"), (2, "a line of more than 1048576 bytes"))
    assert seen == 4 + 300_001 + 1
    assert len(bad) == seen - 3


def test_files_without_a_header_line():
    hits, bad, seen = scan(b'x\nhttp://a,"usgs\n, day"\nhttp://b,usgs,3\nhttp://c,a dog\n', BARE)
    assert ([(hit["row"], hit["text"]) for hit in hits], [row for row, _ in bad], seen) == (
        [(1, "usgs\n, day")],
        [0, 2],
        4,
    )
    assert scan(b"http://a,usgs,3\nx\n", BARE)[0][0]["extra"] == '{"n":"3"}'
    for data in (b"", gzip.compress(b"")):
        with pytest.raises(
            MetadataError, match="metadata file: is empty; it should hold rows of source mine; fetch it"
        ):
            scan(data, BARE)
    with pytest.raises(MetadataError, match=r"1 fields found, expected 3 \(url, text, n\) or 2 \(url, text\)"):
        scan(b"http://a;usgs\nhttp://b;usgs\n", BARE)


def test_packed_and_marked_files():
    data = HEADER + b"http://a,usgs,1\n"
    assert scan(gzip.compress(b"\xef\xbb\xbf" + data)) == scan(data)
    with pytest.raises(MetadataError, match="fetch it again"):
        scan(gzip.compress(data)[:-4])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty; its first line should name the columns"),
        (gzip.compress(b"", mtime=0), "is empty; .*fetch it again"),
        (b"url,text\na dog,http://a\n", "its column url, field 1 of 2, holds no urls.*Urls stand in text, field 2"),
        (b"url;text\n", "its columns are url;text"),
        (b'"url,text\n', "its first line should name the columns, but is"), (b"PK\x03\x04", "a zip archive"),
        (b"url,caption\n", "no text column text"), (b"url\ttext\n", "no text column"),
        ("url,text\n".encode("utf-16"), "UTF-16"),
    ],
)  # fmt: skip
def test_files_that_will_not_do(data, says):
    with pytest.raises(MetadataError, match=f"metadata file: .*{says}"):
        scan(data)

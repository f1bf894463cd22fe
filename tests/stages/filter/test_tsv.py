import bz2
import gzip
import io
import json
import re
import tracemalloc

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from manifests.lexicon import load_lexicon
from manifests.sources import SourceSpec, load_sources
from stages.filter.headers import HEAD_BYTES
from stages.filter.line_blocks import MAX_SCAN_ROWS
from stages.filter.matcher import Matcher
from stages.filter.rows import HITS, MetadataError
from stages.filter.streams import BLOCK_BYTES, MAX_LINE_BYTES
from stages.filter.tsv import scan_tsv

MATCHER = Matcher(load_lexicon("rs5m-1"), "stem")
CC3M = load_sources()["cc3m"]
CC12M = load_sources()["cc12m"]
OWN = SourceSpec.model_validate(
    {"key": "mine", "name": "Mine", "format": "tsv", "columns": {"url": ["link"], "width": ["w"]}, "text": ["words"]}
)
UNREADABLE = (b"\xff\xfe", b"\xfe\xff", b"\x1f\x8b\x08", b"PK\x03\x04")


class Dribble(io.BytesIO):
    """A file that gives fewer bytes than asked for, as network files do."""

    def read(self, size=-1):
        return super().read(min(size, 3) if size > 3 else size)


def scan(data, spec=CC3M, file=io.BytesIO, **options):
    scans = list(scan_tsv(file(data), spec, MATCHER, **options))
    assert all(one.hits.schema.equals(HITS) for one in scans)
    hits = [hit for one in scans for hit in one.hits.to_pylist()]
    return hits, [bad for one in scans for bad in one.bad], sum(one.rows_seen for one in scans)


def oracle(data):
    """CC3M a line at a time: rows that match as (row, url, text), rows that are bad, rows; words if it is none."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    read = [fields_of(line.removesuffix(b"\r")) for line in lines]
    if not lines:
        return "is empty"
    sizes = [len(fields) for fields in read if fields and len(fields) in (2, 5)]
    if not sizes:
        return "none of its first lines is of source cc3m"
    if 2 * len(sizes) < len(lines):
        return f"only {len(sizes)} of its first {len(lines)} lines are of source cc3m"
    size = max(sizes, key=sizes.count)  # the first of those as frequent
    urls = [url for fields in read if fields and len(fields) == size and (url := fields[1]).encode().strip()]
    if not urls or 2 * sum(bool(re.match("[A-Za-z][A-Za-z0-9+.-]*:", url)) for url in urls) < len(urls):
        return "its column url, field 2 of"
    hits, bad = [], []
    for row, fields in enumerate(read):
        if fields is None or len(fields) != size:
            bad.append(row)
        elif MATCHER.keywords(fields[0]):
            hits.append((row, fields[1] or None, fields[0]))
    return hits, bad, len(lines)


def fields_of(line):
    try:
        return line.decode().split("\t")
    except UnicodeDecodeError:
        return None


WORDS = [b"aerial view", b"usgs", b"http://a/b.jpg", b"a dog", b"\t", b"\t", b"\n", b"\n", b"\r\n", b"\r"]
QUOTES = [b'"', b"'", b",", b"\\", b"\x00", b"\x0b"]
ODD = [b"\xff", b"\xc3", b"\xa9", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\x85", b"\xc2\x85"]
ROWS = [b"usgs\thttp://a\n", b"a dog\thttp://b\n", b"modis\t\n", b"aerial view\tx\n", b"usgs\tF+.1-:\tsea\tm\t1\n"]
PIECES = st.sampled_from(WORDS + QUOTES + ODD + ROWS * 8)


@settings(max_examples=300)
@given(st.lists(PIECES | st.binary(max_size=3), max_size=30).map(b"".join), st.integers(1, 40))
def test_any_bytes_are_read_as_the_oracle_reads_them(data, block_bytes):
    assume(not data.startswith(UNREADABLE))
    expected = oracle(data)
    for options in ({}, {"block_bytes": block_bytes}, {"file": Dribble}):
        if isinstance(expected, str):
            with pytest.raises(MetadataError, match=expected):
                scan(data, **options)
            continue
        hits, bad, seen = scan(data, **options)
        assert ([(hit["row"], hit["url"], hit["text"]) for hit in hits], [row for row, _ in bad], seen) == expected


def test_a_row_in_both_column_orders():
    ((hit,), bad, seen) = scan(b'a "dog\thttp://a\nan aerial view, "unclosed\thttp://b/modis.jpg\n')
    assert (bad, seen) == ([], 2)
    assert (hit["row"], hit["url"], hit["texts"]) == (1, "http://b/modis.jpg", ['an aerial view, "unclosed'])
    assert (hit["text"], hit["matched"], hit["extra"]) == (hit["texts"][0], ["aerial view"], None)
    hits, _, _ = scan(b"http://landsat.org\ta dog\nhttp://b\tLandsat 8", CC12M)
    assert [(hit["row"], hit["url"], hit["text"]) for hit in hits] == [(1, "http://b", "Landsat 8")]


def test_why_a_line_is_bad():
    hits, bad, seen = scan(b"usgs\n\nusgs\tu:\tv\nusgs \xff\tu:\n" + b"usgs\tu:\r\n" * 4)
    assert seen == 8
    assert [hit["url"] for hit in hits] == ["u:"] * 4
    assert bad == [
        (0, "1 fields where 2 are expected: caption, url"),
        (1, "1 fields where 2 are expected: caption, url"),
        (2, "3 fields where 2 are expected: caption, url"),
        (3, "not UTF-8"),
    ]


@pytest.mark.parametrize("block_bytes", [1 << 16, MAX_LINE_BYTES + 1, 4 << 20])
def test_a_line_over_the_bound_is_one_bad_row_and_the_next_is_read(block_bytes):
    fits = b"usgs" + b" " * (MAX_LINE_BYTES - 7) + b"\tu:"
    data = fits + b"\n" + b"x" + fits + b"\n" + b"usgs\t" + b"v" * (3 * MAX_LINE_BYTES) + b"\n" + b"usgs\tw\n"
    hits, bad, seen = scan(data + fits + b"x", block_bytes=block_bytes)
    assert [(hit["row"], hit["url"]) for hit in hits] == [(0, "u:"), (3, "w")]
    why = "a line of more than 1048576 bytes"
    assert (bad, seen) == ([(1, why), (2, why), (4, why)], 5)


def test_memory_stays_bounded_on_a_file_without_newlines():
    class Endless(io.RawIOBase):
        left = 64

        def read(self, size=-1):
            self.left -= 1
            return b"a\tb:\n".ljust(size, b"y") if self.left == 63 else b"y" * size if self.left >= 0 else b""

    tracemalloc.start()
    scans = list(scan_tsv(Endless(), CC3M, MATCHER))
    assert tracemalloc.get_traced_memory()[1] < 10 * BLOCK_BYTES
    tracemalloc.stop()
    assert sum(one.rows_seen for one in scans) == 2
    assert [bad for one in scans for bad in one.bad] == [(1, "a line of more than 1048576 bytes")]


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0), bz2.compress(b"")])
def test_an_empty_file_is_refused(data):
    for spec in (CC3M, OWN):
        with pytest.raises(MetadataError, match=r"metadata file: is empty.*fetch it again"):
            scan(data, spec)


def test_blank_lines_come_in_small_scans():
    good = (b"a dog" + b" " * 500 + b"\thttp://a\n") * (HEAD_BYTES // 500)
    scans = scan_tsv(io.BytesIO(gzip.compress(good + b"\n" * 400_000)), CC3M, MATCHER)
    sizes = [(one.rows_seen, len(one.bad)) for one in scans]
    assert max(rows for rows, _ in sizes) == MAX_SCAN_ROWS
    assert sum(bad for _, bad in sizes) == 400_000
    assert sum(rows for rows, _ in sizes) == 400_000 + HEAD_BYTES // 500


def test_a_file_of_blank_lines_is_refused_before_it_is_read():
    with pytest.raises(MetadataError, match="none of its first lines is of source cc3m: 1 fields found"):
        scan(b"\n" * 3_000_000)


TAGGED = b"an aerial view\thttp://a\tsea,port\t/m/06npx,/m/068hy\t0.9,0.5\n"


def test_the_variant_with_image_labels():
    ((hit,), bad, seen) = scan(TAGGED + b"usgs\thttp://b\n")
    assert (hit["url"], hit["text"], hit["extra"], seen) == ("http://a", "an aerial view", None, 2)
    assert hit["tags"] == [
        {"name": "sea", "mid": "/m/06npx", "prob": pytest.approx(0.9)},
        {"name": "port", "mid": "/m/068hy", "prob": pytest.approx(0.5)},
    ]
    assert bad == [(1, "2 fields where 5 are expected: caption, url, tags, mids, probs")]


def test_a_first_line_that_is_bad_decides_nothing():
    hits, bad, seen = scan(b"broken\na\tb\tc\n\xff\tb\n" + TAGGED * 2 + b"usgs\tu:\n")
    assert ([hit["row"] for hit in hits], [row for row, _ in bad], seen) == ([3, 4], [0, 1, 2, 5], 6)


def test_most_records_decide_which_header_a_file_has():
    hits, bad, seen = scan(TAGGED + b"usgs\tu:\nmodis\tv:\n")
    assert ([hit["url"] for hit in hits], [row for row, _ in bad], seen) == (["u:", "v:"], [0], 3)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_packed_files_are_read_whatever_their_name(pack):
    data = b"aerial view\thttp://a\n" * 1000
    plain = scan(data)
    assert len(plain[0]) == 1000
    for block_bytes in (100, BLOCK_BYTES):
        assert scan(pack(data[:9000]) + pack(data[9000:]), block_bytes=block_bytes) == plain
    with pytest.raises(MetadataError, match=r"metadata file: (gzip|bzip2) cut off"):
        scan(pack(data)[:-9])


def test_a_header_line_names_the_columns():
    data = b'w\tLINK\twords\tnote\r\n8\thttp://a\ta dog\tx\r\n640\thttp://b\taerial view\t"q\n'
    ((hit,), bad, seen) = scan(data, OWN)
    assert (hit["row"], hit["url"], hit["width"], hit["extra"]) == (1, "http://b", 640, '{"note":"\\"q"}')
    assert (bad, seen) == ([], 2)
    assert scan(b"link\twords", OWN) == ([], [], 0)
    assert scan(b"\xef\xbb\xbflink\twords\nu:\tusgs", OWN)[0][0]["url"] == "u:"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty; its first line should name the columns"), (b"\xff\t\n", "should name the columns, but is"),
        (b"a" * 20_000, "should name the columns, but is 'aaaa"), (b"link\tword\n", "no text column words"),
        (b"url\twords\n", "no url column link, .*its columns are url, words"),
        (b"link\tlink\twords\n", "stands twice"), (b'{"link": 1}\n', "no text column words"),
    ],
)  # fmt: skip
def test_a_header_that_will_not_do(data, says):
    with pytest.raises(MetadataError, match=f"metadata file: .*{says}"):
        scan(data, OWN)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'[\n{"url": "http://a"}\n]', "1 fields found, expected 2 .caption, url. or 5"),
        (b"a,b\n" * 9, "the first line is 'a,b'"), (b"a\tb\tc\nd\n", "3, 1 fields found"),
        (json.dumps(["x" * 5000]).encode(), "Check that the file belongs to this source"),
        (b"PAR1\x15\x04", "a Parquet file"), (b"<!doctype html>", "an HTML page"),
        (b"x" * (9 << 20), "1 fields found"), (bytes(1000), "1 fields found"),
    ],
)  # fmt: skip
def test_a_file_of_another_source(data, says):
    with pytest.raises(MetadataError, match=f"metadata file: .*{says}"):
        scan(data)

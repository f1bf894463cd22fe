import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.lexicon import load_lexicon
from manifests.sources import load_sources
from stages.filter.matcher import Matcher
from stages.filter.rows import HITS
from stages.filter.tsv import MAX_LINE_BYTES, scan_tsv

MATCHER = Matcher(load_lexicon("rs5m-1"), "stem")
CC3M = load_sources()["cc3m"]
CC12M = load_sources()["cc12m"]


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
    """CC3M a line at a time: rows that match as (row, url, text), rows that are bad, rows."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    hits, bad = [], []
    for row, line in enumerate(lines):
        try:
            fields = line.removesuffix(b"\r").decode().split("\t")
        except UnicodeDecodeError:
            bad.append(row)
            continue
        if len(fields) != 2:
            bad.append(row)
        elif MATCHER.keywords(fields[0]):
            hits.append((row, fields[1] or None, fields[0]))
    return hits, bad, len(lines)


WORDS = [b"aerial view", b"usgs", b"http://a/b.jpg", b"a dog", b"\t", b"\t", b"\n", b"\n", b"\r\n", b"\r"]
QUOTES = [b'"', b"'", b",", b"\\", b"\x00", b"\x0b"]
ODD = [b"\xff", b"\xc3", b"\xa9", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\x85", b"\xc2\x85"]
PIECES = st.sampled_from(WORDS + QUOTES + ODD)


@settings(max_examples=300)
@given(st.lists(PIECES | st.binary(max_size=3), max_size=30).map(b"".join), st.integers(1, 40))
def test_any_bytes_are_read_as_the_oracle_reads_them(data, block_bytes):
    expected = oracle(data)
    for options in ({}, {"block_bytes": block_bytes}, {"file": Dribble}):
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
    hits, bad, seen = scan(b"usgs\n\nusgs\tu\tv\nusgs \xff\tu\nusgs\tu\r\n")
    assert seen == 5
    assert [hit["url"] for hit in hits] == ["u"]
    assert bad == [
        (0, "1 fields where 2 are expected: caption, url"),
        (1, "1 fields where 2 are expected: caption, url"),
        (2, "3 fields where 2 are expected: caption, url"),
        (3, "not UTF-8"),
    ]


@pytest.mark.parametrize("block_bytes", [1 << 16, MAX_LINE_BYTES + 1, 4 << 20])
def test_a_line_over_the_bound_is_one_bad_row_and_the_next_is_read(block_bytes):
    fits = b"usgs" + b" " * (MAX_LINE_BYTES - 6) + b"\tu"
    data = fits + b"\n" + b"x" + fits + b"\n" + b"usgs\t" + b"v" * (3 * MAX_LINE_BYTES) + b"\n" + b"usgs\tw\n"
    hits, bad, seen = scan(data + fits + b"x", block_bytes=block_bytes)
    assert [(hit["row"], hit["url"]) for hit in hits] == [(0, "u"), (3, "w")]
    why = "a line of more than 1048576 bytes"
    assert (bad, seen) == ([(1, why), (2, why), (4, why)], 5)


def test_memory_stays_bounded_on_a_file_without_newlines():
    class Endless(io.RawIOBase):
        left = 64

        def read(self, size=-1):
            self.left -= 1
            return b"y" * size if self.left >= 0 else b""

    scans = list(scan_tsv(Endless(), CC3M, MATCHER))
    assert [(one.rows_seen, one.hits.num_rows, len(one.bad)) for one in scans] == [(1, 0, 1)]


def test_an_empty_file_has_no_rows():
    assert scan(b"") == ([], [], 0)
    assert scan(b"\xef\xbb\xbf") == ([], [], 0)

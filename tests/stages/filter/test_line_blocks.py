import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.lexicon import load_lexicon
from stages.filter import line_blocks
from stages.filter.line_blocks import MAX_SCAN_ROWS, Reading, cut_lines, pieces, scan_block, scan_blocks
from stages.filter.matcher import Matcher
from stages.filter.quoted import scan_quoted, splitter
from stages.filter.rows import Layout

MATCHER = Matcher(load_lexicon("rs5m-1"), "stem")
LAYOUT = Layout(("caption",), {"url": "url"}, ". ", None)
READING = Reading(("caption", "url"), LAYOUT, MATCHER, lambda line: line.split(b"\t"))


def flat(scans):
    scans = list(scans)
    hits = [hit for one in scans for hit in one.hits.to_pylist()]
    return hits, [bad for one in scans for bad in one.bad], sum(one.rows_seen for one in scans)


def test_where_records_and_fields_stand():
    block = cut_lines(b"a\tb\r\n\nc\t\td\n", 9)
    assert (block.offsets.tolist(), block.fields.tolist(), block.lengths.tolist()) == (
        [0, 5, 6, 11],
        [2, 1, 3],
        [4, 0, 4],
    )
    assert [block.record(index) for index in range(3)] == [b"a\tb", b"", b"c\t\td"]
    assert block.lines().to_pylist() == ["a\tb\r\n", "\n", "c\t\td\n"]


LINES = st.lists(st.sampled_from([b"usgs\tu", b"a dog\tu", b"", b"usgs", b"usgs\xff\tu", b"modis\t\xff"]), max_size=20)


@settings(max_examples=100, deadline=None)
@given(LINES, st.integers(1, 7))
def test_pieces_are_the_block(lines, most):
    block = cut_lines(b"".join(line + b"\n" for line in lines), 9)
    whole = scan_block(block, 0, READING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_blocks, "MAX_SCAN_ROWS", most)
        cut = list(pieces(block))
        scans = list(scan_blocks([block], READING))
    assert b"".join(piece.body for piece in cut) == block.body
    assert [fields for piece in cut for fields in piece.fields] == block.fields.tolist()
    for piece in cut:
        again = cut_lines(piece.body, 9)
        assert all(
            np.array_equal(getattr(piece, name), getattr(again, name)) for name in ("offsets", "marks", "fields")
        )
    assert flat(scans) == flat([whole])
    assert all(one.rows_seen <= most for one in scans)


def test_a_block_of_blank_lines_is_scanned_a_little_at_a_time():
    tracemalloc.start()
    scans = scan_blocks([cut_lines(b"\n" * (4 << 20), 9)], READING)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    first = next(scans)
    assert (first.rows_seen, len(first.bad)) == (MAX_SCAN_ROWS, MAX_SCAN_ROWS)
    assert tracemalloc.get_traced_memory()[1] - before < 120 << 20
    tracemalloc.stop()
    assert first.bad[0] == (0, "1 fields where 2 are expected: caption, url")
    assert next(scans).bad[0][0] == MAX_SCAN_ROWS


def test_quoted_records_come_in_small_scans_too():
    reading = Reading(("caption", "url"), LAYOUT, MATCHER, splitter(44))
    data = b'"usgs\n1","u"\n' * 3 + b"\n" * (2 * MAX_SCAN_ROWS) + b'"usgs, 2",u\n'
    scans = list(scan_quoted(io.BytesIO(data), 44, reading, "file", 4 << 20))
    assert [one.rows_seen for one in scans] == [MAX_SCAN_ROWS, MAX_SCAN_ROWS, 4]
    hits, bad, _ = flat(scans)
    assert [(hit["row"], hit["text"]) for hit in hits] == [
        (0, "usgs\n1"), (1, "usgs\n1"), (2, "usgs\n1"), (2 * MAX_SCAN_ROWS + 3, "usgs, 2"),
    ]  # fmt: skip
    assert [row for row, _ in bad] == list(range(3, 2 * MAX_SCAN_ROWS + 3))

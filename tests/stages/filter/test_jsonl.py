import bz2
import io
import json
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.identity import sample_id
from manifests.lexicon import load_lexicon
from manifests.sources import SourceSpec
from stages.filter.jsonl import HEAD_ROWS, scan_jsonl
from stages.filter.matcher import Matcher
from stages.filter.records import BLOCK_ROWS
from stages.filter.rows import HITS, MetadataError
from stages.filter.streams import MAX_LINE_BYTES

MATCHER = Matcher(load_lexicon("rs5m-1"), "stem")
SPEC = SourceSpec.model_validate(
    {
        "key": "mine", "name": "Mine", "format": "jsonl", "text": ["caption", "alt"],
        "columns": {"url": ["url"], "width": ["width"], "source_key": ["id"], "tags": ["tags"]},
    }
)  # fmt: skip
GOOD = b'{"url": "http://a", "caption": "aerial view"}'


def scan(data, file=io.BytesIO, **options):
    scans = list(scan_jsonl(file(data), SPEC, MATCHER, **options))
    assert all(one.hits.schema.equals(HITS) for one in scans)
    hits = [hit for one in scans for hit in one.hits.to_pylist()]
    return hits, [bad for one in scans for bad in one.bad], sum(one.rows_seen for one in scans)


def lines(*rows):
    return "\n".join(map(json.dumps, rows)).encode()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["usgs", "modis"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3), max_leaves=5,
)  # fmt: skip
KEYS = st.sampled_from(["url", "URL", "caption", "alt", "width", "tags", "id", "other", "\ud800"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=6) | VALUES, max_size=8), st.integers(1, 60), st.booleans())
def test_whatever_json_holds_every_line_is_found_bad_or_nothing(rows, block_bytes, plain):
    data = "\n".join([GOOD.decode(), *(json.dumps(row, ensure_ascii=plain) for row in rows)])
    hits, bad, seen = scan(data.encode(errors="surrogatepass"), block_bytes=block_bytes)
    assert seen == len(rows) + 1
    places = [hit["row"] for hit in hits] + [row for row, _ in bad]
    assert len(set(places)) == len(places)
    for row, value in enumerate(rows, 1):
        if not isinstance(value, dict):
            assert row in [row for row, _ in bad]
        elif isinstance(value.get("caption"), str) and "usgs" in value["caption"].split() and row not in places:
            raise AssertionError(f"{value} is lost")


@given(st.lists(st.sampled_from([b"{", b"}", b'"url"', b":", b",", b'"usgs"', b"\n", b"[", b"\xff", b"1", b"\\ud800"]),
                max_size=30).map(b"".join))  # fmt: skip
def test_any_bytes_are_read(data):
    hits, bad, seen = scan(GOOD + b"\n" + data)
    assert hits[0]["row"] == 0
    assert seen == 1 + data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    assert len(hits) + len(bad) <= seen


def test_a_row():
    row = {
        "url": "http://a",
        "alt": "usgs",
        "caption": "a\u00e9",
        "width": 640.0,
        "id": 7,
        "tags": ["x", "y"],
        "b": {"c": [1]},
    }
    ((hit,), bad, seen) = scan(b"\xef\xbb\xbf" + lines(row) + b"\r\n")
    assert (hit["row"], hit["url"], hit["texts"], hit["text"]) == (0, "http://a", ["a\u00e9", "usgs"], "a\u00e9. usgs")
    assert (hit["width"], hit["source_key"], hit["extra"]) == (640, "7", '{"b":{"c":[1]}}')
    assert [tag["name"] for tag in hit["tags"]] == ["x", "y"]
    assert (bad, seen) == ([], 1)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "not a JSON object: "), (b"", "not a JSON object: "), (b"[1]", "not a JSON object but list"),
        (b"null", "not a JSON object but NoneType"), (b'{"url": NaN}', "NaN is no JSON"),
        (b'{"n": -Infinity}', "-Infinity is no JSON"), (b'{"n": 1e999}', "1e999 is too large"),
        (b'{"n": ' + b"9" * 5000 + b"}", "not a JSON object: Exceeds the limit"),
        (b'{"n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "JSON nested too deep"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"), (b'{"b": {"a": 1, "a": 2}}', "'a' stands twice"),
        (b'{"url": "\xff"}', "not UTF-8"), (b'{"other": "\\ud800"}', "not UTF-8"), (b'{"\\uD800": 1}', "not UTF-8"),
        (b'{"url": 7, "caption": "x"}', "url holds int, not text"),
        (b'{"caption": {}}', "caption holds dict, not text"),
        (GOOD + GOOD, "not a JSON object: Extra data"),
        (b'{"x": "' + b"y" * MAX_LINE_BYTES + b'"}', "a line of more than"),
    ],
)  # fmt: skip
def test_why_a_line_is_bad(line, says):
    hits, bad, seen = scan(GOOD + b"\n" + line + b"\n" + GOOD)
    assert [hit["row"] for hit in hits] == [0, 2]
    ((row, why),) = bad
    assert (row, seen) == (1, 3)
    assert says in why


def test_a_pair_of_surrogates_and_big_numbers_are_fine():
    ((hit,), bad, _) = scan(b'{"url": "u", "caption": "usgs \\ud83d\\ude00", "n": 123456789012345678901234567890}')
    assert (hit["text"], hit["extra"], bad) == ("usgs \U0001f600", '{"n":123456789012345678901234567890}', [])


def test_names_that_come_late_are_not_lost():
    early = {"url": "http://a", "caption": "a dog"}
    late = {"url": "http://b", "caption": None, "alt": "usgs", "width": 9, "late": "x"}
    hits, bad, seen = scan(lines(*[early] * BLOCK_ROWS, late, *[early] * BLOCK_ROWS, {"alt": "usgs"}))
    assert [(hit["row"], hit["url"], hit["texts"], hit["width"], hit["extra"]) for hit in hits] == [
        (BLOCK_ROWS, "http://b", ["", "usgs"], 9, '{"late":"x"}'), (2 * BLOCK_ROWS + 1, None, ["", "usgs"], None, None),
    ]  # fmt: skip
    assert (bad, seen) == ([], 2 * BLOCK_ROWS + 2)


def test_a_block_of_bad_lines_between_good_ones():
    hits, bad, seen = scan(GOOD + b"\n" + b"x\n" * (2 * BLOCK_ROWS) + GOOD)
    assert ([hit["row"] for hit in hits], len(bad), seen) == ([0, seen - 1], 2 * BLOCK_ROWS, 2 * BLOCK_ROWS + 2)


def test_long_lines_do_not_pile_up():
    line = b'{"url": "u", "caption": "' + b"x" * 900_000 + b'"}\n'
    packed = bz2.compress(line * 100)
    tracemalloc.start()
    assert scan(packed) == ([], [], 100)
    assert tracemalloc.get_traced_memory()[1] < 60 << 20
    tracemalloc.stop()


def test_an_empty_file_has_no_rows():
    assert scan(b"") == ([], [], 0)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'[\n{"url": "u"},\n]', "none of its first 3 lines is a JSON object that names anything.*one object a line"),
        (b"{}\n", "an object without a name"), (b"url,caption\n", "none of its first 1 lines"),
        (b'{"link": "u", "caption": "x"}', "no url column url, .*its columns are link, caption"),
        (b'{"url": "u"}', "no text column caption or alt"), (b"PAR1\x15", "a Parquet file"),
        (bz2.compress(GOOD)[:-4], "bzip2 cut off"),
    ],
)  # fmt: skip
def test_files_that_will_not_do(data, says):
    with pytest.raises(MetadataError, match=f"metadata file: .*{says}"):
        scan(data)


TITLES = st.sampled_from(["usgs", "modis", "", None, "a dog"])
NAMED = st.fixed_dictionaries(
    {},
    optional={
        "caption": TITLES, "Caption": TITLES, "CAPTION": TITLES, "alt": TITLES | st.lists(TITLES, max_size=2),
        "ALT": TITLES, "id": st.integers(0, 3), "Id": st.integers(0, 3), "other": TITLES,
    },
)  # fmt: skip


def ids(rows, block_bytes):
    """Row, by its url, to its sample id."""
    hits, bad, seen = scan(lines(*rows), block_bytes=block_bytes)
    assert (bad, seen) == ([], len(rows))
    return {hit["url"]: sample_id("mine", hit["source_key"], hit["url"], hit["texts"]) for hit in hits}


@settings(max_examples=200, deadline=None)
@given(st.lists(NAMED, max_size=8), st.data(), st.integers(1, 300))
def test_the_id_of_a_row_is_its_own_whatever_stands_beside_it(rows, data, block_bytes):
    rows = [{"caption": "usgs", "url": "u"}, *({**row, "url": f"u/{place}"} for place, row in enumerate(rows))]
    wanted = ids(rows, 1 << 20)
    assert ids(data.draw(st.permutations(rows)), block_bytes) == wanted
    for row in rows:
        # The file must have a text somewhere, so one stands behind each row that is read alone.
        assert ids([row, {"caption": "a dog"}], block_bytes) == {
            url: one for url, one in wanted.items() if url == row["url"]
        }


def test_objects_with_ever_new_names_take_no_longer_than_others():
    def rows(named):
        names = {row: {f"key {named(row):03} {column:03}": column for column in range(100)} for row in range(1000)}
        return lines(*({"caption": "usgs", "url": "u"} | names[row] for row in names))

    def took(data):
        begun = time.process_time()
        scan(data)
        return time.process_time() - begun

    new, same = rows(lambda row: row), rows(lambda _: 0)
    assert len(new) == len(same)
    ratio = min(took(new) / took(same) for _ in range(3))
    assert ratio < 4  # a reader that adds a column for each name takes a hundred times as long
    hits, bad, _ = scan(new)
    assert (len(hits), bad) == (1000, [])
    assert json.loads(hits[999]["extra"]) == {f"key 999 {column:03}": column for column in range(100)}


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_a_file_is_judged_by_its_first_lines_whatever_the_blocks(block_bytes):
    other = b'{"url": "u"}\n'
    assert scan(other * (HEAD_ROWS - 1) + GOOD, block_bytes=block_bytes)[2] == HEAD_ROWS
    for data in (other * HEAD_ROWS + GOOD, other * 3):
        with pytest.raises(MetadataError, match="no text column caption or alt"):
            scan(data, block_bytes=block_bytes)
    with pytest.raises(MetadataError, match=rf"none of its first {HEAD_ROWS} lines"):
        scan(b"x\n" * HEAD_ROWS + GOOD, block_bytes=block_bytes)


def test_what_an_error_shows_of_many_long_names_is_short():
    rows = [{f"{row} {column} " + "x" * 5000: 1 for column in range(50)} for row in range(100)]
    with pytest.raises(MetadataError, match="and 980 more") as error:
        scan(lines(*rows))
    assert len(str(error.value)) < 2000


def test_words_that_are_objects_are_none():
    spec = {"columns": {"url": ["url"], "licence": ["rights"], "credit": ["by"]}}
    row = {"url": "u", "caption": "usgs", "rights": {"name": "CC0"}, "by": True}
    (one,) = scan_jsonl(io.BytesIO(lines(row)), SourceSpec.model_validate(SPEC.model_dump() | spec), MATCHER)
    (hit,) = one.hits.to_pylist()
    assert (hit["licence"], hit["credit"]) == (None, "true")


def test_the_head_finds_what_it_needs_behind_ever_new_names():
    rows = [{f"{row} {column}": 1 for column in range(600)} for row in range(4)]
    rows[2:2] = [rows[0] | {"URL": "u"}, rows[1] | {"Url": "u", "uRL": "u"}]
    hits, bad, seen = scan(lines(*rows, {"new": 1, "CAPTION": "usgs"}))
    assert ([hit["texts"] for hit in hits], bad, seen) == ([["usgs", ""]], [], 7)

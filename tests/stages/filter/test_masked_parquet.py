import io
import string
import tempfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.lexicon import load_lexicon
from manifests.sources import SourceSpec
from stages.filter import masked_parquet
from stages.filter.masked_parquet import MAX_TEXT_BYTES, RUN_ROWS, Run, is_plain, masked_rows, row_runs
from stages.filter.matcher import Matcher
from stages.filter.parquet import scan_parquet

MATCHER = Matcher(load_lexicon("rs5m-1"), "stem")
SPEC = SourceSpec(key="mine", name="mine", format="parquet", columns={"url": ["url"]}, text=["text", "more"])
WORDS = st.sampled_from(["aerial view", "usgs", "a dog", "\u00e9", "satellite", "image", "", " "])
ROW = st.fixed_dictionaries(
    {
        "url": st.none() | st.text(string.ascii_letters, max_size=4),
        "text": st.none() | st.lists(WORDS, max_size=4).map(" ".join),
        "more": st.none() | st.lists(st.none() | WORDS, max_size=3),
        "whole": st.none() | st.integers(-(2**63), 2**63 - 1),
        "part": st.none() | st.floats(width=32),
        "flag": st.none() | st.booleans(),
        "numbers": st.none() | st.lists(st.integers(0, 9), max_size=2),
    }
)
KINDS = pa.schema(
    {
        "url": pa.string(), "text": pa.large_string(), "more": pa.list_(pa.string()), "whole": pa.int64(),
        "part": pa.float32(), "flag": pa.bool_(), "numbers": pa.list_(pa.int8()),
    }
)  # fmt: skip


def write(path, rows, **options):
    pq.write_table(pa.Table.from_pylist(rows, KINDS), path, **options)
    return path


def scans(file, scratch=None, spec=SPEC, groups=None):
    count = pq.ParquetFile(file).metadata.num_row_groups
    found = list(scan_parquet(file, spec, *(groups or (0, count)), MATCHER, scratch))
    return [h for one in found for h in one.hits.to_pylist()], [b for one in found for b in one.bad], [
        one.rows_seen for one in found
    ]  # fmt: skip


@settings(max_examples=60)
@given(rows=st.lists(ROW, max_size=40), group=st.integers(1, 12), codec=st.sampled_from(["snappy", "zstd", "none"]))
def test_both_ways_give_the_same_rows(rows, group, codec):
    buffer = io.BytesIO()
    write(buffer, rows, row_group_size=group, compression=codec)
    careful = scans(buffer)
    hits, bad, seen = quick(buffer.getvalue())
    assert (repr(hits), bad, sum(seen)) == (repr(careful[0]), careful[1], sum(careful[2]))


def quick(body):
    """Scan a local file; its rows must have come through polars."""
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        file.write(body)
        file.flush()
        with Path(file.name).open("rb") as opened:
            metadata = pq.ParquetFile(opened).metadata
            if metadata.num_rows:
                runs = list(row_runs(metadata, 0, metadata.num_row_groups, ("text", "more")))
                first = sum(metadata.row_group(group).num_rows for group in range(runs[0].end))
                assert masked_rows(opened, metadata, runs[0], (0, first), KINDS.names, ["text"], MATCHER, None)
            return scans(opened)


def test_positions_are_those_of_the_file(tmp_path):
    rows = [{"url": f"u{n}", "text": "aerial view" if n % 7 == 3 else "a dog"} for n in range(100)]
    path = write(tmp_path / "m.parquet", rows, row_group_size=10)
    with path.open("rb") as file:
        hits, _, seen = scans(file, groups=(2, 5))
    assert [hit["row"] for hit in hits] == [n for n in range(20, 50) if n % 7 == 3]
    assert [hit["url"] for hit in hits] == [f"u{hit['row']}" for hit in hits]
    assert sum(seen) == 30


@pytest.mark.parametrize("protocol", ["memory", "remote"])
def test_a_file_that_is_elsewhere_is_laid_into_scratch(tmp_path, protocol):
    rows = [{"url": f"u{n}", "text": "usgs" if n % 9 == 0 else "a dog", "whole": n} for n in range(500)]
    path = write(tmp_path / "m.parquet", rows, row_group_size=50)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with path.open("rb") as file:
        expected = scans(file, groups=(3, 8))
    opened = io.BytesIO(path.read_bytes())
    if protocol == "memory":
        fsspec.filesystem("memory").pipe("/m.parquet", path.read_bytes())
        opened = fsspec.filesystem("memory").open("/m.parquet", "rb")
    assert scans(opened, scratch, groups=(3, 8)) == expected
    assert not list(scratch.iterdir())
    assert scans(opened, None, groups=(3, 8))[0] == expected[0]


def test_only_the_ranges_that_are_needed_are_read(tmp_path):
    """Of a large file a partition reads its own row groups, and of these the wanted columns."""
    rows = [{"url": f"u{n}", "text": "usgs " + "x" * 200, "whole": n} for n in range(2000)]
    body = write(tmp_path / "m.parquet", rows, row_group_size=100, compression="none", use_dictionary=False)

    class Counting(io.BytesIO):
        taken = 0

        def read(self, size=-1):
            data = super().read(size)
            self.taken += len(data)
            return data

    opened = Counting(body.read_bytes())
    metadata = pq.ParquetFile(opened).metadata
    opened.taken = 0
    found = masked_rows(opened, metadata, Run(4, 5, 0), (400, 100), ["url", "whole"], [], MATCHER, tmp_path)
    assert found is None or found.rows.num_rows == 0  # no text column was asked for
    assert opened.taken < len(opened.getvalue()) / 20


def test_runs_cover_the_groups_in_order():
    table = pa.table({"text": ["x" * 10] * 1000, "other": ["y" * 999] * 1000})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=100, compression="none", use_dictionary=False)
    metadata = pq.ParquetFile(buffer).metadata
    assert [(run.start, run.end) for run in row_runs(metadata, 2, 9, ("text",))] == [(2, 9)]
    assert next(row_runs(metadata, 2, 9, ("text",))).text_bytes < 100_000
    assert list(row_runs(metadata, 3, 3, ("text",))) == []


@pytest.mark.parametrize("limit", ["RUN_ROWS", "MAX_TEXT_BYTES"])
def test_a_run_ends_at_either_limit(monkeypatch, limit):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["x" * 10] * 1000}), buffer, row_group_size=100, compression="none")
    metadata = pq.ParquetFile(buffer).metadata
    own = metadata.row_group(0).column(0).total_uncompressed_size
    monkeypatch.setattr(masked_parquet, limit, {"RUN_ROWS": 250, "MAX_TEXT_BYTES": int(2.5 * own)}[limit])
    assert [(run.start, run.end) for run in row_runs(metadata, 0, 10, ("text",))] == [
        (0, 2), (2, 4), (4, 6), (6, 8), (8, 10),
    ]  # fmt: skip
    assert (RUN_ROWS, MAX_TEXT_BYTES) == (524_288, 256 << 20)


def test_a_row_group_too_large_to_hold_goes_through_pyarrow(monkeypatch, tmp_path):
    rows = [{"url": f"u{n}", "text": "usgs"} for n in range(50)]
    path = write(tmp_path / "m.parquet", rows)
    with path.open("rb") as file:
        expected = scans(file)
        monkeypatch.setattr("stages.filter.parquet.MAX_TEXT_BYTES", 10)
        monkeypatch.setattr("stages.filter.parquet.masked_rows", None)  # it must not be asked
        assert scans(file)[:2] == expected[:2]


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        (pa.int8(), True), (pa.uint64(), True), (pa.float64(), True), (pa.bool_(), True), (pa.large_string(), True),
        (pa.list_(pa.string()), True), (pa.large_list(pa.int32()), True), (pa.float16(), False), (pa.binary(), False),
        (pa.timestamp("ns"), False), (pa.date32(), False), (pa.decimal128(9), False), (pa.null(), False),
        (pa.dictionary(pa.int8(), pa.string()), False), (pa.map_(pa.string(), pa.string()), False),
        (pa.list_(pa.list_(pa.string())), False), (pa.list_(pa.int8(), 2), False), (pa.struct({"a": pa.int8()}), False),
        (pa.string_view(), False),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_plain(kind, plain):
    assert is_plain(kind) is plain


def test_a_column_may_have_the_name_of_the_position(tmp_path):
    table = pa.table(
        {"url": ["a", "b"], "text": ["x", "usgs"], "more": ["", ""], "place": ["p", "q"], "place_": [1, 2]}
    )
    pq.write_table(table, tmp_path / "m.parquet")
    with (tmp_path / "m.parquet").open("rb") as file:
        ((hit,), _, _) = scans(file)
    assert (hit["row"], hit["extra"]) == (1, '{"place":"q","place_":2}')


def asked(path, columns):
    """Whether polars is let at the text of a file."""
    with path.open("rb") as file:
        metadata = pq.ParquetFile(file).metadata
        rows, groups = metadata.num_rows, metadata.num_row_groups
        found = masked_rows(file, metadata, Run(0, groups, 0), (0, rows), columns, ["text"], MATCHER, None)
    return found is not None


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("rows", [3_000, 60_000])
def test_ordinary_text_is_let_through(tmp_path, rows, version):
    """Writers begin with a dictionary and leave it when it is full; columns of few values stay in it."""
    table = {
        "url": [f"http://a.org/{row:060d}" for row in range(rows)],
        "text": [f"aerial view {row * 7919 % 65_537} of a port, " * 2 for row in range(rows)],
        "nsfw": ["UNLIKELY", "UNSURE", "NSFW"] * (rows // 3),
    }
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table(table), path, row_group_size=25_000, data_page_version=version)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(1)
    assert "RLE_DICTIONARY" in chunk.encodings
    assert asked(path, list(table))


@pytest.mark.parametrize("kind", ["text", "other", "list"])
def test_text_that_grows_beyond_bounds_is_not(tmp_path, kind):
    rows = 30_000
    value = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["usgs, a " * 2_300]))
    large = pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), value) if kind == "list" else value
    table = {"text": pa.array(["usgs"] * rows), "other": pa.array(["x"] * rows)}
    table |= {"other" if kind == "other" else "text": large}
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table(table), path, store_schema=False)
    assert path.stat().st_size < 1 << 20
    assert not asked(path, ["text", "other"])
    assert kind != "other" or asked(path, ["text"])


def test_a_value_that_many_rows_name_is_looked_at_once_and_costs_nothing_where_it_does_not_match(tmp_path):
    value = pa.DictionaryArray.from_arrays(pa.array([0] * 30_000, pa.int32()), pa.array(["a dog is " * 2_000]))
    pq.write_table(pa.table({"text": value}), tmp_path / "m.parquet", store_schema=False)
    assert asked(tmp_path / "m.parquet", ["text"])


def test_shared_prefixes_grow_too(tmp_path):
    table = pa.table({"text": ["a dog is " * 2_000 + str(row) for row in range(30_000)]})
    path = tmp_path / "m.parquet"
    pq.write_table(table, path, use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})
    assert path.stat().st_size < 1 << 20
    assert not asked(path, ["text"])

"""BigEarthNet's metadata.parquet: what it says of a patch, and that no file of that name can do harm."""

import io
import re
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.filter import patch_table
from stages.filter.patch_table import read_patch_table
from stages.filter.rows import MetadataError

PATCHES = {"p1", "p2"}


def written(table, **options):
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def body(*, options=None, **columns):
    return written(pa.table(columns), **(options or {}))


def refusal(raw):
    with pytest.raises(MetadataError) as caught:
        read_patch_table(raw, PATCHES)
    assert "\n" not in str(caught.value)
    return str(caught.value)


TEXT = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int16(), pa.string())]
LISTS = [pa.list_(pa.string()), pa.large_list(pa.large_string()), pa.list_(pa.string(), 2)]


@pytest.mark.parametrize("text", TEXT, ids=str)
@pytest.mark.parametrize("labels", LISTS, ids=str)
def test_rows_of_the_patches_asked_for_whatever_kind_of_text(text, labels):
    raw = body(
        patch_id=pa.array(["p0", "p1", "p2"] * 2000, text),
        labels=pa.array([["Sea", "Beach"], ["Pastures", None], None] * 2000, pa.list_(pa.string())).cast(labels),
        country=pa.array(["x", "Austria", None] * 2000, text),
        snow=[True] * 6000,
    )
    assert read_patch_table(raw, PATCHES) == {
        "p1": {"patch_id": "p1", "labels": ["Pastures"], "country": "Austria"},
        "p2": {"patch_id": "p2", "labels": [], "country": None},
    }


def test_of_two_rows_of_a_patch_the_later_counts():
    raw = body(patch_id=["p1"] * 9000, split=["train"] * 8999 + ["test"], options={"row_group_size": 1000})
    assert read_patch_table(raw, PATCHES)["p1"]["split"] == "test"


def test_what_is_no_text_is_not_looked_at():
    raw = body(patch_id=["p1"], labels=["Sea"], split=[3], country=[["Austria"]])
    assert read_patch_table(raw, PATCHES) == {"p1": {"patch_id": "p1", "labels": []}}


TWICE = pa.Table.from_arrays([pa.array(["p1"]), pa.array(["p1"])], ["patch_id", "patch_id"])
NO_UTF8 = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"]).buffers())


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"torn", "is not readable as Parquet"), (b"", "is not readable as Parquet"),
        (body(name=["p1"]), "has no column patch_id"),
        (body(patch_id=[["p1"]]), r"column patch_id holds list<.*>, not text"),
        (body(patch_id=[{"a": "p1"}]), r"column patch_id holds struct<.*>, not text"),
        (body(patch_id=[1]), "column patch_id holds int64, not text"),
        (body(patch_id=[b"p1"]), "column patch_id holds binary, not text"),
        (written(TWICE), "has two columns of one name"),
        (body(**{"patch_id": ["p1"], "patch_id.x": ["p1"]}), "has two columns of one name"),
        (body(patch_id=["p1"], labels=[["x" * 5000]]), "labels holds a text of 5000 bytes, more than 4096"),
        (body(patch_id=["p1"], country=NO_UTF8), "Invalid UTF8"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_read_says_why(raw, says):
    assert re.search(says, refusal(raw))


def test_more_rows_than_there_are_patches_are_refused_by_the_footer():
    rows = patch_table.MAX_ROWS + 1
    raw = body(patch_id=pa.array(["p1"]).take(pa.array([0] * 1000)), options={"row_group_size": 1000})
    assert read_patch_table(raw, PATCHES)
    many = pa.DictionaryArray.from_arrays(pa.nulls(rows, pa.int32()), pa.array(["p1"]))
    assert f"has {rows} rows, more than 10000000" in refusal(body(patch_id=many))


def test_a_table_that_spells_out_to_more_than_memory_is_refused_or_read_small():
    one = pa.array(["x" * 4000])
    rows, labels = 2000, 1000
    values = pa.DictionaryArray.from_arrays(pa.array([0] * rows * labels, pa.int32()), one)
    nested = pa.ListArray.from_arrays(pa.array(range(0, rows * labels + 1, labels), pa.int32()), values)
    raw = body(patch_id=["p1", "other"] * (rows // 2), labels=nested)
    assert len(raw) < 1_000_000  # spelt out: 8 GB
    before = pa.default_memory_pool().max_memory()
    tracemalloc.start()
    assert read_patch_table(raw, PATCHES)["p1"]["labels"] == ["x" * 4000] * 64
    assert tracemalloc.get_traced_memory()[1] < 200 << 20
    tracemalloc.stop()
    assert pa.default_memory_pool().max_memory() < before + (200 << 20)


def test_a_table_that_unpacks_to_too_much_is_refused_by_the_footer(monkeypatch):
    monkeypatch.setattr(patch_table, "_MAX_UNPACKED_BYTES", 100)
    assert "unpacks to more than 100 bytes" in refusal(body(patch_id=[f"{n:04d}" for n in range(99)]))


WHOLE = body(patch_id=["p1", "p2", "p3"], labels=[["Sea"], ["Pastures", "Beach"], []], country=["x", "y", None])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_table_is_refused_or_read(changes):
    raw = bytearray(WHOLE)
    for place, value in changes:
        raw[place] = value
    found, refused = dict[str, object](), ""
    try:
        found = dict(read_patch_table(bytes(raw), PATCHES))
    except MetadataError as error:
        refused = str(error)
    assert found.keys() <= PATCHES
    assert "\n" not in refused

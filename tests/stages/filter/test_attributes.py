"""The attributes file: what is read of it, and what is said of one that cannot be."""

import io

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.identity import file_digest
from manifests.schemas import TABLES
from manifests.store import Store
from manifests.tables import empty_frame
from stages.filter.attributes import with_attributes
from stages.filter.rows import MetadataError
from stages.uris import ChangedFileError

ROWS = ["http://a.org/0", "http://a.org/1"]


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def frame(urls=ROWS):
    schema = empty_frame(TABLES["matched"]).schema
    return pl.DataFrame({name: urls if name == "url" else [None] * len(urls) for name in schema}, schema=schema)


def told(store, body, rows=None):
    if not isinstance(body, bytes):
        buffer = io.BytesIO()
        pq.write_table(pa.table(body), buffer)
        body = buffer.getvalue()
    store.replace("who.parquet", body)
    rows = frame() if rows is None else rows
    return with_attributes(rows, store, "who.parquet", file_digest(io.BytesIO(body)))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_what_it_tells_is_filled_in_whatever_its_kind_of_text(store, kind):
    table = {"url": pa.array(ROWS[1:]).cast(kind), "licence": pa.array(["CC0"]).cast(kind), "credit": pa.nulls(1)}
    found = told(store, table | {"notes": [7]})
    assert found.select("licence", "credit", "group").rows() == [(None, None, None), ("CC0", None, None)]
    assert found.schema == frame().schema


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"URL": ["u"], "licence": ["x"]}, "no column url; its columns are URL, licence. It needs url, and tells"),
        ({"url": [1]}, "column url holds int64, not text; write it as text"),
        ({"url": ["u"], "group": [3]}, "column group holds int64, not text"),
        (pa.table([["u"], ["v"]], names=["url", "url"]), "column url stands twice"),
        (b"url,licence\nu,CC0\n", r"not readable as Parquet \(it looks like text\); check that"),
        (b"", "not readable as Parquet .*fetch it again"),
        (
            {"url": pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"], pa.binary()).buffers())},
            "not readable as Parquet",
        ),
    ],
)
def test_what_is_no_attributes_file_is_said(store, body, says):
    with pytest.raises(MetadataError, match=rf"attributes file who\.parquet: {says}"):
        told(store, body)


def test_it_is_the_file_that_was_planned_with(store):
    told(store, {"url": ROWS, "group": ["a", "b"]})
    with pytest.raises(ChangedFileError, match="changed while it was read"):
        with_attributes(frame(), store, "who.parquet", "0" * 64)


def test_no_file_or_no_row_changes_nothing(store):
    assert with_attributes(frame(), store, "", "").equals(frame())
    assert with_attributes(frame([]), store, "gone.parquet", "").equals(frame([]))

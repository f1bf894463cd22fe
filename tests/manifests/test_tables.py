from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.schemas import TABLES
from manifests.tables import TableError, empty_frame, read_table, rows_digest, write_table

SPEC = TABLES["plan"]
CLUSTERS = TABLES["clusters"]

ids = st.text(alphabet="0123456789abcdef", min_size=4, max_size=4)
cluster_rows = st.lists(
    st.tuples(
        ids, ids, ids, st.sampled_from(["url", "near"]), st.none() | st.integers(-1, 64), st.none() | st.just(1.5)
    ),
    unique_by=lambda row: row[:2],
    max_size=20,
)


def frame(rows: list[tuple[object, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=empty_frame(CLUSTERS).schema, orient="row")


@settings(deadline=None)
@given(cluster_rows, st.randoms())
def test_rows_come_back_and_order_does_not_matter(tmp_path_factory, rows, random) -> None:
    folder = tmp_path_factory.mktemp("t")
    one = write_table(CLUSTERS, frame(rows), folder / "one.parquet")
    random.shuffle(rows)
    other = write_table(CLUSTERS, frame(rows), folder / "other.parquet")
    assert one == other
    assert (folder / "one.parquet").read_bytes() == (folder / "other.parquet").read_bytes()
    back = read_table(CLUSTERS, folder / "one.parquet")
    assert back.schema == empty_frame(CLUSTERS).schema
    assert sorted(back.rows(), key=str) == sorted(frame(rows).rows(), key=str)


@settings(deadline=None)
@given(cluster_rows, cluster_rows)
def test_the_digest_tells_rows_apart(one, other) -> None:
    same = sorted(frame(one).rows(), key=str) == sorted(frame(other).rows(), key=str)
    assert (rows_digest(CLUSTERS, frame(one)) == rows_digest(CLUSTERS, frame(other))) == same


def test_a_null_and_an_empty_value_differ() -> None:
    row = ("a", "b", "c", "url")
    assert rows_digest(CLUSTERS, frame([(*row, None, None)])) != rows_digest(CLUSTERS, frame([(*row, 0, None)]))


def plan(tar: str, offset: int) -> pl.DataFrame:
    row = ("t", 0, "s", "cc3m", "n", "c", tar, offset, 3, "d")
    return pl.DataFrame([row], schema=empty_frame(SPEC).schema, orient="row")


def test_places_in_the_image_store_do_not_reach_the_digest() -> None:
    assert rows_digest(SPEC, plan("a.tar", 512)) == rows_digest(SPEC, plan("b.tar", 1024))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    good = plan("a.tar", 512)
    path = tmp_path / "x.parquet"
    with pytest.raises(TableError, match="lacks the columns caption"):
        write_table(SPEC, good.drop("caption"), path)
    with pytest.raises(TableError, match="holds a null in sha256"):
        write_table(SPEC, good.with_columns(pl.lit(None, pl.String).alias("sha256")), path)
    with pytest.raises(TableError, match="not unique"):
        write_table(SPEC, pl.concat([good, good]), path)


def test_files_carry_neither_pandas_nor_arrow_metadata(tmp_path: Path) -> None:
    write_table(SPEC, plan("a.tar", 1), tmp_path / "x.parquet")
    assert pq.read_metadata(tmp_path / "x.parquet").metadata in (None, {})


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_declared_table_can_be_written_empty(name: str, tmp_path: Path) -> None:
    spec = TABLES[name]
    write_table(spec, empty_frame(spec), tmp_path / "x.parquet")
    assert read_table(spec, tmp_path / "x.parquet").schema == empty_frame(spec).schema
    assert set(spec.sort_key) <= set(spec.schema.names)
    assert spec.located <= set(spec.schema.names)

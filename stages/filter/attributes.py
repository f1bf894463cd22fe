"""The attributes file of a source: licence, credit and group of its rows, by url."""

from __future__ import annotations

from typing import BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from manifests.store import Store
from manifests.tables import to_frame
from stages.filter.rows import MetadataError
from stages.filter.unreadable import as_parquet
from stages.uris import open_unchanged

FIELDS = ("licence", "credit", "group")
"""What it may tell of a url."""


def with_attributes(frame: pl.DataFrame, store: Store, uri: str, digest: str) -> pl.DataFrame:
    """Fill licence, credit and group from a source's attributes file; the first row of a url counts.

    Args:
        frame: Rows of table ``matched``.
        store: The workdir.
        uri: The file; empty: there is none.
        digest: Its file digest when the run was planned.

    Raises:
        MetadataError: It is no Parquet file with a text column ``url``, or what it tells is no text.
        ChangedFileError: It is no longer the file that was planned with.
    """
    if not uri or not frame.height:
        return frame
    with open_unchanged(store, uri, digest) as file:
        known = _read(file, uri).unique("url", keep="first", maintain_order=True)
    names = [name for name in known.columns if name != "url"]
    joined = frame.join(known, on="url", how="left", suffix="_given", maintain_order="left")
    filled = [pl.coalesce(f"{name}_given", name).alias(name) for name in names]
    return joined.with_columns(filled).select(frame.columns)


def _read(file: BinaryIO, uri: str) -> pl.DataFrame:
    with as_parquet(file, MetadataError, f"attributes file {uri}"):
        parquet = pq.ParquetFile(file)
        schema = parquet.schema_arrow
        names = [name for name in ("url", *FIELDS) if name in schema.names]
        _check(schema, names, uri)
        table = parquet.read(columns=names, use_threads=False)
        table.validate(full=True)  # text that is no UTF-8
        wanted = pa.schema([(name, pa.large_string()) for name in names])
        return to_frame(table.select(names).cast(wanted))


def _check(schema: pa.Schema, names: list[str], uri: str) -> None:
    if "url" not in names:
        raise MetadataError(
            f"attributes file {uri}: no column url; its columns are {', '.join(schema.names) or 'none'}. It needs url, "
            f"and tells {', '.join(FIELDS)} by it: rename its columns"
        )
    for name in names:
        if schema.names.count(name) > 1:
            raise MetadataError(f"attributes file {uri}: column {name} stands twice; leave one")
        kind = schema.field(name).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
        if not any(test(kind) for test in tests):
            raise MetadataError(f"attributes file {uri}: column {name} holds {kind}, not text; write it as text")

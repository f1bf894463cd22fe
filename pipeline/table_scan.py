"""Reads rows out of stored tables: on a local file system only the columns and row groups that are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from manifests.manifest import Receipt
from manifests.schemas import TABLES, TableSpec
from manifests.store import Store
from pipeline.line import step_named
from pipeline.worker import read_stored, table_of
from stages.step import CorruptFileError


def spec_of(step: str, receipt: Receipt) -> TableSpec | None:
    """Return the declared table of a step's output, None for what is no table."""
    if not receipt.path.endswith(".parquet"):
        return None
    if receipt.path.startswith("release/"):
        return TABLES["released"]
    return table_of(step_named(step), receipt.name)


def scan(
    store: Store, spec: TableSpec, path: str, wanted: pl.Expr | None = None, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """Return rows of a stored table.

    Args:
        store: The workdir.
        spec: The declared table.
        path: Its path below the workdir.
        wanted: Which rows; all by default.
        columns: Which columns; all by default.

    Raises:
        CorruptFileError: If the file is not there or no readable table.
    """
    local = store.local_path(path)
    names = list(columns) if columns is not None else spec.schema.names
    condition = pl.lit(value=True) if wanted is None else wanted
    if local is None:
        return read_stored(store, spec, path).filter(condition).select(names)
    try:
        return pl.scan_parquet(local, glob=False).filter(condition).select(names).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise CorruptFileError(path, f"is no readable table: {error}") from error

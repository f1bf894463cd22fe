"""The metadata.parquet that BigEarthNet v2 keeps beside its patches: a stranger's table, read within bounds.

Text stays dictionary-encoded until a row is wanted: a file of kilobytes can spell out to terabytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Set
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from stages.filter.rows import MetadataError
from stages.filter.sidecars import MAX_LABELS, MAX_TEXT

TABLE_NAME = "metadata.parquet"
MAX_TABLE_BYTES = 1 << 28
"""Of the file as it is stored; the published one has a few megabytes."""
MAX_ROWS = 10_000_000
"""The published table has 549 488 rows, one a patch."""

_MAX_UNPACKED_BYTES = 1 << 30
_BATCH_ROWS = 1_024  # of the longest texts, a quarter of a GiB when spelt out
_KEY = "patch_id"
_TEXTS = (_KEY, "split", "country")
_LABELS = "labels"


def read_patch_table(body: bytes, patches: Set[str]) -> dict[str, dict[str, Any]]:
    """Return the rows of some patches, by patch; of two rows the later counts.

    A row holds labels (at most `MAX_LABELS`), split and country, as far as the table has them as text.

    Args:
        body: The file.
        patches: Names of the patches.

    Raises:
        MetadataError: It is no Parquet, lacks patch_id as text, or is larger than such a table can be.
    """
    try:
        return _rows(body, patches)
    except MemoryError as error:
        raise MetadataError("needs more memory than there is") from error
    except MetadataError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: names that are no UTF-8
        raise MetadataError(f"is not readable as Parquet: {' '.join(str(error).split())}") from error


def _rows(body: bytes, patches: Set[str]) -> dict[str, dict[str, Any]]:
    columns = _columns(pq.ParquetFile(io.BytesIO(body)))
    file = pq.ParquetFile(io.BytesIO(body), read_dictionary=list(columns.values()))
    found, spelt = dict[str, dict[str, Any]](), dict[str, str]()
    for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns), use_threads=False):
        for row in _wanted_rows(batch, patches):
            labels = [spelt.setdefault(label, label) for label in row.pop(_LABELS, None) or () if label is not None]
            found[row[_KEY]] = {**row, _LABELS: labels}
    return found


def _columns(file: pq.ParquetFile) -> dict[str, str]:
    """Return the columns to read and the path of each one's texts in the file, after a look at the footer alone."""
    _check_size(file.metadata)
    kinds = {field.name: field.type for field in file.schema_arrow}
    if _KEY not in kinds:
        raise MetadataError(f"has no column {_KEY}")
    if not _is_text(kinds[_KEY]):
        raise MetadataError(f"column {_KEY} holds {kinds[_KEY]}, not text")
    taken = {name for name in _TEXTS if _is_text(kinds.get(name))}
    if _is_text_list(kinds.get(_LABELS)):
        taken.add(_LABELS)
    paths = [file.schema.column(index).path for index in range(len(file.schema))]
    columns = {path.split(".", 1)[0]: path for path in paths if path.split(".", 1)[0] in taken}
    if sum(path.split(".", 1)[0] in taken for path in paths) > len(taken):
        raise MetadataError(f"has two columns of one name, one of {', '.join(sorted(taken))}")
    return columns


def _check_size(footer: pq.FileMetaData) -> None:
    # Of row groups only: pyarrow ends the process where a damaged footer is asked for a column that it lacks.
    groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
    rows = max(footer.num_rows, sum(group.num_rows for group in groups))
    if rows > MAX_ROWS:
        raise MetadataError(f"has {rows} rows, more than {MAX_ROWS}")
    if sum(group.total_byte_size for group in groups) > _MAX_UNPACKED_BYTES:
        raise MetadataError(f"unpacks to more than {_MAX_UNPACKED_BYTES} bytes")


def _wanted_rows(batch: pa.RecordBatch, wanted: Set[str]) -> Iterator[dict[str, Any]]:
    """Yield rows of the wanted patches as Python values; none is overlong, and none has more labels than are kept."""
    batch.validate(full=True)  # places outside a dictionary, which a damaged page may hold, are not checked in reading
    for name in batch.schema.names:
        _check_texts(batch.column(name), name)
    keys = batch.column(_KEY).dictionary_decode().to_pylist()
    rows = batch.filter(pa.array([key in wanted for key in keys], pa.bool_()))
    spelt = [_spelt(rows.column(name)) for name in rows.schema.names]
    yield from pa.RecordBatch.from_arrays(spelt, rows.schema.names).to_pylist()


def _spelt(column: pa.Array) -> pa.Array:
    if types.is_dictionary(column.type):
        return column.dictionary_decode()
    return pc.list_slice(column, 0, MAX_LABELS).cast(pa.list_(pa.string()))


def _check_texts(column: pa.Array, name: str) -> None:
    """Raise for a text that is longer than any that is kept, before a row spells it out."""
    texts = column if types.is_dictionary(column.type) else column.values
    longest = pc.max(pc.binary_length(texts.dictionary)).as_py() or 0
    if longest > MAX_TEXT:
        raise MetadataError(f"column {name} holds a text of {longest} bytes, more than {MAX_TEXT}")


def _is_text(kind: pa.DataType | None) -> bool:
    if kind is not None and types.is_dictionary(kind):
        kind = kind.value_type
    tests = (types.is_string, types.is_large_string, types.is_string_view)
    return kind is not None and any(test(kind) for test in tests)


def _is_text_list(kind: pa.DataType | None) -> bool:
    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return kind is not None and any(test(kind) for test in tests) and _is_text(kind.value_type)

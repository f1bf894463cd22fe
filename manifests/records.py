"""What planning needs of a step's commits, in columns: hundreds of bytes a commit, where a manifest is thousands.

Columns come from ``cache/commits/<step>.records``, which is never an input of a result and always safe to delete. A row
is believed only if the listing shows a commit of the same name, size and stamp, and, where the stamp is a time, if that
time is well before the file was written: a commit that is removed and made again under its name has another stamp.
Everything else is read from the manifest itself.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.canonical import JsonValue, canonical_digest
from manifests.manifest import LedgerReceipt, Manifest, Receipt
from manifests.store import Store

_TEXTS = pa.list_(pa.string())
_NUMBERS = pa.list_(pa.int64())
_SCHEMA = pa.schema(
    [
        ("name", pa.string()),  # of the commit's file
        ("bytes", pa.int64()),  # of the commit's file
        ("stamp", pa.string()),  # of the commit's file
        ("open", pa.bool_()),
        ("failed", pa.bool_()),  # whether a row failed
        ("row_fingerprint", pa.string()),
        ("layout", pa.string()),  # `layout_digest`
        ("settings", pa.string()),  # `settings_digest`
        ("seen", pa.int64()),  # rows, over all sources
        ("kept", pa.int64()),
        ("left", pa.int64()),
        ("deferred", pa.int64()),
        ("ledger_path", pa.string()),
        ("ledger_bytes", pa.int64()),
        ("output", _TEXTS),  # from here on one value an output
        ("for_partition", _TEXTS),
        ("rows_digest", _TEXTS),
        ("sha256", _TEXTS),
        ("path", _TEXTS),
        ("file_bytes", _NUMBERS),
        ("rows", _NUMBERS),
    ]
)
_STAMPS = ("bytes", "stamp")
_PER_OUTPUT = ("output", "for_partition", "rows_digest", "sha256", "path", "file_bytes", "rows")
_FORMAT = b"rs5m-records-1"
_FOLDER = "cache/commits"
_DIGEST_BYTES = 32
_TIME = re.compile(r"t([0-9a-f]{1,24})-[0-9a-f]+")
_COARSE_NS, _FINE_NS = 2_000_000_000, 100_000_000
"""A commit is believed if it is older than the record by this: where file times tick in seconds, and where finer."""

COUNTING = ("name", "open", "failed", "output", "for_partition", "rows_digest", "sha256")
"""The columns that tell what is done; the others tell what to do about the rest."""


class Records:
    """The commits of one step, a row each.

    Args:
        step: ``<stage>.<step>``.
        tables: Their rows.
        columns: The columns there are; empty: all.

    Attributes:
        new_bytes: Size of the manifests of those that the cache does not know.
    """

    def __init__(self, step: str, tables: Sequence[pa.Table], columns: Sequence[str] = ()) -> None:
        self.step = step
        self._schema = pa.schema([_SCHEMA.field(name) for name in columns]) if columns else _SCHEMA
        self._table = _joined([self._schema.empty_table(), *tables])
        self._added: list[dict[str, Any]] = []
        self._flat: dict[str, pa.Array] = {}
        self.new_bytes = 0

    @property
    def whole(self) -> bool:
        """Whether all columns are there."""
        return len(self._schema) == len(_SCHEMA)

    def __len__(self) -> int:
        return len(self._table) + len(self._added)

    def add(self, row: dict[str, Any]) -> int:
        """Add a commit, as `record` gives it; returns its row."""
        self._added.append({name: row[name] for name in self._schema.names})
        self.new_bytes += int(row["bytes"])
        return len(self) - 1

    def values(self, column: str) -> list[Any]:
        """Return a column's values, one a commit."""
        return list(self._settled().column(column).to_pylist())

    def value(self, column: str, row: int) -> Any:  # noqa: ANN401
        """Return one value of a commit."""
        if row >= len(self._table):
            return self._added[row - len(self._table)][column]
        return self._table.column(column)[row].as_py()

    def starts(self) -> list[int]:
        """Return where the outputs of each commit start among those of all, and, last, how many there are."""
        lists = self._settled().column("output").combine_chunks()
        places = lists.offsets.to_pylist() if len(lists) else [0]
        return [place - places[0] for place in places]

    def outputs(self, column: str) -> pa.Array:
        """Return a column's values, one an output of all commits, as far as `starts` counted them."""
        if column not in self._flat:
            self._flat[column] = self._table.column(column).combine_chunks().flatten()
        return self._flat[column]

    def receipt(self, output: int) -> Receipt:
        """Return the receipt of an output, counted over all commits."""
        of = {name: self.outputs(name)[output].as_py() for name in _PER_OUTPUT}
        return Receipt(
            name=of["output"],
            partition=of["for_partition"],
            path=of["path"],
            sha256=of["sha256"],
            rows_digest=of["rows_digest"],
            bytes=of["file_bytes"],
            rows=of["rows"],
        )

    def files(self, row: int) -> list[tuple[str, int]]:
        """Return path and recorded size of every file of a commit."""
        paths, sizes = self.value("path", row), self.value("file_bytes", row)
        ledger = (self.value("ledger_path", row), self.value("ledger_bytes", row))
        return [*zip(paths, sizes, strict=True), ledger]

    def table(self) -> pa.Table:
        """Return all rows as a table."""
        return self._settled()

    def _settled(self) -> pa.Table:
        if self._added:
            self._table = _joined([self._table, pa.Table.from_pylist(self._added, self._schema)])
            self._added, self._flat = [], {}
        return self._table


def record(manifest: Manifest, name: str, size: int, stamp: str) -> dict[str, Any]:
    """Return a commit's row.

    Args:
        manifest: What it says.
        name: The name of its file.
        size: Bytes of its file.
        stamp: Its file's stamp, as a listing shows it.
    """
    counts, outputs = list(manifest.rows.values()), manifest.outputs
    ledger: LedgerReceipt = manifest.ledger
    return {
        "name": name,
        "bytes": size,
        "stamp": stamp,
        "open": manifest.open,
        "failed": any(c.failed for c in counts),
        "row_fingerprint": manifest.row_fingerprint,
        "layout": layout_digest(manifest.facts),
        "settings": settings_digest(manifest.parts.recipe, manifest.parts.code),
        "seen": sum(c.seen for c in counts),
        "kept": sum(c.kept for c in counts),
        "left": sum(c.left for c in counts),
        "deferred": sum(sum(c.deferred.values()) for c in counts),
        "ledger_path": ledger.path,
        "ledger_bytes": ledger.bytes,
        "output": [o.name for o in outputs],
        "for_partition": [o.partition for o in outputs],
        "rows_digest": [o.rows_digest for o in outputs],
        "sha256": [o.sha256 for o in outputs],
        "path": [o.path for o in outputs],
        "file_bytes": [o.bytes for o in outputs],
        "rows": [o.rows for o in outputs],
    }


def settings_digest(recipe: Mapping[str, JsonValue], code: int) -> str:
    """Return the digest of the settings and the code version that a commit was made under."""
    return canonical_digest([dict(recipe), code])


def layout_digest(facts: Mapping[str, JsonValue]) -> str:
    """Return the digest of the layout that a commit's facts name; empty where they name none."""
    layout = facts.get("layout")
    if not isinstance(layout, dict):
        return ""
    spread = layout.get("spread")
    return canonical_digest([layout.get("buckets"), sorted(map(str, spread)) if isinstance(spread, list) else []])


def table_of(rows: list[dict[str, Any]], columns: Sequence[str] = ()) -> pa.Table:
    """Return rows as a table of ``columns``; empty: all."""
    names = columns or _SCHEMA.names
    return pa.Table.from_pylist(
        [{name: row[name] for name in names} for row in rows], pa.schema([_SCHEMA.field(name) for name in names])
    )


def remembered(
    store: Store, step: str, listed: Mapping[str, tuple[int, str]], columns: Sequence[str] = ()
) -> pa.Table | None:
    """Return the rows that the cache holds of commits as they are listed; None where it holds none.

    Args:
        store: The workdir.
        step: ``<stage>.<step>``.
        listed: File name to size and stamp.
        columns: The columns wanted; empty: all.
    """
    if not listed:
        return None
    path = _path(step)
    written = next((entry.stamp for entry in store.scan(_FOLDER) if entry.path == path), None)
    table = _read(store, step, columns) if written is not None else None
    if written is None or table is None:
        return None
    written_ns = _time_ns(written) or 0
    rows = zip(*(table.column(name).to_pylist() for name in ("name", *_STAMPS)), strict=True)
    keep = [
        bool(stamp) and listed.get(name) == (size, stamp) and _is_before(_time_ns(stamp), written_ns)
        for name, size, stamp in rows
    ]
    believed = table if all(keep) else table.filter(pa.array(keep, pa.bool_()))
    return believed.select(list(columns)) if columns else believed


def remember(store: Store, records: Records) -> None:
    """Write records to the cache."""
    sink = io.BytesIO()
    metadata = {b"format": _FORMAT, b"step": records.step.encode()}
    pq.write_table(records.table().replace_schema_metadata(metadata), sink, compression="zstd", row_group_size=65_536)
    body = sink.getvalue()
    store.replace(_path(records.step), hashlib.sha256(body).digest() + body)
    records.new_bytes = 0


def _path(step: str) -> str:
    return f"{_FOLDER}/{step}.records"


def _read(store: Store, step: str, columns: Sequence[str]) -> pa.Table | None:
    """Return what the cache's file of a step holds; None where there is none, or it is damaged or another's."""
    names = list(dict.fromkeys((*columns, "name", *_STAMPS))) if columns else _SCHEMA.names
    try:
        data = memoryview(store.read(_path(step)))
        if hashlib.sha256(data[_DIGEST_BYTES:]).digest() != data[:_DIGEST_BYTES]:
            return None
        file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(data[_DIGEST_BYTES:])))
        told = file.schema_arrow.metadata or {}
        if told.get(b"format") != _FORMAT or told.get(b"step") != step.encode():
            return None
        table = file.read(columns=names, use_threads=False).replace_schema_metadata(None).select(names)
        return table.cast(pa.schema([_SCHEMA.field(name) for name in names]))
    except (OSError, pa.ArrowException, KeyError):
        return None


def _is_before(changed_ns: int | None, written_ns: int) -> bool:
    """Whether a commit cannot have been made anew since without another time; None: its stamp tells its content."""
    if changed_ns is None:
        return True
    return changed_ns + (_FINE_NS if changed_ns % 1_000_000_000 else _COARSE_NS) < written_ns


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).combine_chunks()


def _time_ns(stamp: str) -> int | None:
    """Return the time of change that a stamp tells; None where it tells the content instead, as an ETag does."""
    found = _TIME.fullmatch(stamp)
    return int(found[1], 16) if found else None

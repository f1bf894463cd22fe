"""Stored bytes against what was recorded of them: every file of every commit, and every image by its own digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.commits import CommitStore, CorruptCommitError
from manifests.manifest import Manifest
from manifests.schemas import LEDGER, TABLES, TableSpec
from manifests.store import Store
from manifests.tables import TableError, read_table, rows_digest
from pipeline.line import LINE
from pipeline.table_scan import scan, spec_of
from stages.images import Place, read_images
from stages.step import CorruptFileError

_BLOCK_BYTES = 1 << 20
_STEPS = frozenset(step.name for step in LINE)
_PLACE = ("tar", "offset", "length", "sha256")


@dataclass(frozen=True, slots=True)
class Expected:
    """What a commit recorded of a file; ``rows_digest`` and ``table`` are None where it is no table of its own."""

    path: str
    sha256: str
    bytes: int
    rows: int
    rows_digest: str | None
    table: str | None


@dataclass(slots=True)
class Checked:
    """The files that were read.

    Attributes:
        digests: Path to sha256, as read.
        bytes: How much was read.
        corrupt: Path to what is wrong.
    """

    digests: dict[str, str] = field(default_factory=dict)
    bytes: int = 0
    corrupt: dict[str, str] = field(default_factory=dict)


def unreadable_commits(commits: CommitStore) -> dict[str, str]:
    """Return the manifests that cannot be read, and why."""
    found: dict[str, str] = {}
    for step in commits.steps():
        for name in commits.step(step).all():
            try:
                commits.read(name)
            except (CorruptCommitError, ValueError):
                found[name.path] = "is no manifest of this format"
    return found


def expectations(commits: CommitStore) -> list[Expected]:
    """Return what all commits recorded, once each, by path."""
    found = {e for step in commits.steps() for n in commits.step(step).all() for e in _expected(commits.read(n))}
    return sorted(found, key=lambda e: (e.path, e.sha256))


def _expected(manifest: Manifest) -> Iterator[Expected]:
    ledger = manifest.ledger
    yield Expected(ledger.path, ledger.sha256, ledger.bytes, ledger.rows, None, LEDGER.name)
    for output in manifest.outputs:
        spec = spec_of(manifest.step, output) if manifest.step in _STEPS else None
        digest = output.rows_digest if spec and not output.path.startswith("release/") else None
        name = spec.name if spec else None
        yield Expected(output.path, output.sha256, output.bytes, output.rows, digest, name)


def check_files(store: Store, expected: list[Expected], tick: Callable[[str], None]) -> Checked:
    """Hash every file, and check every table's schema, rows and rows digest."""
    checked, sizes = Checked(), dict[str, int]()
    for index, wanted in enumerate(expected):
        path = wanted.path
        try:
            if path not in checked.digests:
                checked.digests[path], sizes[path] = _hash(store, path)
                checked.bytes += sizes[path]
            what = _compared(wanted, checked.digests[path], sizes[path]) or _table_fault(store, wanted)
        except FileNotFoundError:
            what = "is gone"
        if what:
            checked.corrupt.setdefault(path, what)
        tick(f"verified {index + 1} of {len(expected)} files, {checked.bytes:,} bytes")
    return checked


def _hash(store: Store, path: str) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with store.open(path) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def _compared(wanted: Expected, sha256: str, size: int) -> str:
    if size != wanted.bytes:
        return f"has {size} bytes, recorded are {wanted.bytes}"
    return "" if sha256 == wanted.sha256 else f"has sha256 {sha256[:12]}, recorded is {wanted.sha256[:12]}"


def _table_fault(store: Store, wanted: Expected) -> str:
    """Return what is wrong with a table whose bytes are as recorded; empty if nothing is."""
    if wanted.table is None:
        return ""
    spec = LEDGER if wanted.table == LEDGER.name else TABLES[wanted.table]
    try:
        with store.open(wanted.path) as file:
            if not _declared(pq.read_schema(file), spec.schema):
                return f"does not have the declared columns of {spec.name}"
            file.seek(0)
            return _rows_fault(spec, read_table(spec, file), wanted)
    except (pa.ArrowException, TableError) as error:
        return f"is no readable {spec.name} table: {error}"


def _declared(found: pa.Schema, declared: pa.Schema) -> bool:
    """Return whether a file has the declared columns. Parquet itself does not know lists of fixed size."""
    return found.names == declared.names and all(
        one.nullable == other.nullable
        and (
            (pa.types.is_list(one.type) and one.type.value_type == other.type.value_type)
            if pa.types.is_fixed_size_list(other.type)
            else one.type == other.type
        )
        for one, other in zip(found, declared, strict=True)
    )


def _rows_fault(spec: TableSpec, frame: pl.DataFrame, wanted: Expected) -> str:
    if frame.height != wanted.rows:
        return f"holds {frame.height} rows, recorded are {wanted.rows}"
    if wanted.rows_digest is not None and rows_digest(spec, frame) != wanted.rows_digest:
        return "holds other rows than recorded: its rows digest differs"
    return ""


def check_images(
    store: Store, expected: list[Expected], checked: Checked, tick: Callable[[str], None]
) -> Mapping[str, str]:
    """Read every image that a table of fetched rows points at, and check it by its sha256; returns corrupted tars."""
    tables = [e.path for e in expected if e.table == "fetched" and e.rows and e.path not in checked.corrupt]
    frames = [scan(store, TABLES["fetched"], path, columns=_PLACE) for path in tables]
    places = pl.concat(frames).unique().sort(_PLACE) if frames else pl.DataFrame(schema=list(_PLACE))
    corrupt: dict[str, str] = {}
    for (tar,), mine in places.partition_by("tar", as_dict=True, maintain_order=True).items():
        if tar in checked.corrupt:
            continue
        try:
            for _ in read_images(store, [Place(**row) for row in mine.iter_rows(named=True)]):
                pass
        except CorruptFileError as error:
            corrupt[str(tar)] = error.detail
        tick(f"verified the images of {tar}")
    return corrupt

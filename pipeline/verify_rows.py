"""The laws over the rows themselves: what a step was given is what it kept and what its ledger lists, id by id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from manifests.ledger import to_counts
from manifests.manifest import Manifest, Receipt
from manifests.reasons import reasons
from manifests.schemas import LEDGER, TableSpec
from manifests.store import Store
from pipeline.books import Books, Law, committed, law
from pipeline.line import LINE, step_named
from pipeline.planner import Planner
from pipeline.plans import PartitionPlan
from pipeline.table_scan import scan, spec_of
from pipeline.worker import table_of
from stages.step import Step


def check_rows(store: Store, planner: Planner, books: Books) -> list[Law]:
    """Check the closing law from the ledger tables, and from filter.pool on the law of rows.

    Raises:
        CorruptFileError: If a table cannot be read.
    """
    ran = [step for step in LINE if step.name in books]
    closing = [f for step in ran for m in committed(planner.plan(step)) for f in _closing_faults(store, step, m)]
    rows = [
        fault
        for step in ran
        if step.inputs
        for partition in planner.plan(step).partitions
        if partition.manifest and partition.state != "todo"
        for fault in _row_faults(store, step, partition, partition.manifest)
    ]
    return [law("ledger_closes", closing), law("rows", rows)]


def _closing_faults(store: Store, step: Step, manifest: Manifest) -> Iterator[str]:
    """Yield, by source, where the manifest's books are not what the ledger and the kept table hold, or do not close."""
    where = f"{step.name}/{manifest.partition}"
    ledger = scan(store, LEDGER, manifest.ledger.path, columns=["source", "class", "reason"])
    listed = {(source, kind, reason): rows for source, kind, reason, rows in to_counts(ledger)}
    kept_by_source = _kept_by_source(store, step, manifest)
    for source, counts in manifest.rows.items():
        booked = {
            (source, kind, reason): rows
            for kind in ("dropped", "failed", "deferred")
            for reason, rows in getattr(counts, kind).items()
            if reasons()[reason].in_ledger
        }
        if booked != {key: rows for key, rows in listed.items() if key[0] == source}:
            yield f"{where}, {source}: the ledger lists other rows than the books count"
        if kept_by_source is not None and kept_by_source.get(source, 0) != counts.kept:
            yield f"{where}, {source}: {kept_by_source.get(source, 0)} rows kept, the books say {counts.kept}"
        if counts.seen != counts.kept + counts.left:
            yield f"{where}, {source}: {counts.seen} rows in, {counts.kept} kept + {counts.left} left"
    if strangers := sorted({source for source, _, _ in listed} - manifest.rows.keys()):
        yield f"{where}: the ledger lists rows of {strangers[0]}, which the books do not know"
    kept, booked_kept = sum(o.rows for o in _kept(step, manifest)), sum(c.kept for c in manifest.rows.values())
    if kept != booked_kept:
        yield f"{where}: {kept} rows kept, the books say {booked_kept}"


def _kept(step: Step, manifest: Manifest) -> list[Receipt]:
    return [output for output in manifest.outputs if output.name == step.keeps]


def _kept_by_source(store: Store, step: Step, manifest: Manifest) -> dict[str, int] | None:
    """Return the kept rows per source; None where the table does not say whose they are."""
    sums: dict[str, int] = {}
    for output in _kept(step, manifest):
        spec = spec_of(step.name, output)
        if spec is None or "source" not in spec.schema.names:
            return None
        for source, rows in scan(store, spec, output.path, columns=["source"]).group_by("source").len().iter_rows():
            sums[source] = sums.get(source, 0) + rows
    return sums


def _row_faults(store: Store, step: Step, plan: PartitionPlan, manifest: Manifest) -> Iterator[str]:
    """Yield where ids in are not the ids kept plus the ids in the ledger, or an id stands twice in what was kept."""
    given = {(i.step, i.table): table_of(step_named(i.step), i.table) for i in step.rows_in}
    seen = _ids(store, [(given[f.step, f.table], f.file.path) for f in plan.inputs if (f.step, f.table) in given])
    kept = _ids(store, [(s, o.path) for o in _kept(step, manifest) if (s := spec_of(step.name, o))])
    left = _ids(store, [(LEDGER, manifest.ledger.path)])
    if kept.n_unique() != len(kept):
        yield f"{plan.name}: a sample stands twice in {step.keeps}"
    if not pl.concat([kept, left]).sort().equals(seen.sort()):
        yield f"{plan.name}: the samples given are not those kept and those in the ledger"


def _ids(store: Store, tables: Sequence[tuple[TableSpec, str]]) -> pl.Series:
    parts = [scan(store, spec, path, columns=["sample_id"])["sample_id"] for spec, path in tables]
    return pl.concat(parts) if parts else pl.Series("sample_id", [], dtype=pl.String)

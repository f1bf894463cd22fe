"""The books of a build: what the commits that count say of each step and source, added up; and the laws on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from manifests.ledger import RowCounts
from manifests.manifest import Manifest
from pipeline.line import LINE, step_named
from pipeline.planner import Planner
from pipeline.plans import StepPlan
from pipeline.upstream import lane_of_source
from stages.step import Step

Books: TypeAlias = Mapping[str, Mapping[str, RowCounts]]
"""Step to source to counts. A step that has no commit is absent: not run yet."""

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Law:
    """Whether a law holds.

    Attributes:
        law: Its name.
        ok: None where it could not be checked.
        detail: What broke it, or why it was not checked; empty where it holds.
    """

    law: str
    ok: bool | None
    detail: str = ""


def committed(plan: StepPlan) -> list[Manifest]:
    """Return the manifests of a step that count: settled partitions, and open ones as far as they are."""
    return list(plan.committed())


def read_books(planner: Planner) -> dict[str, dict[str, RowCounts]]:
    """Return the books of every step of the line that has run under the current recipe."""
    plans = [planner.plan(step) for step in LINE]
    return {plan.step.name: add_up(m.rows for m in plan.committed()) for plan in plans if plan.has_commits}


def leak_counts(planner: Planner) -> dict[str, dict[str, int]]:
    """Return what dedup.cluster found of each evaluation set it was given: items, unread, items_found, samples."""
    found: dict[str, dict[str, int]] = {}
    for manifest in committed(planner.plan(step_named("dedup.cluster"))):
        benchmarks = manifest.facts.get("benchmarks")
        for name, counts in benchmarks.items() if isinstance(benchmarks, dict) else ():
            found[name] = {key: int(str(count)) for key, count in counts.items()} if isinstance(counts, dict) else {}
    return found


def add_up(books: Iterable[Mapping[str, RowCounts]]) -> dict[str, RowCounts]:
    """Return the sum of several partitions' books, by source."""
    sums: dict[str, RowCounts] = {}
    for rows in books:
        for source, counts in rows.items():
            sums[source] = _sum(sums[source], counts) if source in sums else counts
    return dict(sorted(sums.items()))


def _sum(one: RowCounts, other: RowCounts) -> RowCounts:
    return one.model_copy(
        update={
            "seen": one.seen + other.seen,
            "kept": one.kept + other.kept,
            "dropped": _sum_reasons(one.dropped, other.dropped),
            "failed": _sum_reasons(one.failed, other.failed),
            "deferred": _sum_reasons(one.deferred, other.deferred),
        }
    )


def _sum_reasons(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {reason: one.get(reason, 0) + other.get(reason, 0) for reason in sorted({*one, *other})}


def law(name: str, faults: Iterable[str]) -> Law:
    """Return the law as kept if there is no fault, else as broken, with the first few faults."""
    found = list(faults)
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return Law(name, not found, "; ".join(found[:_SHOWN]) + more)


def ledger_closes(planner: Planner) -> Law:
    """Check of every commit that counts: in = kept + dropped + failed + deferred, per source."""
    return law(
        "ledger_closes",
        (
            f"{m.step}/{m.partition}, {source}: {c.seen} rows in, {c.kept} kept + {c.left} left"
            for step in LINE
            for m in committed(planner.plan(step))
            for source, c in m.rows.items()
            if c.seen != c.kept + c.left
        ),
    )


def _kept_before(step: Step, books: Books) -> dict[str, int]:
    """Return the rows that the steps before handed over, per source, as far as they are of a lane that is asked for."""
    kept: dict[str, int] = {}
    for given in step.rows_in:
        for source, counts in books.get(given.step, {}).items():
            lane = lane_of_source(source)
            if counts.kept and given.lane in ("", lane) and (step.kind == "reduce" or lane in step.lanes):
                kept[source] = kept.get(source, 0) + counts.kept
    return kept


def chain_holds(planner: Planner, books: Books, skip: Iterable[str]) -> Law:
    """Check that what one step kept is what the next one was given, per source.

    A step that is not finished has been given less so far, and so has one behind a partition that ``run.skip`` names.
    """
    skipped = {name.split("/")[0] for name in skip}
    faults = []
    for step in LINE:
        if not step.inputs or step.name not in books or not planner.plan(step).complete:
            continue
        if {*(given.step for given in step.rows_in), step.name} & skipped:
            continue
        before = " and ".join(given.step for given in step.rows_in)
        kept = _kept_before(step, books)
        seen = {source: counts.seen for source, counts in books[step.name].items() if counts.seen}
        faults += [
            f"{source}: {before} kept {kept.get(source, 0)} rows, {step.name} was given {seen.get(source, 0)}"
            for source in sorted({*kept, *seen})
            if kept.get(source, 0) != seen.get(source, 0)
        ]
    return law("chain", faults)

"""The funnel: the columns of the published table (tables VII and VIII of arXiv 2306.11300v5), from the books.

amount         rows in the source's metadata
after_keyword  rows that match, once each: kept by filter.pool
download       images downloaded
invalid, duplicate, leak, outlier, other   rows that left for a reason of that column (`manifests/reasons.toml`)
remain         download - invalid - duplicate - leak - outlier - other; the rows released

A column is None while the step that fills it has not run, and 0 where it ran and nothing fell out. ``leak`` stays None
as well where the recipe names no evaluation set: nothing was looked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from manifests.reasons import reasons
from pipeline.books import Books, Law, law

REMOVED = ("invalid", "duplicate", "leak", "outlier", "other")
"""The columns between download and remain."""

_FILLED_BY = {
    "invalid": "dedup.inspect",
    "duplicate": "dedup.cluster",
    "outlier": "outlier.cut",
    "other": "shard.plan",
}
_LAST = "shard.index"


@dataclass(frozen=True, slots=True)
class FunnelRow:
    """One row of the table, in rows; None: not run yet."""

    amount: int | None = None
    after_keyword: int | None = None
    download: int | None = None
    invalid: int | None = None
    duplicate: int | None = None
    leak: int | None = None
    outlier: int | None = None
    other: int | None = None
    remain: int | None = None


COLUMNS = tuple(field.name for field in fields(FunnelRow))
"""The table's columns in order."""


def funnel(books: Books, sources: Iterable[str], *, leaks_sought: bool = False) -> dict[str, FunnelRow]:
    """Return one row per source, in the order given.

    Args:
        books: Of the build.
        sources: Keys.
        leaks_sought: Whether dedup.cluster was given evaluation sets.
    """
    return {source: funnel_row(books, source, leaks_sought=leaks_sought) for source in sources}


def funnel_row(books: Books, source: str, *, leaks_sought: bool = False) -> FunnelRow:
    """Return the row of one source."""
    left = _left_by_column(books, source)
    asked = _rows(books, "download.fetch", source, "seen")
    download = None if asked is None else asked - left.get("download", 0)
    filled_by = _FILLED_BY | ({"leak": "dedup.cluster"} if leaks_sought else {})
    removed = {c: left.get(c, 0) if filled_by.get(c) in books or c in left else None for c in REMOVED}
    remain = None
    if download is not None and _LAST in books:
        remain = download - sum(rows or 0 for rows in removed.values())
    return FunnelRow(
        amount=_rows(books, "filter.match", source, "seen") if source in books.get("filter.match", {}) else None,
        after_keyword=_rows(books, "filter.pool", source, "kept"),
        download=download,
        **removed,
        remain=remain,
    )


def total(rows: Iterable[FunnelRow]) -> FunnelRow:
    """Return the sum of rows; a column that is None in every row is None."""
    listed = list(rows)
    sums: dict[str, int | None] = {}
    for column in COLUMNS:
        known = [value for row in listed if (value := getattr(row, column)) is not None]
        sums[column] = sum(known) if known else None
    return FunnelRow(**sums)


def funnel_closes(books: Books, rows: dict[str, FunnelRow]) -> Law:
    """Check that what remains by the funnel is what was released, per source."""
    return law(
        "funnel_closes",
        (
            f"{source}: {row.remain} remain, {released} were released"
            for source, row in rows.items()
            if row.remain is not None and row.remain != (released := _rows(books, _LAST, source, "kept"))
        ),
    )


def _rows(books: Books, step: str, source: str, what: str) -> int | None:
    """Return rows seen or kept by a step, 0 if it had none of this source, None if it has not run."""
    if step not in books:
        return None
    counts = books[step].get(source)
    return int(getattr(counts, what)) if counts else 0


def _left_by_column(books: Books, source: str) -> dict[str, int]:
    columns: dict[str, int] = {}
    for by_source in books.values():
        counts = by_source.get(source)
        if not counts:
            continue
        for by_reason in (counts.dropped, counts.failed, counts.deferred):
            for reason, rows in by_reason.items():
                column = reasons()[reason].column
                columns[column] = columns.get(column, 0) + rows
    return columns

"""The ledger: one row for every row that left, and the law that the books close."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from manifests.reasons import class_of, reasons
from manifests.schemas import LEDGER
from manifests.tables import empty_frame

MAX_DETAIL_BYTES = 200


class BooksDoNotCloseError(Exception):
    """A partition whose rows in are not the sum of rows kept, dropped, failed and deferred."""


class RowCounts(BaseModel):
    """The books of one source in one commit."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    seen: int = Field(alias="in")
    kept: int
    dropped: dict[str, int] = {}
    failed: dict[str, int] = {}
    deferred: dict[str, int] = {}

    @property
    def left(self) -> int:
        """Rows that left, whatever for."""
        return sum(self.dropped.values()) + sum(self.failed.values()) + sum(self.deferred.values())


@dataclass(slots=True)
class Departures:
    """Collects ledger rows of one step, row by row.

    Attributes:
        step: ``<stage>.<step>``.
        final: Whether transient reasons are final (the last round).
    """

    step: str
    final: bool = True
    _rows: list[dict[str, object]] = field(default_factory=list)

    def add(self, source: str, sample_id: str, reason: str, **evidence: str | float | None) -> None:
        """Add a row that left; ``evidence`` holds ledger columns such as value, cut, other_id, detail."""
        self._rows.append({"source": source, "sample_id": sample_id, "reason": reason, **evidence})

    def frame(self) -> pl.DataFrame:
        """Return the ledger table."""
        if not self._rows:
            return empty_frame(LEDGER)
        columns = {name: [row.get(name) for row in self._rows] for name in LEDGER.schema.names}
        schema = empty_frame(LEDGER).schema
        return ledger_frame(self.step, pl.DataFrame(columns, schema=schema, strict=False), final=self.final)


def ledger_frame(step: str, rows: pl.DataFrame, *, final: bool = True) -> pl.DataFrame:
    """Return ``rows`` as a ledger table.

    Args:
        step: ``<stage>.<step>``.
        rows: At least source, sample_id, reason; other ledger columns where known.
        final: Whether transient reasons are final.

    Raises:
        ValueError: If a reason is not on the closed list.
    """
    schema = empty_frame(LEDGER).schema
    unknown = set(rows["reason"].unique()) - set(reasons())
    if unknown:
        raise ValueError(f"{step}: not on the closed list of reasons: {', '.join(sorted(unknown))}")
    classes = {name: class_of(name, final=final) for name in rows["reason"].unique()}
    missing = [pl.lit(None, schema[name]).alias(name) for name in LEDGER.schema.names if name not in rows.columns]
    rows = rows.with_columns(missing).with_columns(
        pl.lit(step).alias("step"),
        pl.col("reason").replace_strict(classes, default=None, return_dtype=pl.String).alias("class"),
        pl.col("detail").map_elements(escape_detail, return_dtype=pl.String),
    )
    return rows.select(pl.col(name).cast(schema[name]) for name in LEDGER.schema.names)


def escape_detail(detail: str) -> str:
    """Return ``detail`` as printable text of at most `MAX_DETAIL_BYTES` UTF-8 bytes."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in detail)
    return shown.encode("utf-8", "backslashreplace")[:MAX_DETAIL_BYTES].decode("utf-8", "ignore")


def close_books(
    where: str,
    seen: Mapping[str, int],
    kept: Mapping[str, int],
    listed: Iterable[tuple[str, str, str, int]],
    counted: Mapping[str, Mapping[str, int]],
) -> dict[str, RowCounts]:
    """Return the books per source, after checking that they close.

    Args:
        where: Step and partition, for the message.
        seen: Rows in, per source, counted on the input.
        kept: Rows kept, per source, counted on the output.
        listed: (source, class, reason, rows) of the ledger, as `to_counts` gives them.
        counted: Rows that left without a ledger row, per source and reason.

    Raises:
        BooksDoNotCloseError: If ``in != kept + dropped + failed + deferred`` for a source.
    """
    left: dict[str, dict[str, dict[str, int]]] = {}
    for source, row_class, reason, rows in listed:
        left.setdefault(source, {}).setdefault(row_class, {})[reason] = rows
    for source, by_reason in counted.items():
        for reason, rows in by_reason.items():
            if reasons()[reason].in_ledger:
                raise BooksDoNotCloseError(f"{where}: {reason} must be listed in the ledger, not counted")
            if rows:
                left.setdefault(source, {}).setdefault("dropped", {})[reason] = rows
    books = {
        source: RowCounts.model_validate(
            {"in": seen.get(source, 0), "kept": kept.get(source, 0), **left.get(source, {})}
        )
        for source in sorted({*seen, *kept, *left})
    }
    for source, counts in books.items():
        if counts.seen != counts.kept + counts.left:
            raise BooksDoNotCloseError(
                f"{where}, {source}: {counts.seen} rows in, {counts.kept} kept + {counts.left} left; "
                "the partition is refused"
            )
    return books


def to_counts(ledger: pl.DataFrame) -> list[tuple[str, str, str, int]]:
    """Return (source, class, reason, rows) of a ledger table, sorted."""
    grouped = ledger.group_by("source", "class", "reason").len().sort("source", "class", "reason")
    return [(str(s), str(c), str(r), int(n)) for s, c, r, n in grouped.iter_rows()]


def count_by_source(frame: pl.DataFrame) -> dict[str, int]:
    """Return the rows of ``frame`` per value of its column ``source``."""
    return {str(source): int(n) for source, n in frame.group_by("source").len().sort("source").iter_rows()}

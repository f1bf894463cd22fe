"""The closed list of reasons a row may leave for, read from ``reasons.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal

RowClass = Literal["dropped", "failed", "deferred"]
Column = Literal["none", "download", "invalid", "duplicate", "leak", "outlier", "other"]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a row left.

    Attributes:
        name: ``<stage>.<reason>``.
        row_class: The class of a row that left for good.
        transient: Whether the row is deferred while rounds are left.
        column: The funnel column it counts in.
        in_ledger: False where rows are counted and not listed.
    """

    name: str
    row_class: RowClass
    transient: bool
    column: Column
    in_ledger: bool


@cache
def reasons() -> MappingProxyType[str, Reason]:
    """Return every reason by name."""
    document = tomllib.loads(resources.files("manifests").joinpath("reasons.toml").read_text("utf-8"))
    return MappingProxyType({r.name: r for stage, body in document.items() for r in _stage(stage, body)})


def _stage(stage: str, body: dict[str, Any]) -> list[Reason]:
    columns, counted = body.get("columns", {}), body.get("counted_only", [])
    return [
        Reason(
            f"{stage}.{name}",
            "dropped" if kind == "dropped" else "failed",
            kind == "transient",
            columns.get(name, body["column"]),
            name not in counted,
        )
        for kind in ("dropped", "failed", "transient")
        for name in body.get(kind, [])
    ]


def class_of(reason: str, *, final: bool) -> RowClass:
    """Return the class of a row that left for ``reason``; transient ones are deferred unless ``final``."""
    known = reasons()[reason]
    return "deferred" if known.transient and not final else known.row_class

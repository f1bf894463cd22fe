"""The page that `recut` prints: the funnel under the thresholds, where the cuts lie, and the heat map of the pool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_COLUMNS = {
    "download": "Download Image",
    "invalid": "Invalid Image",
    "duplicate": "Duplicate Image",
    "leak": "Leak",
    "outlier": "Outlier Image",
    "remain": "Remain",
}
_WHEN_NOT_ZERO = {"leak"}


def recut_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a document made by `pipeline.recut.recut_document`."""
    for subset, table in document["funnel"].items():
        if table["rows"]:
            yield from _funnel(subset.upper(), table)
            yield ""
    thresholds, cuts = document["thresholds"], document["cuts"]
    yield f"{document['kept_rows']:,} of {document['pool_rows']:,} rows of the pool stay; the others leave for"
    for reason, rows in document["reasons"].items():
        yield f"  outlier.{reason:<9} {rows:,}"
    yield _cut("vlm", thresholds["vlm"], cuts["vlm"])
    yield _cut("detector_cut", thresholds["detector_cut"], cuts["detector"])
    yield from document["notes"]
    yield ""
    yield from _heat_map(document["heat_map"], thresholds)


def _funnel(title: str, table: Mapping[str, Any]) -> Iterator[str]:
    shown = {
        column: name for column, name in _COLUMNS.items() if column not in _WHEN_NOT_ZERO or table["total"][column]
    }
    rows = [*table["rows"], {"name": "total", **table["total"]}]
    cells = [[title, *shown.values()], *([row["name"], *(_number(row[column]) for column in shown)] for row in rows)]
    yield from _aligned(cells)


def _cut(key: str, threshold: Mapping[str, float], value: float | None) -> str:
    asked = f"keep_top {threshold['keep_top']:g}"
    if threshold["at_least"] > -1:
        asked += f", at_least {threshold['at_least']:g}"
    return f"outlier.{key} ({asked}): " + ("every score passes" if value is None else f"scores from {value:.4f} pass")


def _heat_map(grid: Mapping[str, Any], thresholds: Mapping[str, Any]) -> Iterator[str]:
    """Yield the map; the cell of the asked shares stands in brackets where it is one of the grid."""
    shares, rows = grid["shares"], grid["rows"]
    asked = thresholds["vlm"]["keep_top"], thresholds["detector_cut"]["keep_top"]
    yield "rows that each pair of shares would leave (down: top share by VLM score; across: by detector score)"
    cells = [["", *(f"{share:.0%}" for share in shares)]]
    for share, counts in zip(shares, rows, strict=True):
        numbers = (
            f"[{count:,}]" if (share, other) == asked else f"{count:,}"
            for other, count in zip(shares, counts, strict=True)
        )
        cells.append([f"{share:.0%}", *numbers])
    yield from _aligned(cells)


def _aligned(cells: list[list[str]]) -> Iterator[str]:
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    for row in cells:
        first, *others = (
            cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join([first, *others]).rstrip()


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"

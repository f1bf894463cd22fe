"""The report for people: tables of the same document that programs get."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from manifests.reasons import reasons
from pipeline.download_facts import VERDICTS

_KEYWORDS = 10
_PLACEHOLDERS = 10
TITLES = {
    "amount": "Amount",
    "after_keyword": "After Keyword Filtering",
    "download": "Download Image",
    "invalid": "Invalid Image",
    "duplicate": "Duplicate Image",
    "leak": "Leak",
    "outlier": "Outlier Image",
    "other": "Other",
    "remain": "Remain",
}
"""The funnel's columns in order, by their names in the published table."""

WHEN_NOT_ZERO = frozenset({"leak", "other"})
"""Columns that are shown only where something is in them."""


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Print a report made by `pipeline.report.make_report`.

    The published row stands below a source's row where the recipe is the paper's own.
    """
    with_published = report["recipe"] == "rs5m"
    for subset, table in report["funnel"].items():
        if table["rows"]:
            _print_funnel(subset, table, console, with_published=with_published)
    _print_reasons(report, console)
    _print_leaks(report.get("leaks", []), console)
    _print_keywords(report, console)
    _print_download(report["facts"].get("download.fetch", {}), console)
    for problem in report.get("unreadable", []):
        _say(console, f"not read, its rows are in no count: {problem}")
    for name in report["skip"]:
        _say(console, f"skipped by run.skip, its rows are in no later step: {name}")
    for line in report["staged"]:
        _say(console, f"staged: {line}")
    for law in report["laws"]:
        _say(console, f"law {law['law']}: {'holds' if law['ok'] else 'BROKEN: ' + law['detail']}")
    if not report["complete"]:
        _say(console, "not complete: `rs5m-build status` says what is to do")


def _print_funnel(subset: str, table: Mapping[str, Any], console: Console, *, with_published: bool) -> None:
    columns = [c for c in TITLES if c not in WHEN_NOT_ZERO or table["total"][c]]
    shown = _table(subset.upper(), *(TITLES[column] for column in columns))
    for row in [*table["rows"], {"name": "total", **table["total"]}]:
        shown.add_row(row["name"], *(_number(row[column]) for column in columns))
        if with_published and row["published"]:
            shown.add_row("  published", *(_published(row["published"], column) for column in columns), style="dim")
    console.print(shown)
    _say(console, "")


def _published(row: Mapping[str, Any], column: str) -> str:
    return row["amount_text"] if column == "amount" and "amount_text" in row else _number(row.get(column))


def _print_reasons(report: Mapping[str, Any], console: Console) -> None:
    counts = reasons_by_source(report)
    if not counts:
        return
    sources = sources_in_order(report)
    shown = _table("rows that left", "", *sources, "total")
    for (reason, row_class), by_source in counts.items():
        numbers = [_number(by_source.get(source, 0)) for source in sources]
        shown.add_row(reason, row_class, *numbers, _number(sum(by_source.values())))
    console.print(shown)
    _say(console, "")


def reasons_by_source(report: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, int]]:
    """Return how many rows of each source left, by (reason, class), in the order of the closed list of reasons."""
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for line in report["steps"]:
        for row_class in ("dropped", "failed", "deferred"):
            for reason, rows in line[row_class].items():
                counts.setdefault((reason, row_class), {})[line["source"]] = rows
    listed = list(reasons())
    return dict(sorted(counts.items(), key=lambda item: listed.index(item[0][0])))


def sources_in_order(report: Mapping[str, Any]) -> list[str]:
    """Return every source that a report names, in the order of the published table, then what that does not list."""
    return list(dict.fromkeys(line["source"] for line in _in_order(report)))


def _print_download(facts: Mapping[str, Any], console: Console) -> None:
    """Print how bytes stand to published hashes, and which bytes many urls gave, where there is something to say."""
    verdicts = facts.get("hash_verdicts", {})
    if any(rows for counts in verdicts.values() for verdict, rows in counts.items() if verdict != "unknown"):
        shown = _table("hashes of the sources", *VERDICTS)
        for source, counts in verdicts.items():
            shown.add_row(source, *(_number(counts[verdict]) for verdict in VERDICTS))
        console.print(shown)
        _say(console, "")
    placeholders = facts.get("placeholders", [])
    for found in placeholders[:_PLACEHOLDERS]:
        what = f"{found['urls']:,} urls with {found['texts']:,} texts gave the same bytes, a placeholder by the look"
        _say(console, f"{what}: sha256 {found['sha256']}")
    if more := len(placeholders[_PLACEHOLDERS:]):
        _say(console, f"and {more:,} more such images; report --json lists all")


def _in_order(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return whatever names a source, in the order of the published table, then what that does not list."""
    return [*(row for table in report["funnel"].values() for row in table["rows"]), *report["steps"]]


def _print_leaks(leaks: Iterable[Mapping[str, Any]], console: Console) -> None:
    """Print what was found of the evaluation sets: samples that show an image of one, copies among them."""
    listed = list(leaks)
    if not listed:
        return
    shown = _table("evaluation sets", "images", "not read", "found", "samples that show one")
    for one in listed:
        shown.add_row(one["benchmark"], *(_number(one[c]) for c in ("items", "unread", "items_found", "samples")))
    console.print(shown)
    _say(console, "")


def _print_keywords(report: Mapping[str, Any], console: Console) -> None:
    archives = {row["source"] for row in report["funnel"]["rs3"]["rows"]}  # their rows pass without a keyword
    sources = [source for source in sources_in_order(report) if source not in archives]
    if sources:
        _say(console, "keywords: candidates that each one matched, before repeated rows leave and before any cut")
    for source in sources:
        counts = report["keywords"].get(source, {})
        first = ", ".join(f"{keyword} {rows:,}" for keyword, rows in list(counts.items())[:_KEYWORDS])
        more = f", and {len(counts) - _KEYWORDS} more" if len(counts) > _KEYWORDS else ""
        _say(console, f"  {source}: {first}{more}" if first else f"  {source}: none")


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _say(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)

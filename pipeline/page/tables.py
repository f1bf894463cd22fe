"""The tables of a build's page: the funnel, reasons, sources against sources, evaluation sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.page.facts import Leaks
from pipeline.page.html_elements import Html, element, joined
from pipeline.report_text import TITLES, WHEN_NOT_ZERO, reasons_by_source, sources_in_order

_HEAT = (0.005, 0.02, 0.1, 0.3)


def table(identity: str, caption: str, heads: Sequence[str], rows: Iterable[Html]) -> Html:
    """Return a table that scrolls in its own frame where it is wider than the page.

    Args:
        identity: Its id in the page.
        caption: What it shows.
        heads: Of the columns.
        rows: As `row` makes them.
    """
    head = element("thead", element("tr", *(element("th", name, scope="col") for name in heads)))
    body = element("tbody", *rows)
    shown = element("table", element("caption", caption), head, body, id=identity)
    return element("div", shown, class_="scroll", role="region", aria_label=caption, tabindex=0)


def row(name: str, cells: Iterable[str], **attributes: str) -> Html:
    """Return a row: its name, then cells, which are text or `td` elements."""
    shown = (cell if isinstance(cell, Html) else element("td", cell) for cell in cells)
    return element("tr", element("th", name, scope="row"), *shown, **attributes)


def number(value: int | None) -> str:
    """Return a count; a dash where it is not known."""
    return "-" if value is None else f"{value:,}"


def funnel_table(subset: str, funnel: Mapping[str, Any], *, with_published: bool) -> Html:
    """Return the funnel of one subset, with the same columns as the printed one."""
    columns = [c for c in TITLES if c not in WHEN_NOT_ZERO or funnel["total"][c]]
    rows = []
    for line in [*funnel["rows"], {"name": "total", **funnel["total"]}]:
        last = {"class_": "total"} if line["name"] == "total" and "source" not in line else {}
        rows.append(row(line["name"], (number(line[column]) for column in columns), **last))
        if with_published and line["published"]:
            published = line["published"]
            cells = (str(published.get(f"{c}_text") or number(published.get(c))) for c in columns)
            rows.append(row("published", cells, class_="published"))
    return table(f"funnel-{subset}", subset.upper(), ["source", *(TITLES[c] for c in columns)], rows)


def reasons_table(report: Mapping[str, Any]) -> Html:
    """Return how many rows of each source left for each reason."""
    sources, names = sources_in_order(report), names_of(report)
    rows = [
        row(
            reason,
            [
                element("td", row_class, class_="word"),
                number(sum(counts.values())),
                *(number(counts.get(source, 0)) for source in sources),
            ],
        )
        for (reason, row_class), counts in reasons_by_source(report).items()
    ]
    heads = ["reason", "class", "total", *(names.get(source, source) for source in sources)]
    return table("reasons", "Rows that left", heads, rows)


def overlap_table(overlap: Mapping[tuple[str, str], int], report: Mapping[str, Any], subsets: Sequence[str]) -> Html:
    """Return which source lost how many rows to which, each with its share of the images that were inspected."""
    names = names_of(report)
    lost = [line["source"] for subset in subsets for line in report["funnel"][subset]["rows"]]
    kept = [*lost, *sorted({other for _, other in overlap} - set(lost))]
    inspected = {line["source"]: line["in"] for line in report["steps"] if line["step"] == "dedup.cluster"}
    rows = []
    for source in lost:
        counts = [overlap.get((source, other), 0) for other in kept]
        cells = [_share(count, inspected.get(source, 0)) for count in (*counts, sum(counts))]
        rows.append(row(names.get(source, source), [*cells, number(inspected.get(source, 0))]))
    sums = [sum(rows for (_, other), rows in overlap.items() if other == column) for column in kept]
    every = [number(count) for count in (*sums, sum(sums), sum(inspected.get(source, 0) for source in lost))]
    heads = ["lost by", *(names.get(source, source) or "not known" for source in kept), "all", "inspected"]
    return table(
        "overlap", "Copies dropped, by the source that kept one", heads, [*rows, row("all", every, class_="total")]
    )


def leaks_table(leaks: Leaks) -> Html:
    """Return what was found of each evaluation set."""
    rows = []
    for name, items in leaks.items.items():
        images, shown = leaks.found.get(name, (0, 0))
        rows.append(row(name, [number(items), number(shown), number(images)]))
    heads = ["evaluation set", "images in it", "of these found", "images of the build that show one"]
    return table("leaks-by-set", "Evaluation sets", heads, rows)


def names_of(report: Mapping[str, Any]) -> dict[str, str]:
    """Return the name of every source that is listed, by its key."""
    return {line["source"]: line["name"] for funnel in report["funnel"].values() for line in funnel["rows"]}


def _share(count: int, of: int) -> Html:
    if not count:
        return element("td", "0", class_="dim")
    share = count / of if of else 0.0
    heat = sum(share >= least for least in _HEAT)
    return element("td", joined([f"{count:,}", element("small", f"{share:.1%}")]), class_=f"heat{heat}")

"""The list of sources for people: a table of at most 100 columns, and below it what each one needs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from manifests.recipe import Recipe
from pipeline.source_list import SourceState

WIDTH = 100
_HEAD = ("source", "name", "format", "files", "rows", "published", "keyword", "licence")
_NUMBERS = {"files", "rows", "published", "keyword"}
_MISSING_SHOWN = 5


def sources_lines(recipe: Recipe, states: Sequence[SourceState]) -> list[str]:
    """Return the list as lines of at most `WIDTH` columns, but for names that are longer by themselves."""
    rows = [_cells(state) for state in states]
    widths = [max(len(row[place]) for row in [_HEAD, *rows]) for place in range(len(_HEAD))]
    widths[-1] = 0
    lines = [_line(_HEAD, widths), *(_line(row, widths) for row in rows), ""]
    lines.append("published: rows that RS5M's authors had; keyword: those of them that matched. -: not known yet.")
    for state in states:
        lines += ["", *_about(state)]
    lines += ["", *_wrapped("", _summary(recipe, states))]
    lines += _wrapped(
        "",
        "Name files by --set 'sources.KEY.metadata=GLOB' or in a recipe of your own; any fsspec URI will do. A source "
        "of your own: sources.NAME.format, sources.NAME.columns and sources.NAME.metadata.",
    )
    return lines


def _summary(recipe: Recipe, states: Sequence[SourceState]) -> str:
    enabled = [state for state in states if state.enabled]
    ready = sum(not state.missing for state in enabled)
    return f"{ready} of the {len(enabled)} sources that the recipe {recipe.name} reads are ready."


def _cells(state: SourceState) -> tuple[str, ...]:
    spec, published = state.spec, state.spec.published
    return (
        spec.key,
        spec.name,
        spec.format,
        f"{state.files:,}" if state.enabled else "-",
        "-" if state.rows is None else f"{state.rows:,}",
        published.amount_text if published else "-",
        f"{published.after_keyword:,}" if published else "-",
        spec.licence,
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.rjust(width) if name in _NUMBERS else cell.ljust(width)
        for name, cell, width in zip(_HEAD, cells, widths, strict=True)
    ]
    return "  ".join(padded)[:WIDTH].rstrip()


def _about(state: SourceState) -> Iterator[str]:
    spec = state.spec
    yield f"{spec.key}: " + (
        "ready" if state.enabled and not state.missing else "not ready" if state.enabled else "off"
    )
    for fault in state.missing[:_MISSING_SHOWN]:
        yield from _wrapped("missing: ", fault)
    if len(state.missing) > _MISSING_SHOWN:
        yield f"  and {len(state.missing) - _MISSING_SHOWN} more are missing"
    if spec.availability:
        yield from _wrapped("availability: ", spec.availability)
    if spec.successor:
        yield from _wrapped("successor: ", spec.successor)


def _wrapped(label: str, text: str) -> list[str]:
    indent = "  " if label else ""
    return textwrap.wrap(
        f"{label}{text}",
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  " if label else "",
        break_long_words=False,
        break_on_hyphens=False,
    )

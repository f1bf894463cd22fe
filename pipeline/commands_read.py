"""The commands that read a build: what they find is their product and goes to stdout, for people or as JSON alone.

Progress, warnings and errors go to stderr. Exit codes: 0; 2 nothing found; 4 a law is broken or a file corrupted.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console

from manifests.canonical import JsonValue
from manifests.commits import CommitStore
from manifests.recipe import Recipe
from manifests.store import Store
from pipeline.errors import UserError
from pipeline.line import LINE, select
from pipeline.metadata import metadata_slices
from pipeline.planner import Planner
from pipeline.price.estimate import needs
from pipeline.price.machine import machine_of
from pipeline.price.text import price_document, price_lines
from pipeline.progress import stderr_say
from pipeline.status import read_status, status_document, status_lines
from pipeline.workdir import open_workdir, read_workdir
from stages.step import CorruptFileError

_PIPE_WIDTH = 200


def show_plan(
    recipe: Recipe, store: Store, stage: str, until: str, sources: Collection[str] = (), *, as_json: bool = False
) -> int:
    """Say what a run would do and why, and what it would take; nothing is created, not even the workdir.

    A source that names no metadata is priced by the published table, though a run would stop for it.
    """
    try:
        steps = select(stage, until)
    except ValueError as error:
        raise UserError(str(error)) from error
    if read_workdir(store) is not None:
        open_workdir(store, recipe.name, create=False)
    unnamed = [key for key, source in recipe.enabled_sources().items() if not source.metadata]
    needed = set(sources) or set(recipe.enabled_sources()) - set(unnamed)
    planner = _planner(recipe, store, remember=False, needed=needed)
    at = machine_of(recipe)
    found = needs(recipe, store, planner, at, steps)
    status = read_status(planner, steps)
    if as_json:
        _print_json({**status_document(status), "price": price_document(found, recipe, store, at)})
        return 0
    if planner is None and recipe.world:
        _print([f"the {recipe.world.kind} world would be built first; then:"])
    _print(status_lines(status))
    _print(["", *price_lines(found, recipe, store, at)])
    return 0


def show_status(recipe: Recipe, store: Store, *, as_json: bool, files: bool = False) -> int:
    """Say what is done, what a run would do, and why; with ``files`` also whether commits' files are there."""
    gc.disable()  # planning makes no cycles, and looking for some among half a million partitions takes a quarter more
    steps = read_status(_planner(recipe, store, needed=(), counting=not files), LINE)
    if as_json:
        _print_json(status_document(steps))
    else:
        _print(status_lines(steps))
    return 0


def show_report(recipe: Recipe, store: Store, *, as_json: bool, html: str = "") -> int:
    """Print the funnel, the reasons and the laws, or write them as a page; exit code 4 where a law is broken.

    Args:
        recipe: The current recipe.
        store: The workdir.
        as_json: Print JSON.
        html: A folder: write a page into it, and print its path alone.

    Raises:
        UserError: If both are asked for, or the page cannot be written.
    """
    from pipeline.report import make_report
    from pipeline.report_text import print_report

    if as_json and html:
        raise UserError("--html writes a page and --json prints a document: ask for one of them at a time")
    planner = _existing(recipe, store)
    report = make_report(recipe, store, planner)
    if html:
        from pipeline.page.writing import write_report_page

        with _naming_verify():
            _print([str(write_report_page(recipe, store, planner, report, html))])
    elif as_json:
        _print_json(report)
    else:
        print_report(report, _console())
    laws = report["laws"]
    broken = [law for law in laws if isinstance(law, dict) and law["ok"] is False] if isinstance(laws, list) else []
    return 4 if broken else 0


def show_sources(recipe: Recipe, store: Store, *, as_json: bool) -> int:
    """Tell of every source what it is, what was found of it, and what is missing."""
    from pipeline.source_list import list_sources, sources_document
    from pipeline.source_text import sources_lines

    states = list_sources(recipe, store)
    if as_json:
        _print_json(sources_document(recipe, states))
    else:
        _print(sources_lines(recipe, states))
    return 0


def show_explanation(recipe: Recipe, store: Store, query: str, *, as_json: bool) -> int:
    """Tell the history of the samples that a name stands for; exit code 2 where it stands for none."""
    from pipeline.explain import explain
    from pipeline.explain_text import explanation_document, explanation_lines

    with _naming_verify():
        found = explain(store, _existing(recipe, store), query)
    if as_json:
        _print_json(explanation_document(found))
    else:
        _print(explanation_lines(found))
    return 0 if found.samples else 2


def show_verification(recipe: Recipe, store: Store, *, as_json: bool) -> int:
    """Check every file and every law; exit code 4 where a file is corrupted or a law broken."""
    from pipeline.verify import verification_document, verification_lines, verify

    found = verify(recipe, store, stderr_say)
    if as_json:
        _print_json(verification_document(found))
    else:
        _print(verification_lines(found))
    return 0 if found.ok else 4


def collect_garbage(recipe: Recipe, store: Store, *, dry_run: bool, superseded: bool) -> int:
    """Remove what no commit points at; says which files and how many bytes."""
    from pipeline.garbage import collect, collected_lines

    with _naming_verify():
        found = collect(recipe, store, stderr_say, dry_run=dry_run, superseded=superseded)
    _print(collected_lines(found, dry_run=dry_run))
    return 0


@contextmanager
def _naming_verify() -> Iterator[None]:
    """Turn a table that cannot be read into one line that says what sets it aside."""
    try:
        yield
    except CorruptFileError as error:
        raise UserError(f"{error}; run `rs5m-build verify`, which sets it aside, then `rs5m-build run`") from error


def _planner(
    recipe: Recipe,
    store: Store,
    *,
    remember: bool = True,
    reading: bool = False,
    needed: Collection[str] | None = None,
    counting: bool = False,
) -> Planner | None:
    """Return a planner, None before the world is built.

    ``remember`` lets it keep what files and commits say in the cache; ``reading`` takes commits as made, whatever made
    them; ``needed`` are the sources that must have files (`metadata_slices`); ``counting`` believes commits without a
    look at their files.
    """
    if recipe.world and store.size("world/world.json") is None:
        return None
    slices = metadata_slices(recipe, store, remember=remember, needed=needed)
    commits = CommitStore(store, remembers=remember)
    return Planner(recipe, store, commits, slices, reading=reading, counting=counting)


def _existing(recipe: Recipe, store: Store) -> Planner:
    planner = _planner(recipe, store, reading=True, needed=())
    if planner is None:
        raise UserError(f"{store.uri}: its world is not built yet; run `rs5m-build run` first")
    return planner


def _console() -> Console:
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(file=sys.stdout, width=_PIPE_WIDTH, highlight=False)


def _print(lines: Iterable[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _print_json(value: JsonValue) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")

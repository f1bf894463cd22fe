"""Garbage: files that no commit points at, what interrupted writers left, corrupted files that were set aside.

Downloaded images are referenced by the rows that point into them, not by the commit that first stored them: a tar stays
as long as any row of any commit that stays lies in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import polars as pl

from manifests.commits import CommitStore, CorruptCommitError
from manifests.manifest import CommitName, Manifest
from manifests.recipe import Recipe
from manifests.schemas import TABLES
from manifests.store import Entry, Store
from pipeline.errors import UserError
from pipeline.line import LINE
from pipeline.locks import LAG_BEATS, Lock
from pipeline.metadata import metadata_slices
from pipeline.planner import Planner
from pipeline.table_scan import scan

_DATA = ("data", "ledger")
_MAY_BE_CORRUPT = (*_DATA, "release", "commits")
_MAY_BE_TEMPORARY = (*_MAY_BE_CORRUPT, "runs", "cache")
_POINTS_INTO_TARS = {"fetched": "tar", "plan": "image_tar"}


@dataclass(slots=True)
class Collected:
    """What was removed, or would be.

    Attributes:
        files: Unreferenced, temporary and set-aside files.
        commits: Superseded commits.
        kept_steps: Steps whose superseded commits stay because the current recipe's plan of them is not settled: rows
            may yet be taken over from them.
    """

    files: list[Entry] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    kept_steps: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Bytes of the files."""
        return sum(entry.bytes for entry in self.files)


def collect(recipe: Recipe, store: Store, say: Callable[[str], None], *, dry_run: bool, superseded: bool) -> Collected:
    """Remove garbage under the run's lock, so that never beside a build.

    Args:
        recipe: The current recipe.
        store: The workdir.
        say: Told when another run's lock is watched.
        dry_run: Remove nothing.
        superseded: Also the commits that the current recipe's plan does not count (lower passes, other settings), and
            the files that only they point at.

    Raises:
        LockHeldError: If a run works here.
        UserError: If a commit cannot be read: what it points at is not known then.
        CorruptFileError: If a table that says which images are needed cannot be read.
    """
    with Lock(store, "run", recipe.run.lock_beat_s, say):
        if not dry_run:
            _let_lists_catch_up(store, recipe.run.lock_beat_s, say)
        commits, found = CommitStore(store), Collected()
        standing = _standing(commits)
        if superseded:
            counted = _counted(recipe, store, commits, found)
            found.commits = sorted(path for path in standing if path not in counted)
        referenced = _referenced(store, [m for path, (_, m) in standing.items() if path not in set(found.commits)])
        found.files = sorted(_unreferenced(store, referenced), key=lambda entry: entry.path)
        if not dry_run:
            for path in found.commits:
                commits.remove(standing[path][0])
            for entry in found.files:
                store.remove(entry.path)
    return found


def collected_lines(found: Collected, *, dry_run: bool) -> list[str]:
    """Return what was removed, for people."""
    verb = "would remove" if dry_run else "removed"
    lines = [f"{verb} {entry.path} ({entry.bytes:,} bytes)" for entry in found.files]
    lines += [
        f"kept the earlier commits of {step}: it is not settled under these settings" for step in found.kept_steps
    ]
    counts = f"{len(found.files)} files, {found.bytes:,} bytes"
    return [*lines, f"{verb} {counts}" + (f", and {len(found.commits)} commits" if found.commits else "")]


def _let_lists_catch_up(store: Store, beat_s: float, say: Callable[[str], None]) -> None:
    """Wait under the lock, so that the list of commits shows all that earlier runs made: no file of theirs may go."""
    if store.local_path("") is None:
        say(f"waiting {LAG_BEATS * beat_s:g} s for the store's lists to catch up")
        time.sleep(LAG_BEATS * beat_s)


def _standing(commits: CommitStore) -> dict[str, tuple[CommitName, Manifest]]:
    """Return every commit by path."""
    try:
        return {n.path: (n, commits.read(n)) for step in commits.steps() for n in commits.step(step).all()}
    except CorruptCommitError as error:
        raise UserError(f"{error}; or run `rs5m-build verify`, which sets it aside") from error


def _counted(recipe: Recipe, store: Store, commits: CommitStore, found: Collected) -> set[str]:
    """Return the paths of the commits that stay.

    Those the current plan counts, all of steps not settled yet, and those of trainings, which stand beside the line.
    """
    if recipe.world and store.size("world/world.json") is None:
        found.kept_steps = commits.steps()
        return {name.path for step in commits.steps() for name in commits.step(step).all()}
    planner = Planner(recipe, store, commits, metadata_slices(recipe, store, needed=()), reading=True)
    stay: set[str] = set()
    for step in LINE:
        plan = planner.plan(step)
        if plan.complete:
            passes = [commits.step(step.name).passes(p.partition, p.fingerprint)[-1] for p in plan.partitions]
            stay |= {name.path for name in passes}
        else:
            stay |= {name.path for name in commits.step(step.name).all()}
            found.kept_steps.append(step.name)
    trained = [name for name in commits.steps() if name not in {step.name for step in LINE}]
    return stay | {name.path for step in trained for name in commits.step(step).all()}


def _referenced(store: Store, manifests: list[Manifest]) -> set[str]:
    """Return every path that a commit points at, and every tar that a row of a table of theirs lies in."""
    paths: set[str] = set()
    tables: set[tuple[str, str]] = set()
    for manifest in manifests:
        paths.add(manifest.ledger.path)
        for output in manifest.outputs:
            paths.add(output.path)
            if output.name in _POINTS_INTO_TARS and output.rows:
                tables.add((output.name, output.path))
    for name, path in sorted(tables):
        column = _POINTS_INTO_TARS[name]
        if store.size(path) is not None:
            paths |= set(scan(store, TABLES[name], path, columns=[column]).select(pl.col(column).unique())[column])
    return paths


def _unreferenced(store: Store, referenced: set[str]) -> Iterator[Entry]:
    for folder in _MAY_BE_CORRUPT:
        for entry in store.find(folder):
            if entry.path.endswith(".corrupt") or (folder in _DATA and entry.path not in referenced):
                yield entry
    for folder in _MAY_BE_TEMPORARY:
        yield from store.temporaries(folder)

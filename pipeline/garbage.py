"""Garbage: files that no commit points at, what interrupted writers left, corrupted files that were set aside.

Downloaded images are referenced by the rows that point into them, not by the commit that first stored them: a tar stays
as long as any row of any commit that stays lies in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import polars as pl

from manifests.commits import CommitStore, CorruptCommitError
from manifests.fingerprint import Parts
from manifests.manifest import CommitName, Manifest
from manifests.recipe import Recipe, Settings
from manifests.schemas import TABLES
from manifests.store import Entry, Store
from pipeline.errors import UserError
from pipeline.line import LINE
from pipeline.locks import LAG_BEATS, Lock
from pipeline.metadata import metadata_slices
from pipeline.planner import Planner
from pipeline.plans import StepPlan
from pipeline.surroundings import Surroundings
from pipeline.table_scan import scan

_DATA = ("data", "ledger")
_MAY_BE_CORRUPT = (*_DATA, "release", "commits")
_MAY_BE_TEMPORARY = (*_MAY_BE_CORRUPT, "runs", "cache")
_POINTS_INTO_TARS = {"fetched": "tar", "plan": "image_tar"}

Standing = dict[str, tuple[CommitName, Manifest]]
"""Commits and what they say, by path."""


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
    unclear_steps: list[str] = field(default_factory=list)

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
            the files that only they point at; those of other models or another numeric profile stay.

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
            counted = _counted(recipe, store, commits, standing, found)
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
    lines += [
        f"kept all commits of {step}: what it reads was made under more than one numeric profile or model, "
        "with different results"
        for step in found.unclear_steps
    ]
    counts = f"{len(found.files)} files, {found.bytes:,} bytes"
    return [*lines, f"{verb} {counts}" + (f", and {len(found.commits)} commits" if found.commits else "")]


def _let_lists_catch_up(store: Store, beat_s: float, say: Callable[[str], None]) -> None:
    """Wait under the lock, so that the list of commits shows all that earlier runs made: no file of theirs may go."""
    if store.local_path("") is None:
        say(f"waiting {LAG_BEATS * beat_s:g} s for the store's lists to catch up")
        time.sleep(LAG_BEATS * beat_s)


def _standing(commits: CommitStore) -> Standing:
    """Return every commit by path."""
    try:
        return {n.path: (n, commits.read(n)) for step in commits.steps() for n in commits.step(step).all()}
    except CorruptCommitError as error:
        raise UserError(f"{error}; or run `rs5m-build verify`, which sets it aside") from error


def _counted(recipe: Recipe, store: Store, commits: CommitStore, standing: Standing, found: Collected) -> set[str]:
    """Return the paths of the commits that stay.

    Those the current plan counts, and those that differ from them at most in models and numeric profile: another
    machine counts those, and which of them is the newer one is not known here. All of steps that are not settled yet,
    and of steps that read what such generations of commits say differently. Those of trainings, which stand beside the
    line.
    """
    line = {step.name for step in LINE}
    if recipe.world and store.size("world/world.json") is None:
        found.kept_steps = commits.steps()
        return set(standing)
    planner = Planner(recipe, store, commits, metadata_slices(recipe, store, needed=()), reading=True)
    stay, unclear = {path for path, (name, _) in standing.items() if name.step not in line}, set[str]()
    for step in LINE:
        plan = planner.plan(step)
        of_step = {path: made for path, made in standing.items() if made[0].step == step.name}
        if not plan.complete:
            stay |= set(of_step)
            found.kept_steps.append(step.name)
        elif any(given.step in unclear for given in step.inputs):
            stay |= set(of_step)
            unclear.add(step.name)
            found.unclear_steps.append(step.name)
        else:
            alike = _alike(plan, Surroundings(step, Settings(planner.settings(step)), lenient=True), of_step)
            stay |= {name.path for name, _ in chain.from_iterable(alike.values())}
            if any(len({_said(manifest) for _, manifest in made}) > 1 for made in alike.values()):
                unclear.add(step.name)
    return stay


def _alike(plan: StepPlan, here: Surroundings, standing: Standing) -> dict[str, list[tuple[CommitName, Manifest]]]:
    """Return the last passes of a step that equal its plan up to models and profile, by partition."""
    newest: dict[tuple[str, str], tuple[CommitName, Manifest]] = {}
    for name, manifest in standing.values():
        last = newest.get((name.partition, name.fp16))
        if last is None or last[0].number < name.number:
            newest[name.partition, name.fp16] = (name, manifest)
    wanted: dict[str, Parts] = {}
    for partition in plan.partitions:
        here.pins(partition.params)
        given = {"inputs": plan.details.digests(partition.partition)}
        wanted[partition.partition] = partition.parts.model_copy(update=given)
    counted = {(partition.partition, partition.fingerprint[:16]) for partition in plan.partitions}
    alike: dict[str, list[tuple[CommitName, Manifest]]] = {}
    for name, manifest in newest.values():
        planned = wanted.get(name.partition)
        if planned and ((name.partition, name.fp16) in counted or here.is_alike(manifest.parts, planned)):
            alike.setdefault(name.partition, []).append((name, manifest))
    return alike


def _said(manifest: Manifest) -> frozenset[tuple[str, str | None, str]]:
    """Return what a commit's outputs say to the steps that read them."""
    places = {given.table for step in LINE for given in step.inputs if given.step == manifest.step and given.places}
    return frozenset(
        (output.name, output.partition, output.sha256 if output.name in places else output.rows_digest)
        for output in manifest.outputs
    )


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

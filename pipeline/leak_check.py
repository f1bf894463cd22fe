"""`rs5m-build hash-images` and `leak-check`: evaluation sets as hash lists, and which of their images a build holds."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from manifests.recipe import Recipe, benchmark_of
from manifests.schemas import TABLES
from manifests.store import Store
from manifests.tables import write_table
from pipeline.build import planner_over
from pipeline.errors import UserError
from pipeline.line import step_named
from pipeline.progress import stderr_say
from pipeline.table_scan import scan
from stages.dedup.evaluation_sets import EvaluationSet, HashListError, read_images_of, read_set
from stages.dedup.guarded_process import GuardError
from stages.dedup.hash_lists import HashKind
from stages.dedup.leak_finder import LeakFinder
from stages.dedup.leaks import HashKindError
from stages.dedup.pigeonhole import TooManyPairsError
from stages.dedup.second_proof import proof_of
from stages.members import ArchiveError
from stages.uris import is_absolute

_SHOWN = 10
_TELL_EVERY_S = 5.0


def make_hash_list(images: str, out: Path, kind: HashKind) -> int:
    """Hash the images of a folder or archive and write the list; returns the exit code: 2 if there is no image.

    Args:
        images: Folder, tar or zip, local or a URI.
        out: The list, a Parquet file.
        kind: As `dedup.hash`.
    """
    try:
        made = read_images_of(Store("."), out.stem, _absolute(images), kind, _Teller())
    except (ArchiveError, GuardError) as error:
        raise UserError(str(error)) from error
    _say_unread(images, made.unread)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_table(TABLES["hash_list"], made.items, out)
    sys.stdout.write(f"{out}: {len(made.items):,} images, {kind} hashes\n")
    return 0


def check_leaks(recipe: Recipe, store: Store, benchmarks: Sequence[str], out: Path | None, *, as_json: bool) -> int:
    """Say which images of a build are images of evaluation sets; nothing is changed.

    Args:
        recipe: Its dedup settings say what is the same picture.
        store: The workdir.
        benchmarks: NAME=PATH each, PATH a hash list or a folder or archive of images.
        out: Where the table `leaks` is written, if anywhere.
        as_json: Whether the counts are printed as JSON.

    Returns:
        The exit code.
    """
    sets = [_evaluation_set(entry, recipe) for entry in benchmarks]
    finder = LeakFinder(sets, recipe.dedup.radius, proof_of(recipe.flat()))
    checked, missing = 0, 0
    try:
        for images, left_out in _inspected(recipe, store):
            checked, missing = checked + len(images), left_out
            finder.look(images)
        finder.finish()
    except HashKindError as error:
        raise UserError(f"{error} (`hash-images --hash {recipe.dedup.hash}`)") from error
    except TooManyPairsError as error:
        raise UserError(f"too many images are near each other to compare them: {error}") from error
    if not checked:
        raise UserError(f"{store.uri}: no image is inspected yet; run `rs5m-build run --until dedup.inspect` first")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_table(TABLES["leaks"], finder.table(), out)
    counts = finder.counts()
    if as_json:
        document = {"format": 1, "checked": checked, "partitions_missing": missing, "benchmarks": counts}
        sys.stdout.write(json.dumps(document, sort_keys=True) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in _lines(finder.pairs(), counts, checked, missing))
    return 0


def _evaluation_set(entry: str, recipe: Recipe) -> EvaluationSet:
    try:
        name, path = benchmark_of(entry)
    except ValueError as error:
        raise UserError(f"--benchmark {error}") from error
    try:
        one = read_set(Store("."), name, _absolute(path), recipe.dedup.hash, _Teller())
    except (ArchiveError, GuardError, HashListError) as error:
        raise UserError(f"--benchmark {name}: {error}") from error
    _say_unread(path, one.unread)
    return one


class _Teller:
    """Says on stderr every few seconds what it is told."""

    def __init__(self) -> None:
        self._told_s = time.monotonic()

    def __call__(self, words: str) -> None:
        if time.monotonic() - self._told_s >= _TELL_EVERY_S:
            self._told_s = time.monotonic()
            stderr_say(words)


def _absolute(path: str) -> str:
    return path if is_absolute(path) else str(Path(path).absolute())


def _say_unread(path: str, unread: list[tuple[str, str]]) -> None:
    for name, why in unread[:_SHOWN]:
        stderr_say(f"{path}: {_plain(name)} was not read: {_plain(why)}")
    if len(unread) > _SHOWN:
        stderr_say(f"{path}: {len(unread) - _SHOWN:,} more were not read")


def _inspected(recipe: Recipe, store: Store) -> Iterator[tuple[pl.DataFrame, int]]:
    """Yield inspected images, some partitions at a time, and how many partitions are not there."""
    planner, _ = planner_over(recipe, store, reading=True)
    plan = planner.plan(step_named("dedup.inspect"))
    settled = plan.settled()
    missing = len(plan.names) - len(settled)
    for _, manifest in sorted(settled.items()):
        for receipt in manifest.outputs:
            if receipt.name == "inspected":
                yield scan(store, TABLES["inspected"], receipt.path, columns=LeakFinder.columns), missing


def _lines(leaks: pl.DataFrame, counts: Mapping[str, Mapping[str, int]], checked: int, missing: int) -> Iterator[str]:
    for name, found in counts.items():
        frame = leaks.filter(pl.col("benchmark") == name)
        items, samples = f"{found['items_found']:,} of {found['items']:,}", f"{found['samples']:,}"
        yield f"{name}: {items} images are in the build, as {samples} samples"
        for row in frame.head(_SHOWN).iter_rows(named=True):
            turned = f", view {row['view']}" if row["view"] else ""
            yield f"  {row['sample_id']}  {_plain(row['item'])}  {row['distance']} bits{turned}"
        if len(frame) > _SHOWN:
            yield f"  and {len(frame) - _SHOWN:,} more pairs; --out FILE writes them all"
    yield f"{checked:,} images checked" + (f"; {missing} partitions are not inspected yet" if missing else "")


def _plain(text: str) -> str:
    return "".join(ch if ch.isprintable() else "?" for ch in text)

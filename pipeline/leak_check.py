"""`rs5m-build hash-images` and `leak-check`: evaluation sets as hash lists, and which of their images a build holds."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from manifests.canonical import JsonValue
from manifests.recipe import Recipe
from manifests.schemas import TABLES
from manifests.store import Store
from manifests.tables import empty_frame, write_table
from pipeline.build import planner_over
from pipeline.errors import UserError
from pipeline.line import step_named
from pipeline.progress import stderr_say
from pipeline.table_scan import scan
from stages.archives import open_archive
from stages.dedup.hash_lists import HashKind, HashListError, hash_images, read_hash_list, write_hash_list
from stages.dedup.leaks import HashKindError, find_leaks
from stages.dedup.near import NO_PROOF
from stages.members import ArchiveError

_COMPARED = ("sample_id", "hash_kind", "phash", "thumbnail", "texture")
_ROWS_AT_ONCE = 200_000
_SHOWN = 10
_TELL_EVERY_S = 5.0


def make_hash_list(images: str, out: Path, kind: HashKind, recipe: Recipe) -> int:
    """Hash the images of a folder or archive and write the list; returns the exit code: 2 if there is no image.

    Args:
        images: Folder, tar or zip, local or a URI.
        out: The list, a Parquet file.
        kind: As `dedup.hash`.
        recipe: For its bounds on pixels and bytes.
    """
    frame = _hashed(images, kind, recipe)
    if frame.is_empty():
        raise UserError(f"{images}: no image that can be read in it")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_hash_list(frame, out)
    sys.stdout.write(f"{out}: {len(frame):,} images, {kind} hashes\n")
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
    lists = {name: _benchmark(path, recipe) for name, path in map(_named, benchmarks)}
    levels = recipe.dedup.confirm_levels if recipe.dedup.confirm == "thumbnail" else NO_PROOF
    found: dict[str, list[pl.DataFrame]] = {name: [] for name in lists}
    checked, missing = 0, 0
    for images, left_out in _inspected(recipe, store):
        checked, missing = checked + len(images), left_out
        for name, items in lists.items():
            try:
                found[name].append(find_leaks(images, items, recipe.dedup.radius, levels))
            except HashKindError as error:
                raise UserError(f"--benchmark {name}: {error} (`hash-images --hash {recipe.dedup.hash}`)") from error
    if not checked:
        raise UserError(f"{store.uri}: no image is inspected yet; run `rs5m-build run --until dedup.inspect` first")
    leaks = {name: pl.concat(frames) for name, frames in found.items()}
    if out is not None:
        _write(leaks, out)
    counts = {name: _counts(leaks[name], lists[name]) for name in lists}
    if as_json:
        document = {"format": 1, "checked": checked, "partitions_missing": missing, "benchmarks": counts}
        sys.stdout.write(json.dumps(document, sort_keys=True) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in _lines(leaks, counts, checked, missing))
    return 0


def _named(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise UserError(f"--benchmark {text}: write NAME=PATH, e.g. rsicd=lists/rsicd.parquet or rsicd=RSICD_images/")
    return name, path


def _benchmark(path: str, recipe: Recipe) -> pl.DataFrame:
    if not path.endswith(".parquet"):
        return _hashed(path, recipe.dedup.hash, recipe)
    try:
        return read_hash_list(Path(path))
    except HashListError as error:
        raise UserError(str(error)) from error


def _hashed(images: str, kind: HashKind, recipe: Recipe) -> pl.DataFrame:
    told_s = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= _TELL_EVERY_S:
            told_s = time.monotonic()
            stderr_say(f"{images}: {done:,} of {of:,} images hashed")

    try:
        with open_archive(Store("."), str(Path(images).absolute()) if "://" not in images else images) as archive:
            hashed = hash_images(archive, kind, recipe.dedup.max_pixels, recipe.download.max_bytes, tell)
    except ArchiveError as error:
        raise UserError(str(error)) from error
    for path, why in hashed.unread[:_SHOWN]:
        stderr_say(f"{images}: {path} was not read: {why}")
    if len(hashed.unread) > _SHOWN:
        stderr_say(f"{images}: {len(hashed.unread) - _SHOWN:,} more were not read")
    return hashed.frame


def _inspected(recipe: Recipe, store: Store) -> Iterator[tuple[pl.DataFrame, int]]:
    """Yield inspected images, some partitions at a time, and how many partitions are not there."""
    planner, _ = planner_over(recipe, store, reading=True)
    plan = planner.plan(step_named("dedup.inspect"))
    settled = plan.settled()
    missing = len(plan.names) - len(settled)
    frames: list[pl.DataFrame] = []
    for _, manifest in sorted(settled.items()):
        frames += [
            scan(store, TABLES["inspected"], receipt.path, columns=_COMPARED)
            for receipt in manifest.outputs
            if receipt.name == "inspected"
        ]
        if sum(map(len, frames)) >= _ROWS_AT_ONCE:
            yield pl.concat(frames), missing
            frames = []
    if frames:
        yield pl.concat(frames), missing


def _counts(leaks: pl.DataFrame, items: pl.DataFrame) -> dict[str, JsonValue]:
    return {"items": len(items), "items_found": leaks["item"].n_unique(), "samples": leaks["sample_id"].n_unique()}


def _write(leaks: dict[str, pl.DataFrame], out: Path) -> None:
    table = TABLES["leaks"]
    rows = [frame.with_columns(benchmark=pl.lit(name)).select(table.schema.names) for name, frame in leaks.items()]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_table(table, pl.concat([empty_frame(table), *rows]), out)


def _lines(
    leaks: dict[str, pl.DataFrame], counts: dict[str, dict[str, JsonValue]], checked: int, missing: int
) -> Iterator[str]:
    for name, frame in leaks.items():
        items, found, samples = (counts[name][key] for key in ("items", "items_found", "samples"))
        yield f"{name}: {found:,} of {items:,} images are in the build, as {samples:,} samples"
        for row in frame.head(_SHOWN).iter_rows(named=True):
            turned = f", view {row['view']}" if row["view"] else ""
            yield f"  {row['sample_id']}  {_plain(row['item'])}  {row['distance']} bits{turned}"
        if len(frame) > _SHOWN:
            yield f"  and {len(frame) - _SHOWN:,} more pairs; --out FILE writes them all"
    yield f"{checked:,} images checked" + (f"; {missing} partitions are not inspected yet" if missing else "")


def _plain(text: str) -> str:
    return "".join(ch if ch.isprintable() else "?" for ch in text)

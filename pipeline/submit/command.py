"""What `rs5m-build submit` does: an order from recipe and workdir, its files, and the cluster's own tool."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from manifests.recipe import Recipe
from manifests.recipe_files import RecipeError, dump_recipe
from manifests.store import Store, StoreError
from pipeline.errors import UserError
from pipeline.metadata import check_named
from pipeline.price.fits import fits
from pipeline.price.needs import StepNeed
from pipeline.price.text import price_lines
from pipeline.progress import stderr_say
from pipeline.submit import kuberay, ray_job, slurm
from pipeline.submit.needs import job_needs, placed
from pipeline.submit.order import RECIPE_FILE, HandOver, JobFile, Order
from pipeline.submit.pricing import priced

CLUSTERS = ("slurm", "ray", "kuberay")
NOT_HANDED_OVER = 3
"""The exit code where files are written, and the tool that takes them is not here."""


class _Target(Protocol):
    def render(self, order: Order) -> list[JobFile]: ...

    def summary(self, order: Order) -> list[str]: ...

    def hand_over(self, order: Order) -> HandOver: ...


def submit_build(recipe: Recipe, store: Store, to: str, out: str, overrides: Sequence[str], *, dry_run: bool) -> int:
    """Write a build's job files and hand them over; returns the exit code.

    Args:
        recipe: The resolved recipe.
        store: The workdir; it need not be there yet.
        to: One of `CLUSTERS`.
        out: The folder of the files; empty: ``jobs/<recipe>`` below the current one.
        overrides: The values of ``--set``, which are part of the recipe already.
        dry_run: Print the files instead, whole, on stdout.

    Raises:
        UserError: If the cluster is none we know, the build cannot fit, or the folder holds jobs of other settings.
        RecipeError: If a source names no metadata, or metadata that is not there: jobs could not start.
    """
    target = _target(to)
    prices = _priced(recipe, store, to, dry_run=dry_run)
    order = order_of(recipe, store, out, overrides, {price.step: price for price in prices})
    files = [JobFile(RECIPE_FILE, dump_recipe(order.recipe)), *target.render(order)]
    for line in target.summary(order):
        stderr_say(line)
    hand = target.hand_over(order)
    if dry_run:
        for file in files:
            sys.stdout.write(f"==> {order.folder}/{file.name} <==\n{file.text}\n")
        stderr_say(f"not written, not handed over (--dry-run): {' '.join(hand.command)}")
        return 0
    write_files(files, Path(order.folder))
    stderr_say(f"{len(files)} files in {order.folder}")
    return _handed(hand, order.folder)


def _priced(recipe: Recipe, store: Store, to: str, *, dry_run: bool) -> list[StepNeed]:
    """Say what is to do and what it takes; nothing where the store can be reached from the cluster alone."""
    try:
        prices, at = priced(recipe, store, to, _warned if dry_run else None)
    except StoreError as error:
        _check_sources(recipe, dry_run=dry_run)
        stderr_say(f"not priced, and every step submitted with default needs: {error}")
        return []
    if to == "ray" and not recipe.cluster.cpus:
        stderr_say("the cluster's size is unknown (cluster.cpus, cluster.gpus): wall hours are those of one core")
    for line in price_lines(prices, recipe, store, at):
        stderr_say(line)
    may_refuse = not (dry_run or recipe.run.ignore_space)
    if may_refuse and (refused := fits(prices, recipe, store, at).refused):
        raise UserError(f"{refused[0]} (or submit it all the same: --set run.ignore_space=true)")
    return prices


def _check_sources(recipe: Recipe, *, dry_run: bool) -> None:
    """Check what can be seen without the workdir. Raises RecipeError, as `run` would."""
    try:
        if not recipe.world:
            check_named(recipe)
    except RecipeError as error:
        if not dry_run:
            raise
        _warned(error)


def _warned(error: RecipeError) -> None:
    stderr_say(f"warning: these jobs would not be handed over: {error}")


def _target(to: str) -> _Target:
    match to:
        case "slurm":
            return slurm
        case "ray":
            return ray_job
        case "kuberay":
            return kuberay
    raise UserError(f"--to {to!r}: jobs are written for {', '.join(CLUSTERS)}")


def order_of(
    recipe: Recipe, store: Store, out: str, overrides: Sequence[str], prices: Mapping[str, StepNeed] | None = None
) -> Order:
    """Return the order for a build, started from the current folder with the program that runs now."""
    needs = job_needs(recipe, prices)
    local = store.local_path("")
    here = Path.cwd()
    return Order(
        recipe=placed(recipe, needs),
        workdir=str(local.absolute()) if local else store.uri,
        folder=str((here / (out or f"jobs/{recipe.name}")).absolute()),
        directory=str(here),
        program=_program(recipe),
        needs=needs,
        overrides=tuple(overrides),
    )


def write_files(files: Sequence[JobFile], folder: Path) -> None:
    """Write job files into a folder.

    Raises:
        UserError: If it holds the recipe of other jobs: those may still be queued, and would read this one; or it
            cannot be written.
    """
    try:
        _write(files, folder)
    except OSError as error:
        raise UserError(f"--out {folder} cannot be written: {error}; give another folder") from error


def _write(files: Sequence[JobFile], folder: Path) -> None:
    recipe = folder / RECIPE_FILE
    said = next(file.text for file in files if file.name == RECIPE_FILE)
    if recipe.exists() and recipe.read_text("utf-8") != said:
        raise UserError(
            f"{folder} holds jobs of other settings, which read {RECIPE_FILE} when they start; give --out another "
            "folder, or remove this one if none of them is queued any more"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        path = folder / file.name
        path.write_text(file.text, "utf-8")
        path.chmod(file.mode)


def _handed(hand: HandOver, folder: str) -> int:
    if not shutil.which(hand.tool):
        stderr_say(hand.otherwise)
        return NOT_HANDED_OVER
    code = subprocess.run(hand.command, cwd=folder, check=False).returncode
    if code:
        raise UserError(f"`{' '.join(hand.command)}` in {folder} ended with {code}: see above")
    return 0


def _program(recipe: Recipe) -> tuple[str, ...]:
    """Return how a job starts the command line: of the container, or that of this very environment."""
    if recipe.cluster.container:
        return ("rs5m-build",)
    script = Path(sys.executable).with_name("rs5m-build")
    return (str(script),) if script.exists() else (sys.executable, "-m", "pipeline.cli")

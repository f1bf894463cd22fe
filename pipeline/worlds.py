"""Recipes with a ``[world]``: the miniature web is built into the workdir once, and served on loopback during a run."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from manifests.recipe import Recipe
from manifests.store import Store
from pipeline.locks import Lock, LockHeldError
from pipeline.world.edition import EDITION
from pipeline.world.errors import WorldError

_WORLD = "world"
_PATIENCE_S = 600.0


def ensure_world(recipe: Recipe, store: Store, say: Callable[[str], None]) -> None:
    """Build the recipe's world into the workdir unless it is there whole; ``world.json`` is written last.

    Raises:
        WorldError: If what it is made of cannot be had, or the world that is there is of another edition.
        LockHeldError: If another run builds it and does not come to an end.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while recipe.world and store.size(f"{_WORLD}/world.json") is None:
        try:
            with Lock(store, _WORLD, recipe.run.lock_beat_s, say):
                if store.size(f"{_WORLD}/world.json") is None:
                    _build(recipe, store, say)
        except LockHeldError:
            if time.monotonic() > deadline:
                raise
            time.sleep(recipe.run.lock_beat_s)
    if recipe.world and (edition := _about(store).get("edition")) != EDITION:
        raise WorldError(
            f"{store.uri} holds edition {edition or 1} of the {recipe.world.kind} world, this version builds edition "
            f"{EDITION}; remove the folder, or give another --workdir"
        )


def world_facts(store: Store) -> dict[str, list[str]]:
    """Return what of the world is staged and what is real, in words; empty without a world."""
    about = _about(store)
    return {name: [str(line) for line in about[name]] for name in ("real", "staged") if name in about}


def _about(store: Store) -> dict[str, Any]:
    try:
        return dict(json.loads(store.read(f"{_WORLD}/world.json")))
    except FileNotFoundError:
        return {}


@contextmanager
def served(recipe: Recipe, store: Store) -> Iterator[Recipe]:
    """Serve the world while the block runs; yields the recipe with names resolved to the origin server."""
    if recipe.world is None:
        yield recipe
        return
    from pipeline.world.origin import Origin

    with Origin(lambda path: store.read(f"{_WORLD}/{path}"), recipe.world.bind) as origin:
        network = recipe.download.network.model_copy(
            update={"resolve": {**origin.resolve, **recipe.download.network.resolve}}
        )
        download = recipe.download.model_copy(update={"network": network})
        yield recipe.model_copy(update={"download": download})


def _build(recipe: Recipe, store: Store, say: Callable[[str], None]) -> None:
    from pipeline.world.build import build_world

    if recipe.world is None:
        return
    with tempfile.TemporaryDirectory(prefix="rs5m-world-", dir=recipe.run.scratch or None) as folder:
        build_world(recipe.world.kind, Path(folder), say)
        local = store.local_path(_WORLD)
        if local:
            _move_in(Path(folder), local)
            return
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        for path in sorted(files, key=lambda p: p.name == "world.json"):
            store.put(path, f"{_WORLD}/{path.relative_to(folder).as_posix()}")


def _move_in(built: Path, world: Path) -> None:
    """Put a built world in place: an unfinished older one goes, a copy beside it is renamed."""
    beside = world.with_name(".tmp-world")
    for old in (beside, world):
        if old.exists():
            shutil.rmtree(old)
    try:
        for file in sorted(path for path in built.rglob("*") if path.is_file()):
            target = beside / file.relative_to(built)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)  # one by one: copytree would go on after a full disk and hide its errno
    except OSError:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    beside.rename(world)

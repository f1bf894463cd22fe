"""The run's own folder, ``runs/<utc>-<rand>/``: the only place for time, host, process and speed."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version

from manifests.recipe import Recipe
from manifests.recipe_files import dump_recipe, parse_recipe
from manifests.store import Store
from pipeline.code_digest import code_digest
from pipeline.events import Event, event_line
from pipeline.watching.growing import GrowingFile, pieces

_FLUSH_S = 5.0
_LIBRARIES = ("numpy", "pillow", "polars", "pyarrow", "ray", "scipy")


class RunFolder:
    """Writes recipe.toml and environment.json at once, events.jsonl as events come.

    On a file system events are appended; an object store has no append, so they are put in pieces every few seconds.
    """

    def __init__(self, store: Store, recipe: Recipe, arguments: list[str]) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")  # fine enough that names sort as runs follow
        self.path = f"runs/{stamp}-{secrets.token_hex(4)}"
        self._events = GrowingFile(store, f"{self.path}/events.jsonl", _FLUSH_S)
        store.replace(f"{self.path}/recipe.toml", dump_recipe(recipe).encode())
        store.replace(f"{self.path}/environment.json", json.dumps(_environment(arguments), indent=1).encode())

    def listen(self, event: Event) -> None:
        """Keep an event."""
        self._events.append(event_line(event))

    def flush(self) -> None:
        """Write what was kept."""
        self._events.close()


def newest_recipe(store: Store) -> Recipe | None:
    """Return the resolved recipe of the newest run, or None before the first."""
    for folder in run_folders(store):
        path = f"{folder}/recipe.toml"
        with contextlib.suppress(FileNotFoundError):
            return parse_recipe(store.read(path).decode(), path)
    return None


def newest_events(store: Store) -> Iterator[bytes]:
    """Yield the events of the newest run that told any, as lines of JSON; the last may be cut short."""
    for folder in run_folders(store):
        found = False
        for piece in pieces(f"{folder}/events.jsonl"):
            try:
                data = store.read(piece)
            except FileNotFoundError:
                break
            found = True
            yield from data.splitlines()
        if found:
            return


def run_folders(store: Store) -> list[str]:
    """Return the folders of all runs, the newest first."""
    return [f"runs/{name}" for name in reversed(store.folders("runs"))]


def _environment(arguments: list[str]) -> dict[str, object]:
    return {
        "arguments": arguments,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "code": code_digest(),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }

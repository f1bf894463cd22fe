"""The run's own folder, ``runs/<utc>-<rand>/``: the only place for time, host, process and speed."""

from __future__ import annotations

import json
import os
import platform
import secrets
import socket
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version

from manifests.recipe import Recipe
from manifests.recipe_files import dump_recipe, parse_recipe
from manifests.store import Store
from pipeline.code_digest import code_digest
from pipeline.events import Event, event_line

_FLUSH_S = 5.0
_LIBRARIES = ("numpy", "pillow", "polars", "pyarrow", "ray", "scipy")


class RunFolder:
    """Writes recipe.toml and environment.json at once, events.jsonl as events come.

    On a file system events are appended; an object store has no append, so the file is put again every few seconds.
    """

    def __init__(self, store: Store, recipe: Recipe, arguments: list[str]) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")  # fine enough that names sort as runs follow
        self.path = f"runs/{stamp}-{secrets.token_hex(4)}"
        self._store = store
        self._lines: list[bytes] = []
        self._flushed_s = 0.0
        store.replace(f"{self.path}/recipe.toml", dump_recipe(recipe).encode())
        store.replace(f"{self.path}/environment.json", json.dumps(_environment(arguments), indent=1).encode())

    def listen(self, event: Event) -> None:
        """Keep an event."""
        self._lines.append(event_line(event))
        if self._store.local_path("") or time.monotonic() - self._flushed_s > _FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what was kept."""
        local = self._store.local_path(f"{self.path}/events.jsonl")
        self._flushed_s = time.monotonic()
        if local:
            with local.open("ab") as file:
                file.write(b"".join(self._lines))
            self._lines.clear()
        elif self._lines:
            self._store.replace(f"{self.path}/events.jsonl", b"".join(self._lines))


def newest_recipe(store: Store) -> Recipe | None:
    """Return the resolved recipe of the newest run, or None before the first."""
    files = [entry.path for entry in store.find("runs") if entry.path.endswith("/recipe.toml")]
    return parse_recipe(store.read(files[-1]).decode(), files[-1]) if files else None


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

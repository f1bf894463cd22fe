"""Where the files lie that a recipe names: any fsspec URI, an absolute path, or a path below the workdir."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import fsspec

from manifests.store import Store


def is_absolute(uri: str) -> bool:
    """Tell whether a name stands for itself; others are below the workdir."""
    return "://" in uri or uri.startswith("/")


def located(store: Store, uri: str) -> tuple[Any, str]:
    """Return the fsspec file system of a named file or folder, and its path there."""
    absolute = is_absolute(uri)
    fs, path = fsspec.core.url_to_fs(uri if absolute else f"{store.uri}/{uri}", **({} if absolute else store.options))
    return fs, str(path).rstrip("/") or "/"


@contextmanager
def open_uri(store: Store, uri: str) -> Iterator[BinaryIO]:
    """Open a named file for seekable reading of bytes. Raises FileNotFoundError."""
    fs, path = located(store, uri)
    with fs.open(path, "rb") as file:
        yield cast("BinaryIO", file)


def named(store: Store, pattern: str) -> list[str]:
    """Return the files and folders that a name or glob pattern stands for, sorted; none where nothing is there."""
    absolute = is_absolute(pattern)
    fs, path = located(store, pattern)
    names = [path]
    if glob.has_magic(pattern):
        asked = pattern.rstrip("/")
        # The workdir's own name is no pattern.
        below = path.removesuffix(asked) if not absolute and path.endswith(asked) else ""
        names = sorted(str(name) for name in fs.glob(glob.escape(below) + path[len(below) :]))
    if not names or (len(names) == 1 and not fs.exists(names[0])):
        return []
    if absolute:
        return [str(fs.unstrip_protocol(name)) if "://" in pattern else name for name in names]
    root = len(fs._strip_protocol(store.uri)) + 1  # noqa: SLF001  (fsspec's own way to compare paths)
    return [name[root:] for name in names]

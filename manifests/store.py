"""The workdir as a store of whole objects: create-only commits, atomic puts, ranges, one LIST.

Where objects lie is the business of two modules: `manifests.local_objects`, a local or shared file system, and
`manifests.remote_objects`, an object store over fsspec, whose failures are met there with patience.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from manifests.local_objects import LocalObjects
from manifests.objects import (
    TEMPORARY_PREFIX,
    AlreadyThereError,
    Entry,
    Objects,
    StoreError,
    StoreRefusedError,
)

__all__ = ["TEMPORARY_PREFIX", "AlreadyThereError", "Entry", "Store", "StoreError", "StoreRefusedError"]

PATIENCE_S = 300.0


class Store:
    """Objects below one workdir URI.

    Every method that needs the store may raise StoreError, or StoreRefusedError where asking again would not help; a
    file system's own failures stay OSErrors.

    Attributes:
        uri: The workdir, any fsspec URI or a local path.
        options: fsspec options of its file system, and one of ours, ``patience_s``: how long one operation on an object
            store is tried (`manifests.store_options` makes them of a recipe).
    """

    def __init__(self, uri: str, options: Mapping[str, Any] | None = None) -> None:
        self.options = dict(options or {})
        patience_s, given = float(self.options.get("patience_s", PATIENCE_S)), self.fs_options
        if "://" in uri and "::" not in uri:
            given.setdefault("use_listings_cache", False)  # what was listed before is never taken for what is there
        fs, root = fsspec.core.url_to_fs(uri, **given)
        self._root = str(root).rstrip("/")
        self._objects: Objects
        self._local = isinstance(fs, LocalFileSystem)
        if self._local:
            self.uri = self._root
            self._objects = LocalObjects(self._root)
        else:
            from manifests.remote_objects import RemoteObjects

            self.uri = uri.rstrip("/")
            self._objects = RemoteObjects(fs, self._root, self.uri, patience_s)

    @property
    def fs_options(self) -> dict[str, Any]:
        """What fsspec is told of the options."""
        return {name: value for name, value in self.options.items() if name != "patience_s"}

    def local_path(self, path: str) -> Path | None:
        """Return the path in the local file system, or None on an object store."""
        return Path(f"{self._root}/{path}" if path else self._root) if self._local else None

    def read(self, path: str) -> bytes:
        """Return a whole object. Raises FileNotFoundError."""
        return self._objects.read(path)

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start``; fewer at the object's end. Raises FileNotFoundError."""
        return self._objects.read_range(path, start, length)

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open an object for seekable reading. Raises FileNotFoundError."""
        return self._objects.open(path)

    def size(self, path: str) -> int | None:
        """Return the size of an object in bytes, or None if it is not there."""
        return self._objects.size(path)

    def find(self, folder: str) -> list[Entry]:
        """Return every object below ``folder``, sorted by path; temporary files are left out.

        A list may lag: an object made a moment ago may lack, one removed may be named. `size` and `read` do not.
        """
        return sorted(self.scan(folder), key=lambda entry: entry.path)

    def scan(self, folder: str) -> Iterator[Entry]:
        """Yield every object below ``folder`` as it is met, in no order; temporary files are left out."""
        return (entry for entry in self._objects.scan(folder) if not _is_temporary(entry.path))

    def stamp_of(self, path: str, data: bytes) -> str:
        """Return the stamp that a listing shows of an object that was just created with ``data``; empty: not known."""
        return self._objects.stamp_of(path, data)

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly below ``folder``, sorted; what lies in them is not listed."""
        return sorted(self._objects.folders(folder))

    def temporaries(self, folder: str) -> list[Entry]:
        """Return what interrupted writers left below ``folder``."""
        return [e for e in self._objects.scan(folder) if _is_temporary(e.path)]

    def create(self, path: str, data: bytes) -> None:
        """Write a new object that must not exist.

        Equal bytes that are there already count as created: a request is sent again when its answer was lost, and
        meets its own work. Whoever needs to know that it was itself writes a token of its own.

        Raises:
            AlreadyThereError: If it exists with other bytes; it is left as it was.
        """
        self._objects.create(path, data)

    def check_exclusive_create(self) -> None:
        """See for oneself that a second create is refused; a store may take the condition for decoration.

        Raises:
            StoreRefusedError: If it is not: locks and commits would mean nothing here.
        """
        if self._local:  # link(2) is exclusive wherever there is one
            return
        path = f"cache/exclusive-{secrets.token_hex(8)}"
        self.create(path, b"first")
        try:
            self.create(path, b"second")
        except AlreadyThereError:
            return
        finally:
            self.remove(path)
        raise StoreRefusedError(
            f"{self.uri}: this store overwrites an object that was to be created, so locks and commits would mean "
            "nothing on it; use S3 or one that heeds If-None-Match, GCS, or a shared file system"
        )

    def replace(self, path: str, data: bytes) -> None:
        """Write an object whole, whether or not it exists."""
        self._objects.replace(path, data)

    def put(self, local: Path, path: str) -> None:
        """Copy a local file to an object, atomically."""
        self._objects.put(local, path, copied=True)

    def put_once(self, local: Path, path: str, size: int) -> None:
        """Make a local file an object that is named by its content; one that is there whole already is left alone.

        On an object store a small file is sent without asking first: that is one request instead of two.
        """
        if (self._local or size > _SENT_UNASKED_BYTES) and self.size(path) == size:
            return
        self.move(local, path)

    def move(self, local: Path, path: str) -> None:
        """Make a local file an object, atomically. It is not copied if it lies in the store's file system."""
        self._objects.put(local, path, copied=False)
        local.unlink()

    def remove(self, path: str) -> None:
        """Remove an object; one that is not there is no error."""
        self._objects.remove(path)

    def rename(self, path: str, new: str) -> None:
        """Rename an object, replacing ``new``."""
        self._objects.rename(path, new)


_SENT_UNASKED_BYTES = 1 << 20


def _is_temporary(path: str) -> bool:
    return path.rsplit("/", 1)[-1].startswith(TEMPORARY_PREFIX)

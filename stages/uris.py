"""Where the files lie that a recipe names: any fsspec URI, an absolute path, or a path below the workdir."""

from __future__ import annotations

import glob
import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import fsspec

from manifests.identity import file_digest
from manifests.store import Store

_BUFFER_BYTES = 1 << 20
_PARQUET_TAIL = b"PAR1"
# What tells that an object is another one than before, surest first, as the file systems call it.
_CHANGED = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")


class ChangedFileError(Exception):
    """A file that is not, or no longer, the one that was planned with."""


@dataclass(frozen=True, slots=True)
class Named:
    """A file or folder that a name or pattern stands for.

    Attributes:
        uri: Its name, relative to the workdir if the pattern was.
        bytes: Its size; None for a folder.
        stamp: Equal as long as nobody changed it; empty where the file system tells nothing of the kind.
    """

    uri: str
    bytes: int | None
    stamp: str


def is_absolute(uri: str) -> bool:
    """Tell whether a name stands for itself; others are below the workdir."""
    return "://" in uri or uri.startswith("/")


def located(store: Store, uri: str) -> tuple[Any, str]:
    """Return the fsspec file system of a named file or folder, and its path there."""
    absolute = is_absolute(uri)
    fs, path = fsspec.core.url_to_fs(
        uri if absolute else f"{store.uri}/{uri}", **({} if absolute else store.fs_options)
    )
    return fs, str(path).rstrip("/") or "/"


@contextmanager
def open_uri(store: Store, uri: str) -> Iterator[BinaryIO]:
    """Open a named file for seekable reading of bytes. Raises FileNotFoundError."""
    if not is_absolute(uri) and store.local_path("") is None:  # an object of the workdir's own store
        with store.open(uri) as file:
            yield file
        return
    fs, path = located(store, uri)
    with fs.open(path, "rb") as file:
        yield cast("BinaryIO", file)


@contextmanager
def open_unchanged(store: Store, uri: str, digest: str) -> Iterator[BinaryIO]:
    """Open a named file for reading, and check when it was read that it was the planned one all along.

    Of a Parquet file size and footer are compared, and size and time of change before and after. Of any other file the
    very bytes that are read are digested on the way, and those that the reader left unread at the end.

    Args:
        store: The workdir, which relative names are below.
        uri: The file.
        digest: Its file digest when it was planned with.

    Raises:
        FileNotFoundError: It is not there.
        ChangedFileError: It was read to the end of the block, and is another file.
    """
    before = stamp_of(store, uri)
    with open_uri(store, uri) as file:
        if _is_parquet(file):
            yield file
            found = ""
        else:
            hashing = _Hashing(file, uri)
            yield cast("BinaryIO", io.BufferedReader(hashing, _BUFFER_BYTES))
            found = hashing.hexdigest()
    if found != digest:
        with open_uri(store, uri) as file:
            found = file_digest(file)
    if found != digest or stamp_of(store, uri) != before:
        raise ChangedFileError(
            f"{uri}: changed while it was read, or since the run was planned (its digest was {digest[:12]}, is "
            f"{found[:12]}); leave it alone and run again: its partition is planned anew"
        )


def stamp_of(store: Store, uri: str) -> str:
    """Return a named file's stamp (`Named.stamp`). Raises FileNotFoundError."""
    fs, path = located(store, uri)
    fs.invalidate_cache()
    return _stamp(fs.info(path))


def entry_of(store: Store, uri: str) -> Named | None:
    """Return what stands under a name as it is written, a pattern or not; None where nothing is there."""
    fs, path = located(store, uri)
    fs.invalidate_cache()
    try:
        info = fs.info(path)
    except FileNotFoundError:
        return None
    return Named(uri, _size(info), _stamp(info))


def listed(store: Store, pattern: str) -> list[Named]:
    """Return the files and folders that a name or glob pattern stands for, sorted; none where nothing is there.

    One listing tells sizes and stamps of all: on an object store each file asked alone would be a request.
    """
    absolute = is_absolute(pattern)
    fs, path = located(store, pattern)
    fs.invalidate_cache()
    found: Mapping[str, Mapping[str, Any]]
    if glob.has_magic(pattern):
        asked = pattern.rstrip("/")
        # The workdir's own name is no pattern.
        below = path.removesuffix(asked) if not absolute and path.endswith(asked) else ""
        found = fs.glob(glob.escape(below) + path[len(below) :], detail=True)
    else:
        try:
            found = {path: fs.info(path)}
        except FileNotFoundError:
            return []
    root = 0 if absolute else len(fs._strip_protocol(store.uri)) + 1  # noqa: SLF001  (fsspec's way to compare paths)
    whole = absolute and "://" in pattern
    return [
        Named(str(fs.unstrip_protocol(name)) if whole else str(name)[root:], _size(info), _stamp(info))
        for name, info in sorted(found.items())
    ]


def named(store: Store, pattern: str) -> list[str]:
    """Return the names of what `listed` finds."""
    return [item.uri for item in listed(store, pattern)]


def _size(info: Mapping[str, Any]) -> int | None:
    return None if info.get("type") == "directory" or info.get("size") is None else int(info["size"])


def _stamp(info: Mapping[str, Any]) -> str:
    changed = next((info[key] for key in _CHANGED if info.get(key) is not None), None)
    return "" if changed is None or _size(info) is None else f"{_size(info)} {changed}"


def _is_parquet(file: BinaryIO) -> bool:
    size = file.seek(0, 2)
    file.seek(max(0, size - len(_PARQUET_TAIL)))
    tail = file.read(len(_PARQUET_TAIL))
    file.seek(0)
    return tail == _PARQUET_TAIL


class _Hashing(io.RawIOBase):
    """A file whose bytes are digested as they are read for the first time."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        self._sha256 = hashlib.sha256()
        self._at = 0
        self._hashed = 0
        self._skipped = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._file.seek(offset, whence)
        self._at = self._file.tell()
        return self._at

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  (a buffer of any kind)
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._skipped |= self._at > self._hashed
        if not self._skipped and self._at + len(data) > self._hashed:
            self._sha256.update(data[self._hashed - self._at :])
            self._hashed = self._at + len(data)
        self._at += len(data)
        return len(data)

    def hexdigest(self) -> str:
        """Read what is left and return the digest of the whole; empty where the reader went back and forth."""
        self.seek(self._hashed)
        while not self._skipped and self.read(_BUFFER_BYTES):
            pass
        return "" if self._skipped else self._sha256.hexdigest()

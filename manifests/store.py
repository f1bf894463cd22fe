"""The workdir as a store of whole objects over fsspec: create-only commits, atomic puts, ranges, one LIST.

On a local or shared file system an object is written to a temporary file in its own folder, flushed to disk and then
linked (create) or renamed (replace) into place; only exclusive create, hard link and rename within a folder are asked
of it. On an object store a PUT is atomic by itself and creation uses the store's exclusive mode.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

TEMPORARY_PREFIX = ".tmp-"
_COPY_BYTES = 8 << 20


class AlreadyThereError(Exception):
    """A create-only object exists already."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored object: path below the workdir and size in bytes."""

    path: str
    bytes: int


class Store:
    """Objects below one workdir URI.

    Attributes:
        uri: The workdir, any fsspec URI or a local path.
        options: fsspec options of its file system.
    """

    def __init__(self, uri: str, options: Mapping[str, Any] | None = None) -> None:
        self.options = dict(options or {})
        self._fs, root = fsspec.core.url_to_fs(uri, **self.options)
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)
        self.uri = self._root if self._local else uri.rstrip("/")

    def local_path(self, path: str) -> Path | None:
        """Return the path in the local file system, or None on an object store."""
        return Path(self._full(path)) if self._local else None

    def read(self, path: str) -> bytes:
        """Return a whole object. Raises FileNotFoundError."""
        return cast("bytes", self._fs.cat_file(self._full(path)))

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start``; fewer at the object's end. Raises FileNotFoundError."""
        if not self._local:
            return cast("bytes", self._fs.cat_file(self._full(path), start=start, end=start + length))
        with Path(self._full(path)).open("rb") as file:
            file.seek(start)
            return file.read(length)

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Open an object for seekable reading. Raises FileNotFoundError."""
        with self._fs.open(self._full(path), "rb") as file:
            yield cast("BinaryIO", file)

    def size(self, path: str) -> int | None:
        """Return the size of an object in bytes, or None if it is not there."""
        try:
            if self._local:
                return Path(self._full(path)).stat().st_size
            return int(self._fs.info(self._full(path), refresh=True)["size"])
        except FileNotFoundError:
            return None

    def find(self, folder: str) -> list[Entry]:
        """Return every object below ``folder``, sorted by path; temporary files are left out."""
        self._fs.invalidate_cache(self._full(folder))
        try:
            found = self._fs.find(self._full(folder), detail=True)
        except FileNotFoundError:
            return []
        entries = [Entry(str(name)[len(self._root) + 1 :], int(info["size"])) for name, info in found.items()]
        return sorted((e for e in entries if not _is_temporary(e.path)), key=lambda e: e.path)

    def temporaries(self, folder: str) -> list[Entry]:
        """Return what interrupted writers left below ``folder``."""
        found = self._fs.find(self._full(folder), detail=True) if self._fs.exists(self._full(folder)) else {}
        entries = [Entry(str(name)[len(self._root) + 1 :], int(info["size"])) for name, info in found.items()]
        return [e for e in entries if _is_temporary(e.path)]

    def create(self, path: str, data: bytes) -> None:
        """Write a new object that must not exist.

        Raises:
            AlreadyThereError: If it exists; it is left as it was.
        """
        if self._local:
            with self._temporary(path, data) as temporary:
                try:
                    os.link(temporary, self._full(path))
                except FileExistsError:
                    raise AlreadyThereError(path) from None
            _sync_folder(Path(self._full(path)).parent)
            return
        try:
            self._fs.pipe_file(self._full(path), data, mode="create")
        except FileExistsError:
            raise AlreadyThereError(path) from None

    def replace(self, path: str, data: bytes) -> None:
        """Write an object whole, whether or not it exists."""
        if self._local:
            with self._temporary(path, data) as temporary:
                temporary.replace(self._full(path))
            _sync_folder(Path(self._full(path)).parent)
            return
        self._fs.pipe_file(self._full(path), data)

    def put(self, local: Path, path: str) -> None:
        """Copy a local file to an object, atomically."""
        self._put(local, path, copied=True)

    def move(self, local: Path, path: str) -> None:
        """Make a local file an object, atomically. It is not copied if it lies in the store's file system."""
        self._put(local, path, copied=False)
        local.unlink()

    def remove(self, path: str) -> None:
        """Remove an object; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._full(path))

    def rename(self, path: str, new: str) -> None:
        """Rename an object, replacing ``new``."""
        if self._local:
            Path(self._full(path)).replace(self._full(new))
        else:
            self._fs.mv(self._full(path), self._full(new))

    def _put(self, local: Path, path: str, *, copied: bool) -> None:
        if not self._local:
            self._fs.put_file(str(local), self._full(path))
            return
        with self._temporary(path, local, copied=copied) as temporary:
            temporary.replace(self._full(path))
        _sync_folder(Path(self._full(path)).parent)

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    @contextlib.contextmanager
    def _temporary(self, path: str, content: bytes | Path, *, copied: bool = True) -> Iterator[Path]:
        """Write ``content`` to a flushed temporary file beside ``path``; it is gone afterwards unless renamed."""
        target = Path(self._full(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        try:
            linked = not copied and isinstance(content, Path) and _link(content, temporary)
            with temporary.open("rb+" if linked else "xb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                elif not linked:
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, file, _COPY_BYTES)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


def _is_temporary(path: str) -> bool:
    return path.rsplit("/", 1)[-1].startswith(TEMPORARY_PREFIX)


def _link(file: Path, new: Path) -> bool:
    """Give a file a second name. False where that cannot be: another file system, or one without links.

    Nor where the folder gives its group to what is made in it: a link would keep the file's own.
    """
    folder = new.parent.stat()
    if folder.st_mode & stat.S_ISGID and folder.st_gid != file.stat().st_gid:
        return False
    try:
        os.link(file, new)
    except OSError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

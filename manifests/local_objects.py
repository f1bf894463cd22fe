"""Objects on a local or shared file system, of which only exclusive create, hard link and rename in a folder are asked.

An object is written to a temporary file in its own folder, flushed to disk and then linked (create) or renamed
(replace) into place. NFS sends a request again when its answer was lost: a link or a rename that worked may then say
that it did not, so what came of it is looked at before it is believed. A handle that went stale is opened anew.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from manifests.objects import TEMPORARY_PREFIX, AlreadyThereError, Entry

_COPY_BYTES = 8 << 20
_STALE_TRIES = 5
_STALE_PAUSE_S = 0.1
_SILLY_PREFIX = ".nfs"  # the name NFS gives to a removed file that someone still holds open

_T = TypeVar("_T")


class LocalObjects:
    """Files below a folder.

    Args:
        root: The folder; it need not exist.
    """

    def __init__(self, root: str) -> None:
        self._root = root

    def read(self, path: str) -> bytes:
        """Return a whole file."""
        return _not_stale(Path(self._full(path)).read_bytes)

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return a part of a file."""

        def part() -> bytes:
            with Path(self._full(path)).open("rb") as file:
                file.seek(start)
                return file.read(length)

        return _not_stale(part)

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Open a file."""
        with _not_stale(lambda: Path(self._full(path)).open("rb")) as file:
            yield file

    def size(self, path: str) -> int | None:
        """Return a file's size."""
        try:
            return _not_stale(Path(self._full(path)).stat).st_size
        except FileNotFoundError:
            return None

    def scan(self, folder: str) -> Iterator[Entry]:
        """Yield all files below a folder, whatever their names, links followed."""
        folders = [self._full(folder)]
        while folders:
            try:
                entries = _not_stale(lambda: list(os.scandir(folders[-1])))
            except (FileNotFoundError, NotADirectoryError):
                entries = []
            folders.pop()
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.path)
                elif not entry.name.startswith(_SILLY_PREFIX):
                    with contextlib.suppress(FileNotFoundError):  # it went meanwhile, or is a link to nowhere
                        found = entry.stat()
                        yield Entry(entry.path[len(self._root) + 1 :], found.st_size, _stamp(found))

    def stamp_of(self, path: str, data: bytes) -> str:
        """Return time of change and inode."""
        del data
        try:
            return _stamp(Path(self._full(path)).stat())
        except FileNotFoundError:
            return ""

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly below a folder."""
        try:
            return [entry.name for entry in Path(self._full(folder)).iterdir() if entry.is_dir()]
        except FileNotFoundError:
            return []

    def create(self, path: str, data: bytes) -> None:
        """Write a new file."""
        target = Path(self._full(path))
        with self._temporary(path, data) as temporary:
            try:
                os.link(temporary, target)
            except FileExistsError:
                # The inode tells: a link whose answer was lost is there, and it is ours.
                if not _is_same_file(temporary, target) and _bytes_of(target) != data:
                    raise AlreadyThereError(path) from None
        _sync_folder(target.parent)

    def replace(self, path: str, data: bytes) -> None:
        """Write a file whole."""
        with self._temporary(path, data) as temporary:
            _rename(temporary, Path(self._full(path)))
        _sync_folder(Path(self._full(path)).parent)

    def put(self, local: Path, path: str, *, copied: bool) -> None:
        """Make a stored file of a local one; it is linked where that can be."""
        with self._temporary(path, local, copied=copied) as temporary:
            _rename(temporary, Path(self._full(path)))
        _sync_folder(Path(self._full(path)).parent)

    def remove(self, path: str) -> None:
        """Remove a file."""
        with contextlib.suppress(FileNotFoundError):
            Path(self._full(path)).unlink()

    def rename(self, path: str, new: str) -> None:
        """Rename a file."""
        _rename(Path(self._full(path)), Path(self._full(new)))

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


def _stamp(found: os.stat_result) -> str:
    return f"t{found.st_mtime_ns:x}-{found.st_ino:x}"  # "t": it begins with a time


def _not_stale(call: Callable[[], _T]) -> _T:
    """Do it anew where another client replaced the file between its name and its handle (ESTALE)."""
    for _ in range(_STALE_TRIES - 1):
        try:
            return call()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            time.sleep(_STALE_PAUSE_S)
    return call()


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except FileNotFoundError:
        return False


def _bytes_of(file: Path) -> bytes | None:
    try:
        return _not_stale(file.read_bytes)
    except FileNotFoundError:
        return None


def _rename(file: Path, new: Path) -> None:
    """Rename a file; one that is gone because it has the new name already is renamed."""
    inode = file.stat().st_ino
    try:
        file.replace(new)
    except FileNotFoundError:
        if not new.exists() or new.stat().st_ino != inode:
            raise


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
        return new.exists() and _is_same_file(file, new)
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

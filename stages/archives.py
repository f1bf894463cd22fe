"""Folders and archives of images on any fsspec file system, read as what strangers packed: bounded, never unpacked.

A folder is listed; a zip is read through its directory; a tar is scanned header by header and then read by ranges; a
tar.gz, which has no ranges, is streamed, once to list it and once to read.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal

from fsspec.implementations.local import LocalFileSystem

from manifests.identity import file_digest
from manifests.store import Store
from stages.members import Archive, ArchiveError, Member, Piece
from stages.tar_archives import TarArchive
from stages.uris import located, open_uri

Kind = Literal["folder", "tar", "tar.gz", "zip"]

READ = "a folder, or an archive .tar, .tar.gz, .tgz or .zip"
"""What can be read, in words."""

_SUFFIXES: dict[str, Kind] = {".tar": "tar", ".tar.gz": "tar.gz", ".tgz": "tar.gz", ".zip": "zip"}
_READS_IN_FLIGHT = 8


@contextmanager
def open_archive(store: Store, uri: str) -> Iterator[Archive]:
    """Open a folder or archive.

    Args:
        store: The workdir, which relative names are below.
        uri: Its name.

    Raises:
        ArchiveError: If nothing is there, or it is not `READ`.
    """
    kind = kind_of(store, uri)
    fs, path = located(store, uri)
    name = own_name(path)
    if kind == "folder":
        yield _Folder(name, fs, path)
        return
    try:
        with open_uri(store, uri) as file:
            if kind == "zip":
                yield _Zip(name, uri, file)
            else:
                yield TarArchive(name, uri, file, packed=kind == "tar.gz")
    except FileNotFoundError as error:
        raise ArchiveError(f"{uri}: is not there; check the name") from error


def kind_of(store: Store, uri: str) -> Kind:
    """Return what a name stands for.

    Raises:
        ArchiveError: If nothing is there, or it is not `READ`.
    """
    fs, path = located(store, uri)
    if fs.isdir(path):
        return "folder"
    lowered = path.lower()
    for suffix, kind in _SUFFIXES.items():
        if lowered.endswith(suffix):
            return kind
    if not fs.exists(path):
        raise ArchiveError(f"{uri}: is not there; name {READ}")
    raise ArchiveError(f"{uri}: is not {READ}; unpack it first, and name the folder")


def archive_digest(store: Store, uri: str) -> str:
    """Return the digest of a folder or archive, 64 hex digits.

    Of an archive it is the file digest. Of a folder it is the sha256 over path and size of every member, sorted by
    path: what stands for its content without reading it. Another content of the same size goes unnoticed.

    Raises:
        ArchiveError: If it cannot be read.
    """
    if kind_of(store, uri) == "folder":
        with open_archive(store, uri) as folder:
            return folder_digest(folder.members())
    with open_uri(store, uri) as file:
        return file_digest(file)


def is_empty(store: Store, uri: str) -> bool:
    """Tell whether a folder or archive has no member, as a tar into which nothing was written.

    Raises:
        ArchiveError: If it cannot be read.
    """
    with open_archive(store, uri) as archive:
        return not archive.members()


def folder_digest(members: Iterable[Member]) -> str:
    """Return the digest of a folder's members; see `archive_digest`."""
    digest = hashlib.sha256()
    for member in members:
        digest.update(f"{member.path}\0{member.bytes}\n".encode())
    return digest.hexdigest()


def own_name(uri: str) -> str:
    """Return the name of a folder or archive without what stands before it and without a suffix."""
    name = uri.rstrip("/").rsplit("/", 1)[-1]
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


class _Folder(Archive):
    def __init__(self, name: str, fs: Any, root: str) -> None:  # noqa: ANN401  (fsspec is untyped)
        super().__init__(name)
        self._fs = fs
        self._root = root.rstrip("/")

    def _scan(self) -> Iterator[tuple[str, int | None, Any]]:
        self._fs.invalidate_cache(self._root)
        for name, info in self._fs.find(self._root, detail=True).items():
            plain = info.get("type") in ("file", "link") and info.get("size") is not None
            yield str(name)[len(self._root) + 1 :], int(info["size"]) if plain else None, None

    def _read(self, paths: list[str]) -> Iterator[Piece]:
        paths = sorted(paths)
        if isinstance(self._fs, LocalFileSystem):
            yield from map(self._piece, paths)
            return
        with ThreadPoolExecutor(_READS_IN_FLIGHT) as pool:  # each is a request to an object store
            waiting: deque[Future[Piece]] = deque()
            for path in paths:
                waiting.append(pool.submit(self._piece, path))
                if len(waiting) == _READS_IN_FLIGHT:
                    yield waiting.popleft().result()
            for left in waiting:
                yield left.result()

    def _piece(self, path: str) -> Piece:
        declared = self._listed()[path]
        try:
            # One byte more than declared: a file that grew since is not read whole.
            with self._fs.open(f"{self._root}/{path}", "rb") as file:
                body = bytes(file.read(declared + 1))
        except FileNotFoundError:
            return Piece(path, problem="gone", detail="is not there any more")
        except OSError as error:
            return Piece(path, problem="damaged", detail=f"cannot be read: {error.strerror or type(error).__name__}")
        if len(body) != declared:
            return Piece(path, problem="damaged", detail="changed while it was read")
        return Piece(path, body)


# What zipfile raises for a member it cannot unpack: damaged, encrypted, or packed in a way it does not know.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)
# Of the others zipfile unpacks whole blocks, whatever size is declared: kilobytes become gigabytes.
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_REGULAR = 0o100000
_FILE_TYPE = 0o170000


class _Zip(Archive):
    def __init__(self, name: str, uri: str, file: BinaryIO) -> None:
        super().__init__(name)
        try:
            self._zip = zipfile.ZipFile(file)
        except _ZIP_ERRORS as error:
            raise ArchiveError(f"{uri}: is no zip that can be read ({error}); fetch it again") from error

    def _scan(self) -> Iterator[tuple[str, int | None, zipfile.ZipInfo]]:
        for info in self._zip.infolist():
            if info.is_dir():
                continue
            kind = info.external_attr >> 16 & _FILE_TYPE
            yield info.filename, info.file_size if kind in (0, _REGULAR) else None, info

    def _read(self, paths: list[str]) -> Iterator[Piece]:
        for path in sorted(paths, key=lambda path: self._places[path].header_offset):
            info: zipfile.ZipInfo = self._places[path]
            if info.compress_type not in _ZIP_METHODS:
                words = f"is packed by zip method {info.compress_type}; only stored and deflated members are read"
                yield Piece(path, problem="damaged", detail=words)
                continue
            try:
                with self._zip.open(info) as file:
                    body = file.read(info.file_size + 1)  # zipfile itself stops at the declared size
            except _ZIP_ERRORS as error:
                yield Piece(path, problem="damaged", detail=f"{type(error).__name__}: {error}")
                continue
            if len(body) != info.file_size:
                yield Piece(path, problem="damaged", detail="is shorter than declared")
            else:
                yield Piece(path, body)

"""The commit store: what is done, what it points at, and the only two ways it changes: a commit, a removal."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pydantic import ValidationError

from manifests.manifest import CommitName, Manifest
from manifests.records import Records, record, remember, remembered, table_of
from manifests.store import AlreadyThereError, Store, StoreError

_READERS = 16
_KEPT_BYTES = 4 << 20
"""Manifests that were read last are kept up to this size of their files; as objects they are ten times that."""
_READ_AT_ONCE = 512
_MUCH_BYTES = 512 << 10
"""Size of the manifests that had to be read, or were made, from which on it pays to remember what they say."""


@dataclass(slots=True)
class StepCommits:
    """All commits of one step, from one LIST; manifests are read when asked for.

    Attributes:
        step: ``<stage>.<step>``.
        files: Name of a commit's file to its size in bytes and its stamp.
    """

    step: str
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    _names: dict[str, dict[str, list[CommitName]]] | None = None

    @property
    def names(self) -> dict[str, dict[str, list[CommitName]]]:
        """Commit names by partition, then by fingerprint's first 16 digits, passes in order."""
        if self._names is None:
            self._names = {}
            for name in self.all():
                self._names.setdefault(name.partition, {}).setdefault(name.fp16, []).append(name)
        return self._names

    def passes(self, partition: str, fingerprint: str) -> list[CommitName]:
        """Return the passes of one partition under one fingerprint, oldest first."""
        return self.names.get(partition, {}).get(fingerprint[:16], [])

    def all(self) -> Iterator[CommitName]:
        """Yield every commit of the step, by partition, fingerprint and pass."""
        for file in sorted(self.files):
            if name := CommitName.parse(self.step, file):
                yield name


class CommitStore:
    """Reads, creates and removes manifests. Only the driver has one.

    What it made and removed itself it knows, whatever a listing says that lags behind.

    Args:
        store: The workdir.
        remembers: Whether what many commits say may go to the workdir's cache.

    Attributes:
        renewals: How often commits were listed anew, or removed: what was read before may be another by now.
    """

    def __init__(self, store: Store, *, remembers: bool = True) -> None:
        self._store = store
        self._remembers = remembers
        self._lock = threading.Lock()
        self._read: OrderedDict[str, tuple[Manifest, int]] = OrderedDict()
        self._read_bytes = 0
        self._made: dict[str, dict[str, tuple[int, str]]] = {}
        self._removed: set[str] = set()
        self.renewals = 0

    def step(self, step: str) -> StepCommits:
        """List one step's commits."""
        commits, start = StepCommits(step), len(f"commits/{step}/")
        for entry in self._store.scan(f"commits/{step}"):
            file = entry.path[start:]
            if CommitName.is_one(file) and not self._is_gone(entry.path):
                commits.files[file] = (entry.bytes, entry.stamp)
        for file, stamped in self._made.get(step, {}).items():
            if file not in commits.files and self._store.size(f"commits/{step}/{file}") is not None:
                commits.files[file] = stamped
        self._drop_unless(step, commits.files)
        self.renewals += 1
        return commits

    def steps(self) -> list[str]:
        """Return the names of all steps that have commits."""
        return self._store.folders("commits")

    def records(self, commits: StepCommits, columns: Sequence[str] = ()) -> Records:
        """Return what planning needs of all commits of a step; manifests are read where the cache does not know them.

        Args:
            commits: The commits.
            columns: The columns wanted; empty: all.

        Raises:
            CorruptCommitError: If one that is read is no manifest of this format.
        """
        known = remembered(self._store, commits.step, commits.files, columns)
        names = set(known.column("name").to_pylist()) if known is not None else set()
        unknown = sorted(commits.files.keys() - names)
        unknown_bytes = sum(commits.files[file][0] for file in unknown)
        whole = columns if unknown_bytes < _MUCH_BYTES else ()
        if whole != columns:  # much to read: what it says goes to the cache, so all of it is wanted
            known = remembered(self._store, commits.step, commits.files)
        tables = [] if known is None else [known]
        tables += [table_of(rows, whole) for rows in self._rows(commits, unknown)]
        found = Records(commits.step, tables, whole)
        found.new_bytes = unknown_bytes
        self.remember(found)
        return found

    def remember(self, records: Records) -> None:
        """Keep what commits say in the workdir's cache, if there is much of it that the cache does not know."""
        if self._remembers and records.new_bytes >= _MUCH_BYTES and records.whole:
            with contextlib.suppress(OSError, StoreError):  # a cache: who may only read, reads the manifests
                remember(self._store, records)

    def added(self, records: Records, name: CommitName, manifest: Manifest) -> int:
        """Add a commit that this store made to the records of its step; returns its row."""
        size, stamp = self._made[name.step][name.file]
        return records.add(record(manifest, name.file, size, stamp))

    def read(self, name: CommitName) -> Manifest:
        """Read a manifest.

        Raises:
            CorruptCommitError: If it is no manifest of this format.
        """
        with self._lock:
            if name.path in self._read:
                self._read.move_to_end(name.path)
                return self._read[name.path][0]
        data = self._store.read(name.path)
        manifest = _parsed(name.path, data)
        self._keep(name.path, manifest, len(data))
        return manifest

    def _read_once(self, name: CommitName) -> Manifest:
        return _parsed(name.path, self._store.read(name.path))

    def read_all(self, names: Sequence[CommitName]) -> list[Manifest]:
        """Read manifests, several at a time where each is a request."""
        return list(self.stream(names))

    def stream(self, names: Iterable[CommitName], *, once: bool = False) -> Iterator[Manifest]:
        """Yield manifests in the order of their names, read some hundred at a time; ``once``: none is kept."""
        read = self._read_once if once else self.read
        if self._store.local_path("") is not None:
            yield from map(read, names)
            return
        rest = iter(names)
        with ThreadPoolExecutor(_READERS) as pool:
            while some := list(islice(rest, _READ_AT_ONCE)):
                yield from pool.map(read, some)

    def commit(self, manifest: Manifest, number: int) -> CommitName:
        """Create a manifest as pass ``number``.

        A manifest with the same bytes that is there already (a retried request) counts as created.

        Raises:
            AlreadyThereError: If another manifest has this name.
        """
        name, data = _name(manifest, number), manifest.to_bytes()
        try:
            self._store.create(name.path, data)
        except AlreadyThereError:
            if self._store.read(name.path) != data:
                raise
        self._note(name, manifest, data)
        return name

    def adopt(self, manifest: Manifest, number: int) -> tuple[Manifest, CommitName]:
        """Return the manifest that stands where ``manifest`` was to be pass ``number``; it is known from now on."""
        name = _name(manifest, number)
        data = self._store.read(name.path)
        standing = _parsed(name.path, data)
        self._note(name, standing, data)
        return standing, name

    def remove(self, name: CommitName) -> None:
        """Remove a commit; its data files stay until ``gc``."""
        with self._lock:
            self._read_bytes -= self._read.pop(name.path, (None, 0))[1]
        self._made.get(name.step, {}).pop(name.file, None)
        self._store.remove(name.path)
        self._removed.add(name.path)
        self.renewals += 1

    def _is_gone(self, path: str) -> bool:
        """Whether a listed commit was removed here, and not made anew by another since."""
        return path in self._removed and self._store.size(path) is None

    def _drop_unless(self, step: str, files: Mapping[str, tuple[int, str]]) -> None:
        """Drop what was read of a step's commits: another process may have made one anew under its name since.

        What this process made is kept, where a listing shows it as it was made.
        """
        made, folder = self._made.get(step, {}), f"commits/{step}/"
        with self._lock:
            for path in [path for path in self._read if path.startswith(folder)]:
                file = path.removeprefix(folder)
                if file not in made or files.get(file) != made[file]:
                    self._read_bytes -= self._read.pop(path)[1]

    def readable(self, names: Iterable[CommitName]) -> Iterator[tuple[CommitName, Manifest]]:
        """Yield commits as they stand now, none from memory, without those that are gone by now."""
        rest = iter(names)
        while some := list(islice(rest, _READ_AT_ONCE)):
            by_file = {name.file: name for name in some}
            for file, manifest in self._readable(some):
                yield by_file[file], manifest

    def _rows(self, commits: StepCommits, files: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        """Read manifests by the names of their files; yields their rows, some hundred at a time."""
        rest = iter(files)
        while some := list(islice(rest, _READ_AT_ONCE)):
            names = [name for file in some if (name := CommitName.parse(commits.step, file))]
            yield [record(m, m_file, *commits.files[m_file]) for m_file, m in self._readable(names)]

    def _readable(self, names: Sequence[CommitName]) -> Iterator[tuple[str, Manifest]]:
        """Yield manifests with the names of their files, without those that a lagging listing shows and are gone."""
        try:
            yield from zip([n.file for n in names], list(self.stream(names, once=True)), strict=True)
        except FileNotFoundError:
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    yield name.file, self._read_once(name)

    def _note(self, name: CommitName, manifest: Manifest, data: bytes) -> None:
        self._removed.discard(name.path)
        self._made.setdefault(name.step, {})[name.file] = (len(data), self._store.stamp_of(name.path, data))
        self._keep(name.path, manifest, len(data))

    def _keep(self, path: str, manifest: Manifest, size: int) -> None:
        with self._lock:
            self._read_bytes += size - self._read.pop(path, (None, 0))[1]
            self._read[path] = (manifest, size)
            while self._read_bytes > _KEPT_BYTES and len(self._read) > 1:
                self._read_bytes -= self._read.popitem(last=False)[1][1]


class CorruptCommitError(Exception):
    """A manifest that cannot be read."""


def _name(manifest: Manifest, number: int) -> CommitName:
    return CommitName(manifest.step, manifest.partition, manifest.fingerprint[:16], number)


def _parsed(path: str, data: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise CorruptCommitError(
            f"{path} is no manifest of this format ({error.error_count()} errors); "
            "remove the file and run again: its partition is made anew"
        ) from error

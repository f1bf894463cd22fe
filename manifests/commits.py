"""The commit store: what is done, what it points at, and the only two ways it changes: a commit, a removal."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pydantic import ValidationError

from manifests.manifest import CommitName, Manifest
from manifests.store import AlreadyThereError, Store

_READERS = 16


class CorruptCommitError(Exception):
    """A manifest that cannot be read."""


@dataclass(slots=True)
class StepCommits:
    """All commits of one step, from one LIST; manifests are read when asked for.

    Attributes:
        step: ``<stage>.<step>``.
        names: Commit names by partition, then by fingerprint's first 16 digits, passes in order.
    """

    step: str
    names: dict[str, dict[str, list[CommitName]]] = field(default_factory=dict)

    def passes(self, partition: str, fingerprint: str) -> list[CommitName]:
        """Return the passes of one partition under one fingerprint, oldest first."""
        return self.names.get(partition, {}).get(fingerprint[:16], [])

    def all(self) -> Iterator[CommitName]:
        """Yield every commit of the step, by partition, fingerprint and pass."""
        for by_fingerprint in self.names.values():
            for passes in by_fingerprint.values():
                yield from passes


class CommitStore:
    """Reads, creates and removes manifests. Only the driver has one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[str, Manifest] = {}

    def step(self, step: str) -> StepCommits:
        """List one step's commits."""
        commits = StepCommits(step)
        for entry in self._store.find(f"commits/{step}"):
            name = CommitName.parse(step, entry.path.rsplit("/", 1)[-1])
            if name:
                commits.names.setdefault(name.partition, {}).setdefault(name.fp16, []).append(name)
        return commits

    def steps(self) -> list[str]:
        """Return the names of all steps that have commits."""
        return sorted({entry.path.split("/")[1] for entry in self._store.find("commits")})

    def read(self, name: CommitName) -> Manifest:
        """Read a manifest.

        Raises:
            CorruptCommitError: If it is no manifest of this format.
        """
        known = self._read.get(name.path)
        if known is None:
            try:
                known = Manifest.model_validate_json(self._store.read(name.path))
            except ValidationError as error:
                raise CorruptCommitError(
                    f"{name.path} is no manifest of this format ({error.error_count()} errors); "
                    "remove the file and run again: its partition is made anew"
                ) from error
            self._read[name.path] = known
        return known

    def read_all(self, names: list[CommitName]) -> list[Manifest]:
        """Read manifests, several at a time: on an object store each is a request."""
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self.read, names))

    def commit(self, manifest: Manifest, number: int) -> CommitName:
        """Create a manifest as pass ``number``.

        A manifest with the same bytes that is there already (a retried request) counts as created.

        Raises:
            AlreadyThereError: If another manifest has this name.
        """
        name = CommitName(manifest.step, manifest.partition, manifest.fingerprint[:16], number)
        data = manifest.to_bytes()
        try:
            self._store.create(name.path, data)
        except AlreadyThereError:
            if self._store.read(name.path) != data:
                raise
        self._read[name.path] = manifest
        return name

    def remove(self, name: CommitName) -> None:
        """Remove a commit; its data files stay until ``gc``."""
        self._read.pop(name.path, None)
        self._store.remove(name.path)

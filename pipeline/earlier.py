"""Earlier commits of a step whose rows other partitions may hold now: each is read once, whoever asks for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

from manifests.canonical import JsonValue
from manifests.commits import CommitStore
from manifests.manifest import CommitName, Manifest
from manifests.records import Records, layout_digest, settings_digest
from pipeline.upstream import layout_of
from pipeline.worker import Layout, PriorFiles
from stages.places import archive_source
from stages.step import Step

NameOf = Callable[[int], CommitName]


@dataclass(frozen=True, slots=True)
class EarlierCommit:
    """An earlier commit, as a task gets it; ``files.retry_failed`` is left to who hands it out."""

    name: CommitName
    row_fingerprint: str
    files: PriorFiles


class Earlier:
    """The newest pass of every fingerprint of every partition, found by whose rows it may hold.

    Args:
        step: The step.
        commits: All commits.
        records: What the step's commits say.
        layout: The digest of how rows are cut into partitions now.
        name: Returns the name of a commit by its row in the records.
    """

    def __init__(self, step: Step, commits: CommitStore, records: Records, layout: str, name: NameOf) -> None:
        self._step = step
        self._commits = commits
        self._name = name
        files, layouts = records.values("name"), records.values("layout")
        self._row_fingerprints = records.values("row_fingerprint")
        self._read: dict[int, EarlierCommit] = {}
        self._renewals = commits.renewals
        self._layouts: dict[str, Layout] = {}
        self._settings: dict[str, dict[str, JsonValue]] = {}
        newest: dict[str, int] = {}
        for row, file in enumerate(files):
            other = newest.get(file[:-10])
            if other is None or files[other] <= file:
                newest[file[:-10]] = row
        self._own: dict[str, list[int]] = {}
        self._of_archive: dict[str | None, list[int]] = {}
        self._elsewhere: list[int] = []
        for key, row in newest.items():
            partition = key.rpartition("@")[0]
            self._own.setdefault(partition, []).append(row)
            archive = archive_source(partition)
            if archive is not None:
                self._of_archive.setdefault(archive, []).append(row)
            if layouts[row] != layout:
                self._elsewhere.append(row)

    def commits(self, partition: str, row_fingerprint: str) -> list[EarlierCommit]:
        """Return the commits of equal row fingerprint that may hold a partition's rows.

        Its own; of parts of the same archive, which may have been cut anew; of any partition cut another way. Those of
        others are kept: every partition of a step may ask for the same ones.
        """
        if self._renewals != self._commits.renewals:  # damaged files were looked for: what pointed at them is gone
            self._renewals = self._commits.renewals
            self._read.clear()
        archive = archive_source(partition)
        others = self._elsewhere if archive is None else self._of_archive.get(archive, [])
        shared = [row for row in others if self._row_fingerprints[row] == row_fingerprint]
        unread = [row for row in shared if row not in self._read]
        if unread:
            self._read.update(self._found(unread))
        own = [row for row in self._own.get(partition, []) if self._row_fingerprints[row] == row_fingerprint]
        mine = [self.read(self._name(row)) for row in own if row not in self._read]
        found = [*mine, *map(self._read.get, dict.fromkeys([*own, *shared]))]
        return [commit for commit in found if commit and commit.row_fingerprint == row_fingerprint]

    def read(self, name: CommitName) -> EarlierCommit | None:
        """Return one commit; None if it was undone."""
        with contextlib.suppress(FileNotFoundError):
            return self._told(name, self._commits.read(name))
        return None

    def _found(self, rows: Collection[int]) -> dict[int, EarlierCommit]:
        """Read commits, several at a time where each is a request; without those that are gone."""
        names = {row: self._name(row) for row in rows}
        try:
            manifests = self._commits.stream(names.values(), once=True)
            return {row: self._told(name, m) for (row, name), m in zip(names.items(), manifests, strict=True)}
        except FileNotFoundError:
            found = {row: self.read(name) for row, name in names.items()}
            return {row: commit for row, commit in found.items() if commit}

    def _told(self, name: CommitName, manifest: Manifest) -> EarlierCommit:
        """Return what a task is told of a commit; equal layouts and settings are one object."""
        facts, recipe = manifest.facts, manifest.parts.recipe
        tables = set(self._step.outputs)
        files = PriorFiles(
            partition=manifest.partition,
            layout=self._layouts.setdefault(layout_digest(facts), layout_of(facts)),
            settings=self._settings.setdefault(settings_digest(recipe, 0), recipe),
            tables={o.name: o.path for o in manifest.outputs if o.name in tables and o.path.endswith(".parquet")},
            ledger=manifest.ledger.path,
            retry_failed=False,
        )
        return EarlierCommit(name, manifest.row_fingerprint, files)

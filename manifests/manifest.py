"""The manifest: one small JSON per (step, partition, fingerprint, pass). Present and equal is done, nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from manifests.canonical import JsonValue, canonical_json
from manifests.fingerprint import Parts
from manifests.ledger import RowCounts

FORMAT = 1
_NAME = re.compile(r"(?P<partition>.+)@(?P<fp16>[0-9a-f]{16})\.(?P<number>[0-9]{4})\.json")


class Receipt(BaseModel):
    """One file a commit points at.

    Attributes:
        name: Output name, e.g. ``inspected``.
        partition: The downstream partition it is for (reduce steps), else None.
        path: Path below the workdir.
        sha256: Of the file.
        rows_digest: Of the rows; the file's sha256 for what is no table.
        bytes: Size of the file.
        rows: Rows or members.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    partition: str | None = None
    path: str
    sha256: str
    rows_digest: str
    bytes: int
    rows: int


class LedgerReceipt(BaseModel):
    """The ledger file of a commit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str
    bytes: int
    rows: int


class Manifest(BaseModel):
    """A commit: the only pointer to its data files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    step: str
    partition: str
    fingerprint: str
    row_fingerprint: str
    parts: Parts
    open: bool
    outputs: list[Receipt]
    ledger: LedgerReceipt
    rows: dict[str, RowCounts]
    facts: dict[str, JsonValue]

    def to_bytes(self) -> bytes:
        """Return the manifest as stored: UTF-8 JSON, sorted keys, trailing newline."""
        return canonical_json(self.model_dump(mode="json", by_alias=True)) + b"\n"

    def output(self, name: str, partition: str | None = None) -> Receipt | None:
        """Return the first output of that name (and downstream partition), or None."""
        return next((o for o in self.outputs if o.name == name and o.partition == partition), None)


@dataclass(frozen=True, slots=True)
class CommitName:
    """The name of a commit file, which tells all that planning needs from one LIST."""

    step: str
    partition: str
    fp16: str
    number: int

    @property
    def path(self) -> str:
        """Path below the workdir."""
        return f"commits/{self.step}/{self.file}"

    @property
    def file(self) -> str:
        """Name of the file in the step's folder."""
        return f"{self.partition}@{self.fp16}.{self.number:04d}.json"

    @staticmethod
    def is_one(file: str) -> bool:
        """Whether a file is named as a commit is."""
        return _NAME.fullmatch(file) is not None

    @classmethod
    def parse(cls, step: str, name: str) -> CommitName | None:
        """Return the commit that a file name stands for, or None for a foreign file."""
        found = _NAME.fullmatch(name)
        return cls(step, found["partition"], found["fp16"], int(found["number"])) if found else None

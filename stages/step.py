"""What a stage author writes: a `Step` with one pure method, and what that method is handed and hands back.

A map step's ``process`` sees one partition, a reduce step's all partitions of its input. It never lists files, never
reads a manifest, never asks for time or randomness: what it needs is in the `Task` or read through `Tables`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal, Protocol

import polars as pl

from manifests.canonical import JsonValue
from manifests.recipe import Settings
from manifests.store import Store


@dataclass(frozen=True, slots=True)
class Input:
    """A declared upstream output: a map step sees that of its own partition, a reduce step those of all.

    Web partitions (``web-*``) are the lane pub11, parts of archives the lane rs3.

    Attributes:
        step: ``<stage>.<step>`` that makes it.
        table: Its output name.
        lane: The one lane whose partitions are seen; empty: both.
        rows: Whether its rows are rows in, beside those of the first input.
        places: Whether the step copies its located columns: it is done anew when bytes were moved.
    """

    step: str
    table: str
    lane: Literal["", "pub11", "rs3"] = ""
    rows: bool = False
    places: bool = False


def _nobody_watches(values: Mapping[str, JsonValue]) -> None:
    del values


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of work.

    Attributes:
        step: ``<stage>.<step>``.
        partition: Its name; ``all`` for reduce steps.
        settings: The recipe keys that the step declared.
        params: What the planner knows of this partition, e.g. a metadata file and its row groups; ``batch`` for steps
            that are batched: what the setting says, or less after running out of memory.
        final: Whether this is the last round: what is deferred now has failed.
        scratch: An empty local folder of its own, removed afterwards.
        post: Tells whoever watches how the work goes: small values, each call replacing the last; they end in the run's
            own folder and never in a result. Called every few seconds at most.
    """

    step: str
    partition: str
    settings: Settings
    params: Mapping[str, JsonValue]
    final: bool
    scratch: Path
    post: Callable[[Mapping[str, JsonValue]], None] = _nobody_watches

    def data_path(self, name: str, sha256: str, suffix: str) -> str:
        """Return where a data file of this task is stored: named by content, never overwritten."""
        return f"data/{self.step}/{self.partition}/{name}-{sha256[:12]}.{suffix}"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An upstream file that is no table: where it is and what was recorded of it."""

    partition: str
    path: str
    sha256: str
    bytes: int
    rows: int


class Tables(Protocol):
    """Read access to a task's declared inputs."""

    @property
    def store(self) -> Store:
        """The workdir, for ranges of stored images and for metadata files."""

    def frame(self, step: str, table: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return the rows of an input, all its partitions in order of name; only ``columns`` are read if given."""

    def partitions(self, step: str, table: str, columns: Sequence[str] | None = None) -> list[tuple[str, pl.DataFrame]]:
        """Return the rows of an input by partition, in order of name; only ``columns`` are read if given."""

    def part(self, step: str, table: str, partition: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return the rows of one partition of an input, none if it has none; only ``columns`` are read if given."""

    def files(self, step: str, output: str) -> list[StoredFile]:
        """Return the files of an input, by partition in order of name."""


class PriorCommit(Protocol):
    """One earlier commit of the same step."""

    @property
    def settings(self) -> Settings:
        """The settings it was made under."""

    def frame(self, table: str) -> pl.DataFrame:
        """Return the rows of one of its outputs."""

    def ledger(self) -> pl.DataFrame:
        """Return its ledger rows that may be taken over: never deferred ones, and no failed ones in a retry."""


class Prior(Protocol):
    """What this step did before under an equal row fingerprint, the current commit first."""

    def commits(self, urls: Collection[str]) -> list[PriorCommit]:
        """Return the earlier commits that may hold rows of ``urls``; tables are read when asked for.

        Those of this partition come first, then those of partitions that were cut another way and held the urls.
        """


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a task: a table, or a file.

    Attributes:
        name: A name the step declares in ``outputs``.
        frame: The rows, of the declared table.
        partition: The downstream partition it is for, None if for all.
        file: A file in scratch, for what is no table.
        path: Where the file is stored; under ``release/`` it replaces what is there.
        rows: Members of the file.
        sha256: Of the file, hex, where the step has it already; it is believed.
    """

    name: str
    frame: pl.DataFrame | None = None
    partition: str | None = None
    file: Path | None = None
    path: str = ""
    rows: int = 0
    sha256: str = ""


@dataclass(slots=True)
class Result:
    """What ``process`` hands back; the worker stores it and the driver checks that the books close.

    Attributes:
        outputs: Tables and files.
        ledger: The rows that left.
        seen: Rows in, per source, counted on the input.
        kept: Rows kept, per source, counted on the output.
        counted: Rows that left without a ledger row (reasons that are counted only), per source and reason.
        facts: Small values for reports.
        pointed: Paths of earlier files of this step that the outputs still point into.
    """

    outputs: list[Output]
    ledger: pl.DataFrame
    seen: dict[str, int]
    kept: dict[str, int]
    counted: dict[str, dict[str, int]] = field(default_factory=dict)
    facts: dict[str, JsonValue] = field(default_factory=dict)
    pointed: list[str] = field(default_factory=list)


class Step(ABC):
    """One step of a stage.

    Attributes:
        name: ``<stage>.<step>``.
        kind: ``map`` or ``reduce``.
        VERSION: Raised when the rows it makes change; part of the fingerprint.
        reads: Recipe keys its rows depend on, dotted; part of the fingerprint.
        asks: Recipe keys it needs that its rows do not depend on (network, scratch); not in the fingerprint.
        inputs: Upstream outputs it reads; the rows of the first are the rows in that the books count.
        outputs: Names of what it makes.
        keeps: The output that holds the rows kept, one row each.
        schemas: Output to declared table, where the names differ.
        carries: Whether rows done before are taken over (`Prior`).
        recording: Whether rows are what the world answered, so that its code is no part of the row fingerprint.
        releases: Whether it writes into ``release/``.
        lanes: Lanes whose partitions a map step works on.
        batched: The recipe key of its batch size; running out of memory halves it, as another numeric profile.
    """

    name: ClassVar[str]
    kind: ClassVar[Literal["map", "reduce"]]
    VERSION: ClassVar[int]
    reads: ClassVar[tuple[str, ...]] = ()
    asks: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[tuple[Input, ...]] = ()
    outputs: ClassVar[tuple[str, ...]] = ()
    keeps: ClassVar[str] = ""
    schemas: ClassVar[Mapping[str, str]] = MappingProxyType({})
    carries: ClassVar[bool] = False
    recording: ClassVar[bool] = False
    releases: ClassVar[bool] = False
    lanes: ClassVar[tuple[Literal["pub11", "rs3"], ...]] = ("pub11", "rs3")
    batched: ClassVar[str] = ""

    @abstractmethod
    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Do the work of one partition."""

    @property
    def rows_in(self) -> tuple[Input, ...]:
        """The inputs whose rows are the rows in."""
        return tuple(given for place, given in enumerate(self.inputs) if given.rows or place == 0)

    def profile(self, settings: Settings) -> dict[str, str]:
        """Return what decoded or computed numbers depend on: codec versions, device kind, dtype, batch."""
        del settings
        return {}

    def models(self, settings: Settings) -> dict[str, str]:
        """Return the models it runs, by name, and the digest of each one's description and weights.

        Raises:
            ModelMissingError: If one is not at hand: names the recipe key and what provides it.
        """
        del settings
        return {}

    def pins(self, settings: Settings, params: Mapping[str, JsonValue]) -> dict[str, str]:
        """Return pinned inputs (lexicon, source description) and their content digests."""
        del settings, params
        return {}


class ModelMissingError(Exception):
    """A model or a language resource that is not at hand: one line that says which setting, and what provides it."""


class OutOfMemoryError(Exception):
    """A model ran out of memory on its device: the partition may be done at half the batch."""


class CorruptFileError(Exception):
    """A stored file whose bytes are not what was recorded.

    Attributes:
        path: Path below the workdir.
    """

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(path, detail)
        self.path = path
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}"

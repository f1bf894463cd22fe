"""Runs one task: reads its inputs, calls the step, stores what came out. Never commits, never lists."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from manifests.canonical import JsonValue
from manifests.fingerprint import Parts
from manifests.ledger import to_counts
from manifests.manifest import LedgerReceipt, Receipt
from manifests.recipe import Settings
from manifests.schemas import LEDGER, TABLES, TableSpec
from manifests.store import Store
from manifests.tables import empty_frame, file_sha256, read_table, write_table
from pipeline.line import step_named
from pipeline.poster import Poster, period_s
from stages.filter.rows import MetadataError
from stages.places import archive_source, partitions_of
from stages.step import CorruptFileError, ModelMissingError, Output, PriorCommit, Step, StoredFile, Task


@dataclass(frozen=True, slots=True)
class InputFile:
    """One upstream file that a task may read: a table, or a file that is none."""

    step: str
    table: str
    file: StoredFile


@dataclass(frozen=True, slots=True)
class Layout:
    """How the rows of the web were cut into partitions when a commit was made."""

    buckets: int
    spread: frozenset[str]

    @property
    def key(self) -> str:
        """Equal for equal layouts."""
        return f"{self.buckets}:{','.join(sorted(self.spread))}"


@dataclass(frozen=True, slots=True)
class PriorFiles:
    """The files of one earlier commit of the same step."""

    partition: str
    layout: Layout
    settings: dict[str, JsonValue]
    tables: dict[str, str]
    ledger: str
    retry_failed: bool


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as sent to a worker: plain values only.

    ``parts`` is what the driver says its result depends on; ``live`` the file it tells how it goes in, in the run's own
    folder, and ``attempt`` a number that no other attempt of this run has.
    """

    step: str
    partition: str
    settings: dict[str, JsonValue]
    params: dict[str, JsonValue]
    final: bool
    inputs: list[InputFile] = field(default_factory=list)
    prior: list[PriorFiles] = field(default_factory=list)
    scratch: str = ""
    parts: Parts | None = None
    live: str = ""
    attempt: int = 0

    @property
    def name(self) -> str:
        """``<step>/<partition>``, as people see it."""
        return f"{self.step}/{self.partition}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a worker returns for a task that worked.

    ``telemetry`` is what it told last, ``cpu_s`` the CPU seconds of this process and its children meanwhile. Neither
    goes into a commit.
    """

    outputs: list[Receipt]
    ledger: LedgerReceipt
    seen: dict[str, int]
    kept: dict[str, int]
    left: list[tuple[str, str, str, int]]
    counted: dict[str, dict[str, int]]
    facts: dict[str, JsonValue]
    pointed: list[str]
    telemetry: dict[str, JsonValue] = field(default_factory=dict)
    cpu_s: float = field(default=0.0, compare=False)


def run_task(store: Store, spec: TaskSpec) -> Outcome:
    """Run one task to its receipts; whatever the step raises goes up.

    Raises:
        MetadataError: If planning saw that what the task is to read cannot be read.
        ModelMissingError: If this worker's models, pinned inputs or library versions are not the driver's.
    """
    if problem := spec.params.get("problem"):  # planning saw it, and the partition fails as any other does
        raise MetadataError(str(problem))
    step, begun_s = step_named(spec.step), _cpu_s()
    _check_surroundings(step, spec)
    with (
        tempfile.TemporaryDirectory(prefix="rs5m-", dir=spec.scratch or None) as folder,
        Poster(store, spec.live, spec.attempt, period_s(store)) as poster,
    ):
        work, out = Path(folder, "work"), Path(folder, "out")
        work.mkdir()
        out.mkdir()
        task = Task(spec.step, spec.partition, Settings(spec.settings), spec.params, spec.final, work, poster.post)
        result = step.process(task, _Tables(store, spec.inputs), _Prior(store, step, spec.partition, spec.prior))
        receipts = [_stored(store, step, task, output, out) for output in result.outputs]
        written = write_table(LEDGER, result.ledger, out / "ledger.parquet")
        path = f"ledger/{spec.step}/{spec.partition}-{written.sha256[:12]}.parquet"
        store.put_once(out / "ledger.parquet", path, written.bytes)
    return Outcome(
        outputs=receipts,
        ledger=LedgerReceipt(path=path, sha256=written.sha256, bytes=written.bytes, rows=written.rows),
        seen=result.seen,
        kept=result.kept,
        left=to_counts(result.ledger),
        counted=result.counted,
        facts=result.facts,
        pointed=result.pointed,
        telemetry=poster.last,
        cpu_s=_cpu_s() - begun_s,
    )


def _cpu_s() -> float:
    """Return the CPU seconds of this process and of its children, those that still live among them."""
    ticks, children = 0, Path("/proc/self/task").glob("*/children")
    for child in (pid for file in children for pid in _words(file)):
        ticks += sum(int(word) for word in _words(Path("/proc", child, "stat"), after=")")[11:13])
    return sum(os.times()[:4]) + ticks / os.sysconf("SC_CLK_TCK")


def _words(file: Path, after: str = "") -> list[str]:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # a child or a thread that ended meanwhile
        return []
    return (text.rpartition(after)[2] if after else text).split()


def _check_surroundings(step: Step, spec: TaskSpec) -> None:
    """Refuse to make rows under a fingerprint that another machine's models or libraries would stand behind."""
    if spec.parts is None:
        return
    settings = Settings(spec.settings)
    here = {
        "models": step.models(settings),
        "pins": step.pins(settings, spec.params),
        "profile": {**step.profile(settings), **_batch_of(step, spec)},
    }
    for part, values in here.items():
        planned: dict[str, str] = getattr(spec.parts, part)
        if differ := sorted(name for name in {*planned, *values} if planned.get(name) != values.get(name)):
            name = differ[0]
            raise ModelMissingError(
                f"{spec.name}: this worker's {part} differ from the driver's: {name} is {values.get(name)!r} here and "
                f"{planned.get(name)!r} there; give all machines the same files and versions"
            )


def _batch_of(step: Step, spec: TaskSpec) -> dict[str, str]:
    return {"batch": str(spec.params["batch"])} if step.batched else {}


def _stored(store: Store, step: Step, task: Task, output: Output, out: Path) -> Receipt:
    if output.frame is None:
        return _stored_file(store, output)
    local = out / "table.parquet"
    written = write_table(table_of(step, output.name), output.frame, local)
    path = output.path or task.data_path(output.name, written.sha256, "parquet")
    if output.path:
        store.move(local, path)
    else:
        store.put_once(local, path, written.bytes)
    return Receipt(
        name=output.name,
        partition=output.partition,
        path=path,
        sha256=written.sha256,
        rows_digest=written.rows_digest,
        bytes=written.bytes,
        rows=written.rows,
    )


def _stored_file(store: Store, output: Output) -> Receipt:
    if output.file is None:
        raise ValueError(f"output {output.name} has neither rows nor a file")
    sha256, size = output.sha256 or file_sha256(output.file), output.file.stat().st_size
    if output.path.startswith("release/"):
        store.move(output.file, output.path)
    else:
        store.put_once(output.file, output.path, size)
    return Receipt(
        name=output.name,
        partition=output.partition,
        path=output.path,
        sha256=sha256,
        rows_digest=sha256[:32],
        bytes=size,
        rows=output.rows,
    )


def table_of(step: Step, output: str) -> TableSpec:
    """Return the declared table of a step's output."""
    return TABLES[step.schemas.get(output, output)]


class _Tables:
    def __init__(self, store: Store, inputs: list[InputFile]) -> None:
        self.store = store
        # By output and by partition of it: a reduce step asks for tens of thousands of partitions one by one.
        self._outputs: dict[tuple[str, str], list[StoredFile]] = {}
        self._parts: dict[tuple[str, str, str], list[StoredFile]] = {}
        for given in sorted(inputs, key=lambda given: given.file.partition):
            self._outputs.setdefault((given.step, given.table), []).append(given.file)
            self._parts.setdefault((given.step, given.table, given.file.partition), []).append(given.file)

    def frame(self, step: str, table: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        return self._joined(step, table, self.files(step, table), columns)

    def partitions(self, step: str, table: str, columns: Sequence[str] | None = None) -> list[tuple[str, pl.DataFrame]]:
        spec = table_of(step_named(step), table)
        return [(f.partition, read_stored(self.store, spec, f.path, columns)) for f in self.files(step, table)]

    def part(self, step: str, table: str, partition: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        return self._joined(step, table, self._parts.get((step, table, partition), []), columns)

    def files(self, step: str, output: str) -> list[StoredFile]:
        return list(self._outputs.get((step, output), []))

    def _joined(
        self, step: str, table: str, files: Sequence[StoredFile], columns: Sequence[str] | None
    ) -> pl.DataFrame:
        spec = table_of(step_named(step), table)
        if files:
            return pl.concat([read_stored(self.store, spec, file.path, columns) for file in files])
        empty = empty_frame(spec)
        return empty.select(columns) if columns is not None else empty


class _Prior:
    def __init__(self, store: Store, step: Step, partition: str, files: list[PriorFiles]) -> None:
        self._store = store
        self._step = step
        self._partition = partition
        self._files = files

    def commits(self, urls: Collection[str]) -> list[PriorCommit]:
        if archive_source(self._partition):  # parts of one archive, however it was cut
            return [_PriorCommit(self._store, self._step, f) for f in self._files]
        layouts = {f.layout.key: f.layout for f in self._files if f.partition != self._partition}
        held = {key: partitions_of(urls, layout.buckets, layout.spread) for key, layout in layouts.items()}
        wanted = [f for f in self._files if f.partition == self._partition or f.partition in held.get(f.layout.key, ())]
        return [_PriorCommit(self._store, self._step, f) for f in wanted]


class _PriorCommit:
    def __init__(self, store: Store, step: Step, files: PriorFiles) -> None:
        self._store = store
        self._step = step
        self._files = files

    @property
    def settings(self) -> Settings:
        return Settings(self._files.settings)

    def frame(self, table: str) -> pl.DataFrame:
        path = self._files.tables.get(table)
        spec = table_of(self._step, table)
        return read_stored(self._store, spec, path) if path else empty_frame(spec)

    def ledger(self) -> pl.DataFrame:
        rows = read_stored(self._store, LEDGER, self._files.ledger)
        return rows.filter(pl.col("class").is_in(["dropped"] if self._files.retry_failed else ["dropped", "failed"]))


def read_stored(store: Store, spec: TableSpec, path: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read a stored table, or some of its columns.

    Raises:
        CorruptFileError: If the file is not there, or no readable table.
        OSError: If this machine could not read it, which says nothing about the file.
    """
    try:
        with store.open(path) as file:
            return read_table(spec, file, columns)
    except FileNotFoundError as error:
        raise CorruptFileError(path, "is not there") from error
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise CorruptFileError(path, f"is no readable table: {error}") from error

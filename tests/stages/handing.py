"""What surrounds a step, in memory: tables, earlier commits, images in a local store; and the checks a worker makes."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from aiohttp import web

from manifests.ledger import RowCounts, close_books, ledger_frame, to_counts
from manifests.recipe import Recipe, Settings
from manifests.schemas import LEDGER, TABLES, TableSpec
from manifests.store import Store
from manifests.tables import empty_frame, file_sha256, rows_digest
from pipeline.line import LINE
from stages.images import Place
from stages.step import PriorCommit, Result, Step, StoredFile, Task
from stages.tars import TarWriter
from tests.stages.loopback import Loopback

_STEPS = {step.name: step for step in LINE}
_DEFAULTS = Recipe(name="test").flat()


def spec_of(step: str, output: str) -> TableSpec:
    """Return the declared table of a step's output."""
    return TABLES[_STEPS[step].schemas.get(output, output)]


def rows_of(table: str, *rows: Mapping[str, Any]) -> pl.DataFrame:
    """Return rows of a declared table; what a row does not say is null where it may be, else empty or zero."""
    spec = LEDGER if table == "ledger" else TABLES[table]
    fields = [(f.name, None if f.nullable else _blank(f.type)) for f in spec.schema]
    unknown = {name for row in rows for name in row} - set(spec.schema.names)
    if unknown:
        raise KeyError(f"table {table} has no {', '.join(sorted(unknown))}")
    return pl.DataFrame(
        {n: [row.get(n, blank) for row in rows] for n, blank in fields}, schema=empty_frame(spec).schema
    )


def _blank(kind: pa.DataType) -> Any:
    if pa.types.is_string(kind):
        return ""
    if pa.types.is_fixed_size_list(kind):
        return [0] * kind.list_size
    return [] if pa.types.is_list(kind) else 0


def settings_of(step: Step, changed: Mapping[str, Any] | None = None) -> Settings:
    """Return what the recipe's defaults, with some changed, give a step: the keys that it declares and no others."""
    changed = changed or {}
    undeclared = set(changed) - {*step.reads, *step.asks}
    if undeclared:
        raise KeyError(f"{step.name} does not declare {', '.join(sorted(undeclared))}")
    return Settings({key: changed.get(key, _DEFAULTS[key]) for key in (*step.reads, *step.asks)})


Parts = Mapping[str, pl.DataFrame]


class Handed:
    """Fake `Tables`: rows by (step, output), one frame or several by partition. Only what is handed can be asked for.

    Files of outputs that are no tables come as lists of `StoredFile`.
    """

    def __init__(self, store: Store, handed: Mapping[tuple[str, str], pl.DataFrame | Parts | list[StoredFile]]) -> None:
        self.store = store
        self._handed = handed

    def frame(self, step: str, table: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        parts = [frame for _, frame in self.partitions(step, table, columns)]
        empty = empty_frame(spec_of(step, table))
        return pl.concat(parts) if parts else empty.select(columns or empty.columns)

    def partitions(self, step: str, table: str, columns: Sequence[str] | None = None) -> list[tuple[str, pl.DataFrame]]:
        handed = self._handed[step, table]
        if isinstance(handed, list):
            raise TypeError(f"{step} {table} is files, not rows")
        parts = {"only": handed} if isinstance(handed, pl.DataFrame) else handed
        return [(name, part.select(columns or part.columns)) for name, part in sorted(parts.items())]

    def part(self, step: str, table: str, partition: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        parts = [frame for name, frame in self.partitions(step, table, columns) if name == partition]
        empty = empty_frame(spec_of(step, table))
        return pl.concat(parts) if parts else empty.select(columns or empty.columns)

    def files(self, step: str, output: str) -> list[StoredFile]:
        handed = self._handed[step, output]
        if isinstance(handed, list):
            return sorted(handed, key=lambda file: file.partition)
        return [StoredFile(name, "", "", 0, part.height) for name, part in self.partitions(step, output)]


@dataclass
class Earlier:
    """Fake `PriorCommit`; counts how often its rows were read."""

    settings: Settings
    tables: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    left: pl.DataFrame = field(default_factory=lambda: empty_frame(LEDGER))
    reads: int = 0

    def frame(self, table: str) -> pl.DataFrame:
        self.reads += 1
        return self.tables[table] if table in self.tables else empty_frame(TABLES[table])

    def ledger(self) -> pl.DataFrame:
        return self.left.filter(pl.col("class") != "deferred")


@dataclass
class Before:
    """Fake `Prior`: the commits it is given, the current one first."""

    earlier: Sequence[Earlier] = ()

    def commits(self, urls: Collection[str]) -> list[PriorCommit]:
        del urls
        return list(self.earlier)


NOTHING_BEFORE = Before()


@dataclass(frozen=True)
class Done:
    """A task that a step has done, after the checks that the worker and the driver make."""

    result: Result
    settings: Settings
    books: dict[str, RowCounts]

    def parts(self, output: str) -> dict[str | None, pl.DataFrame]:
        """Return the tables of one output by downstream partition."""
        return {o.partition: o.frame for o in self.result.outputs if o.name == output and o.frame is not None}

    def table(self, output: str) -> pl.DataFrame:
        """Return the rows of one output."""
        return pl.concat(self.parts(output).values())

    def row(self, output: str, sample_id: str) -> dict[str, Any]:
        """Return one row of an output."""
        return self.table(output).row(by_predicate=pl.col("sample_id") == sample_id, named=True)

    def files(self, output: str) -> list[str]:
        """Return where the files of one output are stored."""
        return [o.path for o in self.result.outputs if o.name == output and o.file is not None]

    def left(self) -> dict[str, dict[str, Any]]:
        """Return the ledger by sample id, without nulls."""
        rows = self.result.ledger.iter_rows(named=True)
        return {row["sample_id"]: {n: v for n, v in row.items() if v is not None} for row in rows}

    def reasons(self) -> dict[str, str]:
        """Return the reasons of the rows that left, by sample id."""
        return {key: row["reason"] for key, row in self.left().items()}

    def earlier(self) -> Earlier:
        """Return this as a commit that a later task may take rows from."""
        tables = {o.name: o.frame for o in self.result.outputs if o.frame is not None}
        return Earlier(self.settings, tables, self.result.ledger)


def perform(
    step: Step,
    tables: Handed,
    changed: Mapping[str, Any] | None = None,
    *,
    prior: Before = NOTHING_BEFORE,
    partition: str = "all",
    params: Mapping[str, Any] | None = None,
    final: bool = True,
) -> Done:
    """Do a task as a worker does: tables fit their declaration, files are stored, and the books close."""
    settings = settings_of(step, changed)
    with tempfile.TemporaryDirectory() as scratch:
        task = Task(step.name, partition, settings, params or {}, final, Path(scratch))
        result = step.process(task, tables, prior)
        assert {output.name for output in result.outputs} <= set(step.outputs)
        for output in result.outputs:
            if output.frame is not None:
                rows_digest(spec_of(step.name, output.name), output.frame)
            else:
                assert output.file is not None
                tables.store.put(output.file, output.path)
    rows_digest(LEDGER, result.ledger)
    keeping = [o for o in result.outputs if o.name == step.keeps]
    assert sum(o.rows if o.frame is None else o.frame.height for o in keeping) == sum(result.kept.values())
    books = close_books(step.name, result.seen, result.kept, to_counts(result.ledger), result.counted)
    return Done(result, settings, books)


def refused(step: str, *rows: Mapping[str, Any]) -> pl.DataFrame:
    """Return ledger rows of a step."""
    return ledger_frame(step, rows_of("ledger", *rows).drop("step", "class"))


def store_images(store: Store, tar: str, *bodies: bytes) -> list[Place]:
    """Put bodies into a tar of the image store; return the place of each, in the order given."""
    with tempfile.TemporaryDirectory() as folder:
        digests = [hashlib.sha256(body).hexdigest() for body in bodies]
        with TarWriter(Path(folder, "images.tar")) as file:
            distinct = sorted(dict(zip(digests, bodies, strict=True)).items())
            offsets = {sha256: file.add(f"{sha256}.bin", body) for sha256, body in distinct}
        store.put(Path(folder, "images.tar"), tar)
    return [Place(tar, offsets[d], len(body), d) for d, body in zip(digests, bodies, strict=True)]


def stored_file(store: Store, partition: str, path: str, rows: int) -> StoredFile:
    """Return the receipt of a file in a local store."""
    local = store.local_path(path)
    assert local is not None
    return StoredFile(partition, path, file_sha256(local), local.stat().st_size, rows)


Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site(Loopback):
    """An HTTP server on loopback in a thread of its own; counts requests by host and path. It has no robots.txt."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.requests: collections.Counter[str] = collections.Counter()
        self.address = ""
        self._reply = reply

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.address = f"127.0.0.1:{runner.addresses[0][1]}"
        yield
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/robots.txt":
            return web.Response(status=404)
        self.requests[f"{request.host}{request.path}"] += 1
        return await self._reply(request)

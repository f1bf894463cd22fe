"""The rates that prices are made of: one table, `rates.toml`, which `benchmarks/rates.py` writes.

Every figure is a pair [value, provenance]; ``[by.NAME]`` says of a provenance whether it was measured, by which
command, on what machine and when, or what an assumption rests on.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

_Row = TypeVar("_Row")

TABLE = Path(__file__).with_name("rates.toml")


@dataclass(frozen=True, slots=True)
class StepRates:
    """What one step takes.

    Attributes:
        cpu_s_per_row: CPU seconds of one core for a row in, models left out.
        cpu_s_per_mb: CPU seconds for a million bytes of images.
        row_bytes: Bytes stored for a row kept, images left out.
        ledger_row_bytes: Bytes stored for a row that leaves.
        file_bytes: Bytes of a file without rows, mean over table, ledger and manifest.
        files_per_task: Files of one task, manifest and ledger among them.
        files_per_part: Files for each partition that a reduce step hands on.
        memory_bytes: Peak memory of a task without rows, models left out.
        memory_bytes_per_row: Peak memory a row of the task adds.
        start_s: CPU seconds of a task without rows.
    """

    cpu_s_per_row: float
    cpu_s_per_mb: float
    row_bytes: float
    ledger_row_bytes: float
    file_bytes: float
    files_per_task: float
    files_per_part: float
    memory_bytes: float
    memory_bytes_per_row: float
    start_s: float


@dataclass(frozen=True, slots=True)
class ModelRates:
    """What a model takes, per item.

    Attributes:
        cpu_s_per_image: Seconds of one core for a picture.
        cpu_s_per_text: Seconds of one core for a text: one encoded; of a captioner one candidate of 50 tokens.
        gpu_s_per_image: Seconds of one GPU for a picture.
        gpu_s_per_text: Seconds of one GPU for a text.
        memory_bytes: Of its weights, as a CPU holds them.
        embedding_bytes: Of one stored embedding.
    """

    cpu_s_per_image: float
    cpu_s_per_text: float
    gpu_s_per_image: float
    gpu_s_per_text: float
    memory_bytes: float
    embedding_bytes: float


@dataclass(frozen=True, slots=True)
class MetadataRates:
    """What a format of metadata, or one source, takes.

    Attributes:
        cpu_s_per_row: CPU seconds of filter.match for a row.
        bytes_per_row: Of a file as published: rows of files that do not declare them follow from it.
        members_per_row: Files a picture has in a folder.
        fetch_cpu_s_per_row: CPU seconds of download.fetch for a picture of an archive.
        image_bytes: Mean bytes of a picture of an archive, as stored.
    """

    cpu_s_per_row: float
    bytes_per_row: float
    members_per_row: float
    fetch_cpu_s_per_row: float
    image_bytes: float


@dataclass(frozen=True, slots=True)
class WebRates:
    """What the web gives.

    Attributes:
        held_s: Mean seconds that a url holds a connection, failures and new attempts included.
        host_s: Mean seconds of an answer of a host in good health.
        host_share: Share of all urls that stand on the largest host.
        skew: Rows of the largest partition of the web, as a multiple of the mean.
        bytes_per_s: Of the line to the web, all machines together.
        image_bytes: Mean bytes of a picture.
        tar_row_bytes: Bytes that a tar adds to a released picture.
    """

    held_s: float
    host_s: float
    host_share: float
    skew: float
    bytes_per_s: float
    image_bytes: float
    tar_row_bytes: float


@dataclass(frozen=True, slots=True)
class RunRates:
    """What running takes beside the steps.

    Attributes:
        driver_s_per_partition: Of the driver's own time, which is one after the other.
        worker_start_s: CPU seconds until a worker's process can take its first task.
    """

    driver_s_per_partition: float
    worker_start_s: float


@dataclass(frozen=True, slots=True)
class Rates:
    """The whole table.

    Attributes:
        steps: By ``<stage>.<step>``.
        models: By the name a recipe gives; ``other`` for any that is not listed.
        metadata: By source key or format.
        worlds: Of a staged world: share of rows that a step keeps, by step, and ``image_bytes``.
        assumed: Figures that were not measured, e.g. ``models.clip-vit-h-14.gpu_s_per_image``.
    """

    steps: Mapping[str, StepRates]
    models: Mapping[str, ModelRates]
    metadata: Mapping[str, MetadataRates]
    web: WebRates
    run: RunRates
    worlds: Mapping[str, Mapping[str, float]]
    assumed: frozenset[str]

    def model(self, name: str) -> tuple[str, ModelRates]:
        """Return a model's rates and the name they are listed under."""
        listed = name if name in self.models else "other"
        return listed, self.models[listed]

    def is_assumed(self, table: str, keys: Collection[str] = ()) -> bool:
        """Whether a table holds a figure that was not measured, among some of its keys or all."""
        places = (place.rpartition(".") for place in self.assumed)
        return any(name == table and (not keys or key in keys) for name, _, key in places)

    def of_source(self, key: str, format_: str) -> MetadataRates:
        """Return the rates of a source: its own, or its format's."""
        return self.metadata.get(key) or self.metadata[format_]


@cache
def load_rates(path: Path = TABLE) -> Rates:
    """Read the table, once a process.

    Raises:
        KeyError: A figure, or what it rests on, is missing.
        TypeError: There is one that nothing reads.
    """
    told = tomllib.loads(path.read_text(encoding="utf-8"))
    measured = {name for name, by in told["by"].items() if by["kind"] == "measured"}
    known, assumed = told["by"], set[str]()

    def figures(name: str, table: Mapping[str, Any]) -> dict[str, float]:
        values = {}
        for key, (value, by) in table.items():
            known[by]  # a figure without a provenance is refused
            values[key] = float(value)
            if by not in measured:
                assumed.add(f"{name}.{key}")
        return values

    def every(kind: str, made: type[_Row]) -> Mapping[str, _Row]:
        rows = {name: figures(f"{kind}.{name}", table) for name, table in told[kind].items()}
        return MappingProxyType({name: _made(made, f"{kind}.{name}", row) for name, row in rows.items()})

    return Rates(
        steps=every("steps", StepRates),
        models=every("models", ModelRates),
        metadata=every("metadata", MetadataRates),
        web=_made(WebRates, "web", figures("web", told["web"])),
        run=_made(RunRates, "run", figures("run", told["run"])),
        worlds={name: figures(f"worlds.{name}", table) for name, table in told["worlds"].items()},
        assumed=frozenset(assumed),
    )


def _made(made: type[_Row], name: str, values: Mapping[str, float]) -> _Row:
    if missing := sorted({field.name for field in fields(cast("Any", made))} - set(values)):
        raise KeyError(f"{TABLE.name}: {name} has no {missing[0]}")
    return made(**values)

"""Workdirs with metadata of a test's own, and the command line over them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from typer.testing import CliRunner

from pipeline.cli import app
from tests.pipeline.read_commands import Answer

TEXTS = ("an aerial view of a harbour", "a cat on a chair", "satellite image of a desert", "two dogs")


def parquet(path: Path, rows: int, *, word: str = "p", row_group_size: int = 1000) -> Path:
    """Write LAION-like rows, half of which name remote sensing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    urls = [f"http://{word}.example/{number}" for number in range(rows)]
    texts = [TEXTS[number % len(TEXTS)] for number in range(rows)]
    pq.write_table(pa.table({"URL": urls, "TEXT": texts}), path, row_group_size=row_group_size)
    return path


def lines(path: Path, rows: Iterable[Sequence[str]]) -> Path:
    """Write tab-separated lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    return path


def captions(path: Path, rows: int, *, word: str = "t") -> Path:
    """Write lines as CC3M has them."""
    found = [(TEXTS[number % len(TEXTS)], f"http://{word}.example/{number}") for number in range(rows)]
    return lines(path, found)


@dataclass(frozen=True)
class Build:
    """A recipe file and its workdir."""

    recipe: Path
    workdir: Path

    def call(self, command: str, *arguments: str) -> Answer:
        """Run `rs5m-build COMMAND` on it in this process."""
        here = ["--recipe", str(self.recipe), "--workdir", str(self.workdir)]
        result = CliRunner().invoke(app, [command, *here, *arguments], catch_exceptions=False)
        return Answer(result.exit_code, result.stdout, result.stderr)

    def steps(self, *arguments: str) -> dict[str, Any]:
        """Return the status by step."""
        return {step["step"]: step for step in self.call("status", "--json", *arguments).json["steps"]}

    def commits(self, step: str) -> list[str]:
        """Return the partitions of a step that are committed."""
        return sorted(path.name.split("@")[0] for path in (self.workdir / "commits" / step).glob("*.json"))

    def manifests(self, step: str) -> list[dict[str, Any]]:
        """Return the commits of a step."""
        return [json.loads(path.read_bytes()) for path in sorted((self.workdir / "commits" / step).glob("*.json"))]


def build_of(folder: Path, sources: str) -> Build:
    """Return a build whose recipe has these tables of sources, run in this process."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "own.toml"
    recipe.write_text(
        f'[recipe]\nname = "own"\n{sources}\n[filter]\nbuckets = 2\n'
        '[run]\nexecutor = "local"\nworkers = 1\nretries = 0\nlock_beat_s = 0.05\n'
    )
    return Build(recipe, folder / "work")

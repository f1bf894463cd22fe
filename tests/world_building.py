"""Builds of the nano recipe for tests: one world built once, cheap workdirs over it, and what a build came to."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from manifests.manifest import Manifest
from manifests.recipe import Recipe
from manifests.recipe_files import load_recipe
from manifests.store import Store
from pipeline.build import Ended, Options, build, planner_over
from pipeline.line import LINE

# One attempt a round: the url that fails once is deferred, and the second round fetches it.
QUICK = (
    "download.network.connect_s=1.0",
    "download.network.read_s=0.4",
    "download.network.total_s=0.6",
    "download.network.attempts=1",
    "run.lock_beat_s=0.05",
)
_UNLINKED = {"runs", "locks"}


@dataclass(frozen=True)
class Snapshot:
    """What a build came to, free of anything that may differ between two builds that are equal.

    Attributes:
        release: sha256 of every file below release/, leftovers included.
        outputs: By step/partition, the rows digest of every output.
        ledgers: By step/partition, the sha256 of the ledger.
        books: By step/partition, the counts.
    """

    release: Mapping[str, str]
    outputs: Mapping[str, list[tuple[str, str | None, str]]]
    ledgers: Mapping[str, str]
    books: Mapping[str, Any]


@dataclass
class Workdir:
    """A workdir of the nano recipe."""

    path: Path
    overrides: tuple[str, ...] = QUICK
    said: list[str] = field(default_factory=list)

    def recipe(self, *overrides: str) -> Recipe:
        return load_recipe("nano", [*self.overrides, *overrides])

    def run(self, *overrides: str, store: Store | None = None, **options: Any) -> Ended:
        """Build in this process, as `rs5m-build run --recipe nano --executor local --workers 1` does."""
        return build(self.recipe(*overrides), store or Store(str(self.path)), Options(**options), self.said.append)

    def command(self, *arguments: str) -> list[str]:
        settings = [part for override in self.overrides for part in ("--set", override)]
        here = ["--recipe", "nano", "--workdir", str(self.path), *settings]
        return [sys.executable, "-W", "error::ResourceWarning", "-m", "pipeline.cli", "run", *here, *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command line in a process group of its own."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.path.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def cli(self, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments) as process:
            try:
                out, err = process.communicate(timeout=timeout_s)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def copy(self, path: Path) -> Workdir:
        """Return a copy whose files are hard links: nothing in a workdir is ever changed in place."""
        for file in sorted(self.path.rglob("*")):
            below = file.relative_to(self.path)
            if file.is_file() and below.parts[0] not in _UNLINKED:
                target = path / below
                target.parent.mkdir(parents=True, exist_ok=True)
                target.hardlink_to(file)
        return Workdir(path, self.overrides)

    def manifests(self, *overrides: str) -> dict[str, Manifest]:
        """Return the settled commits of the settings, by step/partition."""
        planner, _ = planner_over(self.recipe(*overrides), Store(str(self.path)))
        return {
            f"{step.name}/{name}": manifest
            for step in LINE
            for name, manifest in sorted(planner.plan(step).settled().items())
        }

    def snapshot(self, *overrides: str) -> Snapshot:
        manifests = self.manifests(*overrides)
        return Snapshot(
            release={
                str(file.relative_to(self.path)): hashlib.sha256(file.read_bytes()).hexdigest()
                for file in sorted((self.path / "release").rglob("*"))
                if file.is_file()
            },
            outputs={
                name: sorted((o.name, o.partition, o.rows_digest) for o in m.outputs if o.name != "images")
                for name, m in manifests.items()
            },
            ledgers={name: m.ledger.sha256 for name, m in manifests.items()},
            books={name: m.model_dump(mode="json")["rows"] for name, m in manifests.items()},
        )

    def facts(self, step: str, name: str, *overrides: str, partitions: str = "") -> int:
        """Return the sum of one fact over the settled partitions of a step whose names start so."""
        manifests = self.manifests(*overrides)
        return sum(int(str(m.facts[name])) for key, m in manifests.items() if key.startswith(f"{step}/{partitions}"))

    def table(self, step: str, output: str, *overrides: str) -> pl.DataFrame:
        """Return the rows of one output over all settled partitions."""
        receipts = [
            receipt
            for key, manifest in self.manifests(*overrides).items()
            for receipt in manifest.outputs
            if key.startswith(f"{step}/") and receipt.name == output
        ]
        return pl.concat([pl.read_parquet(self.path / receipt.path) for receipt in receipts])

    def events(self) -> list[dict[str, Any]]:
        """Return the events of all runs, in order of run and time."""
        files = sorted((self.path / "runs").glob("*/events.jsonl"))
        return [json.loads(line) for file in files for line in file.read_bytes().splitlines() if line.endswith(b"}")]

    def listing(self) -> dict[str, tuple[int, int, str]]:
        """Return inode, time of change and sha256 of every file; equal listings: nothing was written."""
        return {
            str(file.relative_to(self.path)): (
                file.stat().st_ino, file.stat().st_mtime_ns, hashlib.sha256(file.read_bytes()).hexdigest(),
            )
            for file in sorted(self.path.rglob("*"))
            if file.is_file()
        }  # fmt: skip


def wait_for(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait until a condition holds. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition never held")
        time.sleep(0.01)

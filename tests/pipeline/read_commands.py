"""Calls the commands that read a build the way the command line does, in this process."""

import json
from dataclasses import dataclass
from typing import Any

from typer.testing import CliRunner

from manifests.store import Store
from pipeline.cli import app
from pipeline.metadata import metadata_slices


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def files_of_rows(workdir) -> int:
    """Return how many partitions filter.match has over the nano world."""
    return len(metadata_slices(workdir.recipe(), Store(str(workdir.path)), remember=False))


def ask(workdir, command, *arguments):
    """Run `rs5m-build COMMAND` on a workdir of the nano recipe."""
    here = ["--recipe", "nano", "--workdir", str(workdir.path), "--set", "run.lock_beat_s=0.05"]
    result = CliRunner().invoke(app, [command, *here, *arguments], catch_exceptions=False)
    return Answer(result.exit_code, result.stdout, result.stderr)

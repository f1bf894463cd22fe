"""log.jsonl of a training: one line a record, in order of steps, without those that a resumed run does again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from manifests.canonical import JsonValue


class Log:
    """Appends records.

    Args:
        path: The file.
        step: Optimiser steps done by the checkpoint that is resumed: later records are dropped. 0: all are.
    """

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        kept = [line for line in _lines(path) if step and _step(line) <= step]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in kept), "utf-8")

    def add(self, record: Mapping[str, JsonValue]) -> None:
        """Append a record."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def read_log(path: Path) -> list[dict[str, JsonValue]]:
    """Return the records; none if there is no file."""
    return [dict(json.loads(line)) for line in _lines(path)]


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text("utf-8").splitlines() if line.endswith("}")]
    except FileNotFoundError:
        return []


def _step(line: str) -> int:
    return int(json.loads(line)["step"])

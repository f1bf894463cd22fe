"""``--help`` answers in well under a second, because nothing heavy is imported for it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_help_answers_within_seven_tenths_of_a_second() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        seconds.append(time.perf_counter() - start)
        for command in ("run", "status", "report", "explain", "verify", "gc"):
            assert f"\n  {command} " in done.stdout
    assert min(seconds) < 0.7


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, pipeline.cli; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()).isdisjoint({"polars", "pyarrow", "ray", "aiohttp", "numpy", "scipy", "PIL"})

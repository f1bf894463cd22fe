"""The entrypoint with programs around it: fakes that say what they were given, or this checkout's own rs5m-build."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENTRYPOINT = ROOT / "docker" / "entrypoint.sh"
IN_A_NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


@pytest.fixture
def programs(tmp_path: Path) -> Callable[[str, str], dict[str, str]]:
    """Returns ``put(name, text)``: puts a program first on the PATH, and returns the environment that finds it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    for name in [name for name in environment if name.startswith(("RS5M_", "RAY_"))]:
        del environment[name]

    def put(name: str, text: str) -> dict[str, str]:
        (folder / name).write_text(text, "utf-8")
        (folder / name).chmod(0o755)
        return environment

    return put


@pytest.fixture
def installed(programs: Callable[[str, str], dict[str, str]]) -> dict[str, str]:
    """An environment in which ``rs5m-build`` is this checkout's, started as its console script starts it."""
    cache = os.environ.get("RS5M_CACHE")
    text = f"#!{sys.executable}\nfrom pipeline.cli import main\n\nmain()\n"
    return programs("rs5m-build", text) | ({"RS5M_CACHE": cache} if cache else {})


@pytest.fixture(scope="session")
def namespaces() -> tuple[str, ...]:
    """The words before a command that make it pid 1 of a namespace of its own; skips where that is not allowed."""
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed")
    if subprocess.run([*IN_A_NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make pid namespaces")
    return IN_A_NAMESPACE

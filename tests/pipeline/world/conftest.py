"""The mini world takes seconds to build: once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.world.build import build_world


@pytest.fixture(scope="session")
def mini_workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose ``world`` is the mini world; to be read only."""
    folder = tmp_path_factory.mktemp("mini")
    (folder / "world").mkdir()
    build_world("mini", folder / "world", print)
    return folder

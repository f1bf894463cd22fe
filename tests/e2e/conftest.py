"""One build of the miniature RS5M, shared by the end-to-end tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.recipe_files import load_recipe
from manifests.store import Store
from pipeline.build import Options, build


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("mini") / "work"
    recipe = load_recipe("mini", ['run.executor="local"', "run.workers=2"])
    ended = build(recipe, Store(str(workdir)), Options(), lambda _: None)
    assert ended.exit_code == 0, ended.summary
    return workdir

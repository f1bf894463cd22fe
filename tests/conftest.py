"""Shared builds: the nano world is built once a session, and so is one whole build over it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# Read when the hub client is first imported: no test asks a hub, and none waits for one.
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

from manifests.store import Store
from pipeline.workdir import open_workdir
from pipeline.world.build import build_world
from tests.world_building import Snapshot, Workdir

# One commit passes or fails every time, on a busy machine too; `make fuzz` looks for what these examples do not show.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("RS5M_HYPOTHESIS", "steady"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one process, and all that share the miniature build: each process would make its own."""
    for item in items:
        folder, name = item.path.parent.name, item.path.name
        item.add_marker(pytest.mark.xdist_group("mini" if folder == "e2e" else f"{folder}/{name}"))


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """Listen to SIGINT: tests started in a shell's background inherit that it is ignored, and so would every run."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    """A workdir with a world and nothing else; copy it, never run in it."""
    path = tmp_path_factory.mktemp("bare") / "work"
    (path / "world").mkdir(parents=True)
    build_world("nano", path / "world", lambda _: None)
    open_workdir(Store(str(path)), "nano", create=True)
    return Workdir(path)


@pytest.fixture(scope="session")
def built(bare: Workdir, tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    """An undisturbed build with one worker; copy it, never run in it."""
    workdir = bare.copy(tmp_path_factory.mktemp("built") / "work")
    assert workdir.run().exit_code == 0
    return workdir


@pytest.fixture(scope="session")
def reference(built: Workdir) -> Snapshot:
    """What the undisturbed build came to."""
    return built.snapshot()


@pytest.fixture
def fresh(bare: Workdir, tmp_path: Path) -> Workdir:
    """A workdir of the test's own with a world and nothing built."""
    return bare.copy(tmp_path / "fresh")


@pytest.fixture
def settled(built: Workdir, tmp_path: Path) -> Workdir:
    """A workdir of the test's own that is settled."""
    return built.copy(tmp_path / "settled")


@pytest.fixture
def workdirs(bare: Workdir, tmp_path: Path) -> Callable[[str], Workdir]:
    """Makes further workdirs of the test's own with nothing built."""
    return lambda name: bare.copy(tmp_path / name)

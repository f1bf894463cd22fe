"""One thread for torch, no network for the hub clients, and a tiny model that is written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stages.train.tiny import model_folder, tiny_trainee


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the tiny model; read it only."""
    return model_folder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def trainee(folder: Path):
    return tiny_trainee(folder)

"""What laws watch beside the workdir."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline.world.origin import Origin


class Asked(Counter[str]):
    """How often every url was asked for; what hosts say of robots is asked anew by every run, and is not among them."""

    def __setitem__(self, url: str, times: int) -> None:
        if not url.endswith("/robots.txt"):
            super().__setitem__(url, times)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Every url the world's server is asked for, over all runs of the test."""
    requests = Asked()
    made = Origin.__init__

    def noting(self, *arguments) -> None:
        made(self, *arguments)
        self.requests = requests

    monkeypatch.setattr(Origin, "__init__", noting)
    return requests


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model may be loaded."""

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"a model was loaded: {arguments}")

    monkeypatch.setattr("stages.outlier.embed.load_encoder", refuse)
    monkeypatch.setattr("stages.caption.generate.load_encoder", refuse, raising=False)

"""A run's numbers as graphs in Weights & Biases (`run.wandb`), which go on when the same workdir is resumed."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import Any

from manifests.recipe import Recipe
from manifests.store import Store
from pipeline.errors import UserError
from pipeline.watching.snapshot import RunNow

_UNSENT = {"offline", "disabled", "dryrun"}
_PATIENCE_S = 30.0


def require_wandb() -> None:
    """Raise UserError if wandb is not installed."""
    if importlib.util.find_spec("wandb") is None:
        raise UserError("run.wandb needs the package wandb: pip install 'rs5m-build[wandb]', or leave run.wandb empty")


def run_id(uri: str, recipe: str, scope: str) -> str:
    """Return the id of a workdir's graph: the same for every run of it, another for each slice."""
    return hashlib.sha256(f"{uri}\n{recipe}\n{scope}".encode()).hexdigest()[:16]


def numbers(now: RunNow) -> dict[str, float]:
    """Return a document's numbers by name, ``<stage>.<step>/<number>``."""
    found: dict[str, float] = {"run/stalled": len(now.stalled), "run/nodes_lost": now.nodes_lost}
    found |= {"run/rss_bytes": now.driver.rss_bytes, "run/seconds": now.seconds}
    for step in now.steps:
        parts = step.partitions
        values: dict[str, float | None] = {
            "partitions_done": parts.done,
            "partitions_open": parts.open,
            "partitions_failed": parts.failed,
            "partitions_running": parts.running,
            "partitions_todo": parts.todo,
            "retries": step.retries,
            "rows_per_s": 0.0 if step.ended else step.rows_s_now,
            "images_per_gpu_s": step.rows_per_gpu_s,
            "written_bytes": step.written_bytes,
            **{f"rows_{'in' if n == 'seen' else n}": step.total(n) for n in _COUNTS},
        }
        found |= {f"{step.step}/{name}": value for name, value in values.items() if value is not None}
    if now.downloads:
        told = now.downloads
        found |= {"downloads/images": told.images, "downloads/bytes": told.bytes, "downloads/urls": told.answered}
        found |= {"downloads/images_per_s": told.images_s, "downloads/bytes_per_s": told.bytes_s}
    return found


_COUNTS = ("seen", "kept", "dropped", "failed", "deferred")


class WandbLog:
    """One run of Weights & Biases.

    WANDB_MODE and its other variables are respected; nobody is asked for a key. Its files lie in the run's folder, and
    where that is on an object store, where wandb puts them by itself.

    Raises:
        UserError: If there is no key and the mode is not offline.
        Exception: Whatever wandb raises.
    """

    def __init__(self, recipe: Recipe, store: Store, folder: str, scope: str) -> None:
        import wandb

        if os.environ.get("WANDB_MODE", "online") not in _UNSENT and not wandb.api.api_key:
            raise UserError("no key: `wandb login`, or set WANDB_API_KEY, or WANDB_MODE=offline and `wandb sync` later")
        self.name = f"run.wandb {recipe.run.wandb}"
        local = store.local_path(folder)
        where: dict[str, Any] = {} if local is None or "WANDB_DIR" in os.environ else {"dir": str(_made(local))}
        self._run = wandb.init(
            project=recipe.run.wandb,
            id=run_id(store.uri, recipe.name, scope),
            name=f"{recipe.name} {scope}",
            resume="allow",
            config=dict(recipe.flat()),
            settings=wandb.Settings(
                console="off", silent=True, init_timeout=_PATIENCE_S, x_disable_stats=True, disable_git=True,
                save_code=False,
            ),
            **where,
        )  # fmt: skip

    def put(self, now: RunNow) -> None:
        """Log a document's numbers."""
        self._run.log(numbers(now))
        if now.state != "running":
            self._run.summary["state"] = now.state
            self._run.summary["exit_code"] = now.exit_code

    def close(self) -> None:
        """End it; what is not sent yet is sent now."""
        self._run.finish()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder

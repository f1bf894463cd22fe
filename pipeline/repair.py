"""Corrupted files: named, set aside, and what pointed at them undone, so that the next run makes them again."""

from __future__ import annotations

from manifests.commits import CommitStore
from manifests.store import Store

_IMAGES = "data/download.fetch/"


def set_aside(store: Store, commits: CommitStore, path: str) -> list[str]:
    """Rename a corrupted file to ``*.corrupt`` and remove the commits that point at it; returns those commits.

    A plan holds places inside image tars without naming the tars as outputs: when an image tar goes, so does the plan.
    The file goes first: if the process ends in between, planning finds it gone and comes here again, while a damaged
    file of the right size that nothing points at would be taken for the next one of its name.
    """
    removed: list[str] = []
    if store.size(path) is not None:
        store.rename(path, f"{path}.corrupt")
    for step in commits.steps():
        for name in list(commits.step(step).all()):
            manifest = commits.read(name)
            points = path == manifest.ledger.path or any(output.path == path for output in manifest.outputs)
            stale = step == "shard.plan" and path.startswith(_IMAGES) and path.endswith(".tar")
            if points or stale:
                commits.remove(name)
                removed.append(name.path)
    return removed

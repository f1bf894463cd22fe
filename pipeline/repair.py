"""Corrupted files: named, set aside, and what pointed at them undone, so that the next run makes them again."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field

from manifests.commits import CommitStore
from manifests.manifest import CommitName, LedgerReceipt, Receipt
from manifests.store import Store

_IMAGES = "data/download.fetch/"
_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Repaired:
    """What came of a repair.

    Attributes:
        removed: Files set aside, with the paths of the commits that pointed at them and were undone.
        healthy: Files that are as recorded after all: nothing was done about them.
    """

    removed: dict[str, list[str]] = field(default_factory=dict)
    healthy: set[str] = field(default_factory=set)


def set_aside(store: Store, commits: CommitStore, paths: Collection[str], *, believed: bool = False) -> Repaired:
    """Rename corrupted files to ``*.corrupt`` and remove the commits that point at them.

    A file that is as a commit recorded it is left alone: whoever could not read it met something else, such as a
    folder that is not mounted, and another driver may have made it anew meanwhile. A plan holds places inside image
    tars without naming the tars as outputs: when an image tar goes, so does the plan. Files go first: if the process
    ends in between, planning finds them gone and comes here again, while a damaged file of the right size that nothing
    points at would be taken for the next one of its name.

    Args:
        store: The workdir.
        commits: Its commits.
        paths: The files.
        believed: Whether they were compared already, and are not looked at again.
    """
    wanted, found = set(paths), Repaired()
    pointing: list[tuple[CommitName, str]] = []
    for step in commits.steps():
        for name, manifest in commits.readable(commits.step(step).all()):
            receipts: list[Receipt | LedgerReceipt] = [*manifest.outputs, manifest.ledger]
            for receipt in receipts:
                if receipt.path in wanted:
                    pointing.append((name, receipt.path))
                    if not believed and receipt.path not in found.healthy and _is_as_recorded(store, receipt):
                        found.healthy.add(receipt.path)
            if step == "shard.plan":
                tars = (path for path in wanted if path.startswith(_IMAGES) and path.endswith(".tar"))
                pointing += [(name, path) for path in tars]
    for path in sorted(wanted - found.healthy):
        found.removed[path] = []
        with contextlib.suppress(FileNotFoundError):  # it is gone, or another driver set it aside just now
            store.rename(path, f"{path}.corrupt")
    for name, path in pointing:
        if path not in found.healthy:
            commits.remove(name)
            found.removed[path].append(name.path)
    return found


def _is_as_recorded(store: Store, receipt: Receipt | LedgerReceipt) -> bool:
    if store.size(receipt.path) != receipt.bytes:
        return False
    digest = hashlib.sha256()
    try:
        with store.open(receipt.path) as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError:
        return False
    return digest.hexdigest() == receipt.sha256

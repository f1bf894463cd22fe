"""Commits and the release folder, whose files are replaced in place: what is about to change is never called done."""

from __future__ import annotations

from collections.abc import Mapping

from manifests.commits import CommitStore
from manifests.manifest import Manifest
from manifests.store import Store

_KEPT = ("release/report/",)


def before_write(commits: CommitStore, step: str, fingerprints: Mapping[str, str]) -> None:
    """Undo the commits that writes into ``release/`` make untrue.

    The index's commits go before the first tar is packed, and a tar's commits under other fingerprints before that
    tar is replaced.

    Args:
        commits: The commits.
        step: The step about to write.
        fingerprints: By partition, for all that are about to be written.
    """
    if step != "shard.index":
        for name in list(commits.step("shard.index").all()):
            commits.remove(name)
    for name in list(commits.step(step).all()):
        if name.partition in fingerprints and name.fp16 != fingerprints[name.partition][:16]:
            commits.remove(name)


def sweep(store: Store, commits: CommitStore, index: Manifest, tars: list[str]) -> list[str]:
    """Delete from ``release/`` what neither the index nor its tars are, and the commits of deleted tars.

    What interrupted writers left there goes too: the folder is handed to others as it stands.

    Args:
        store: The workdir.
        commits: Its commits.
        index: The manifest of shard.index about to be committed.
        tars: Paths of the tars it lists.

    Returns:
        The deleted paths.
    """
    listed = {output.path for output in index.outputs} | set(tars)
    gone = [e.path for e in store.find("release") if e.path not in listed and not e.path.startswith(_KEPT)]
    for name in list(commits.step("shard.pack").all()):
        if any(output.path in gone for output in commits.read(name).outputs):
            commits.remove(name)
    gone += [entry.path for entry in store.temporaries("release")]
    for path in gone:
        store.remove(path)
    return gone

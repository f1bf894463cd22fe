"""What is kept of a training: its folder in the workdir, and the commit that names tars and checkpoint by digest."""

from __future__ import annotations

import tempfile
from pathlib import Path

from manifests.commits import CommitStore
from manifests.fingerprint import Parts
from manifests.manifest import LedgerReceipt, Manifest, Receipt
from manifests.schemas import LEDGER
from manifests.store import Store
from manifests.tables import empty_frame, file_sha256, write_table
from stages.train.checkpoint import PROGRESS, checkpoints
from stages.train.job import Fitted
from stages.train.ranks import Ranks
from stages.wheels import cache_root

STEP = "train.fit"


def committed_training(store: Store, commits: CommitStore, parts: Parts) -> Manifest | None:
    """Return the commit of an equal training whose files are all there."""
    passes = commits.step(STEP).passes("all", parts.fingerprint)
    manifest = commits.read(passes[-1]) if passes else None
    whole = manifest and all(store.size(output.path) == output.bytes for output in manifest.outputs)
    return manifest if whole else None


def run_folder(store: Store, stored: str, ranks: Ranks) -> Path:
    """Return the local folder of log and checkpoints; elsewhere the newest whole checkpoint is fetched into it."""
    local = store.local_path(stored)
    if local:
        return local
    folder = cache_root() / stored
    if ranks.local == 0 and not checkpoints(folder):
        there = [entry.path for entry in store.find(stored)]
        whole = [path.rpartition("/")[0] for path in there if path.endswith(f"/{PROGRESS}")]
        wanted = [path for path in there if whole and path.startswith(f"{max(whole)}/")]
        for path in [*wanted, *(path for path in there if path.endswith("/log.jsonl"))]:
            target = folder / Path(path).relative_to(stored)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(store.read(path))
    ranks.wait()
    return folder


def put_made(store: Store, folder: str, made: Path) -> None:
    """Copy a checkpoint, or a file, to a workdir that is not local; a checkpoint's progress goes last."""
    if store.local_path("") is not None:
        return
    if made.is_file():
        store.put(made, f"{folder}/{made.name}")
        return
    for path in sorted(made.iterdir(), key=lambda p: (p.name == PROGRESS, p.name)):
        store.put(path, f"{folder}/{made.name}/{path.name}")


def commit_training(store: Store, parts: Parts, folder: str, fitted: Fitted, pairs: int) -> None:
    """Record which tars, by digest, made which checkpoint. Books of rows are not kept: no row leaves here for good.

    Args:
        store: The workdir.
        parts: What the fingerprint is made of; its inputs are the tars.
        folder: Where log and checkpoints are, below the workdir.
        fitted: How the training ended.
        pairs: Pairs in the training tars.
    """
    outputs = [
        Receipt(
            name="checkpoint",
            path=f"{folder}/{fitted.checkpoint.name}/{path.name}",
            sha256=(digest := file_sha256(path)),
            rows_digest=digest,
            bytes=path.stat().st_size,
            rows=0,
        )
        for path in sorted(fitted.checkpoint.iterdir())
    ]
    commits = CommitStore(store)
    manifest = Manifest(
        step=STEP,
        partition="all",
        fingerprint=parts.fingerprint,
        row_fingerprint=parts.row_fingerprint(recording=False),
        parts=parts,
        open=False,
        outputs=outputs,
        ledger=_empty_ledger(store),
        rows={},
        facts={
            "steps": fitted.steps,
            "pairs": pairs,
            "skipped": dict(fitted.skipped),
            "recall": {str(step): dict(recall) for step, recall in fitted.recall.items()},
        },
    )
    passes = commits.step(STEP).passes("all", parts.fingerprint)
    commits.commit(manifest, passes[-1].number + 1 if passes else 0)


def _empty_ledger(store: Store) -> LedgerReceipt:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "ledger.parquet")
        write_table(LEDGER, empty_frame(LEDGER), file)
        sha256 = file_sha256(file)
        path = f"ledger/{STEP}/all-{sha256[:12]}.parquet"
        store.put(file, path)
        return LedgerReceipt(path=path, sha256=sha256, bytes=file.stat().st_size, rows=0)

"""What a step finds before it: the outputs of settled partitions, and what their commits say of themselves."""

from __future__ import annotations

from manifests.manifest import LedgerReceipt, Manifest, Receipt
from manifests.sources import load_sources
from pipeline.line import step_named
from pipeline.plans import StepPlan
from pipeline.worker import InputFile, Layout
from stages.places import archive_source, lane
from stages.step import Input, StoredFile


def may_hold(manifest: Manifest, archive: str | None, layout: str) -> bool:
    """Whether another partition's commit may hold rows of this one: parts of an archive may have been cut anew."""
    if archive is not None:
        return archive_source(manifest.partition) == archive
    return layout_of(manifest).key != layout


def lane_of_source(source: str) -> str:
    """Return the lane of a source: its subset; pub11 for one that is not known."""
    spec = load_sources().get(source)
    return spec.subset if spec else "pub11"


def layout_of(manifest: Manifest) -> Layout:
    """Return the layout that a commit says it was made under; none for steps that do not say."""
    layout = manifest.facts.get("layout")
    if not isinstance(layout, dict):
        return Layout(0, frozenset())
    buckets, spread = layout.get("buckets"), layout.get("spread")
    return Layout(
        buckets if isinstance(buckets, int) else 0,
        frozenset(str(host) for host in spread) if isinstance(spread, list) else frozenset(),
    )


def outputs_of(upstream: dict[str, StepPlan], wanted: Input) -> list[tuple[str, Receipt]]:
    """Return (partition, receipt) of every settled output that an input names."""
    return [
        (output.partition or partition, output)
        for partition, manifest in sorted(upstream[wanted.step].settled().items())
        for output in manifest.outputs
        if output.name == wanted.table and wanted.lane in ("", lane(output.partition or partition))
    ]


def located(wanted: Input, partition: str, receipt: Receipt) -> tuple[InputFile, tuple[str, str, str]]:
    """Return an upstream output as a task gets it, and as it enters the fingerprint."""
    stored = StoredFile(partition, receipt.path, receipt.sha256, receipt.bytes, receipt.rows)
    first = step_named(wanted.step).outputs[0] == wanted.table
    label = partition if first else f"{partition}:{wanted.table}"
    digest = receipt.sha256[:32] if wanted.places else receipt.rows_digest
    return InputFile(wanted.step, wanted.table, stored), (wanted.step, label, digest)


def damages(manifest: Manifest, sizes: dict[str, int]) -> dict[str, str]:
    """Return the files of a commit that are gone or have another size than recorded."""
    found: dict[str, str] = {}
    receipts: list[Receipt | LedgerReceipt] = [*manifest.outputs, manifest.ledger]
    for receipt in receipts:
        size = sizes.get(receipt.path)
        if size is None:
            found[receipt.path] = "is gone"
        elif size != receipt.bytes:
            found[receipt.path] = f"has {size} bytes, recorded are {receipt.bytes}"
    return found

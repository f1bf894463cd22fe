"""shard.index: metafiles, sizes and checksums over the packed tars: the release is complete when this is committed."""

from __future__ import annotations

import csv
import json
from importlib.metadata import version
from pathlib import Path

import polars as pl

from manifests.ledger import count_by_source
from manifests.recipe import Settings
from manifests.schemas import LEDGER, TABLES
from manifests.tables import empty_frame, file_sha256, write_table
from stages.shard.geometa import geometa_files
from stages.step import Input, Output, Prior, Result, Step, StoredFile, Tables, Task

_METAFILE = ("img_name", "caption", "sample_id", "source", "tar", "url")


class Index(Step):
    """Writes what a user reads beside the tars.

    ``metafile/{subset}_{split}_intermediate.csv`` has the image name in column 0 and the caption in column 1, as the
    published loader expects, and every field quoted: a lone carriage return in a caption must not end a row.
    ``geometa/`` holds the published geo tables of what was released. ``sizes.json`` in each split's folder is what
    open_clip reads.
    """

    name = "shard.index"
    kind = "reduce"
    VERSION = 1
    inputs = (
        Input("shard.pack", "packed"),
        Input("shard.pack", "tar"),
        Input("shard.plan", "samples"),
        Input("geo.locate", "places"),
    )
    outputs = ("samples", "metafile", "sizes", "geometa", "checksums")
    keeps = "samples"
    releases = True

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Index the release."""
        del prior
        planned = tables.frame("shard.plan", "samples")
        packed = tables.frame("shard.pack", "packed", ["sample_id", "released_sha256"])
        released = planned.join(packed, on="sample_id").sort("sample_id")
        tars = tables.files("shard.pack", "tar")
        files = [*_metafiles(released, tars, task.scratch), *_sizes(tars, task.scratch)]
        files += geometa_files(released, tables.frame("geo.locate", "places"), task.scratch)
        samples = task.scratch / "samples.parquet"
        write_table(TABLES["released"], released, samples)
        files.append(Output("samples", file=samples, path="release/metafile/samples.parquet", rows=released.height))
        return Result(
            outputs=[*files, _checksums(files, tars, task.scratch)],
            ledger=empty_frame(LEDGER),
            seen=count_by_source(planned),
            kept=count_by_source(released),
        )

    def profile(self, settings: Settings) -> dict[str, str]:
        """Return what the bytes of samples.parquet depend on."""
        del settings
        return {"pyarrow": version("pyarrow")}


def _metafiles(released: pl.DataFrame, tars: list[StoredFile], folder: Path) -> list[Output]:
    outputs: list[Output] = []
    for subset, split in sorted({(t.partition.split("-")[0], t.partition.split("-")[1]) for t in tars}):
        rows = released.filter((pl.col("subset") == subset) & (pl.col("split") == split)).select(_METAFILE)
        file = folder / f"{subset}_{split}_intermediate.csv"
        with file.open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
            writer.writerow(_METAFILE)
            writer.writerows(rows.iter_rows())
        outputs.append(Output("metafile", file=file, path=f"release/metafile/{file.name}", rows=rows.height))
    return outputs


def _sizes(tars: list[StoredFile], folder: Path) -> list[Output]:
    outputs: list[Output] = []
    for split in sorted({tar.partition.split("-")[1] for tar in tars}):
        sizes = {f"{t.partition}.tar": t.rows for t in tars if t.partition.split("-")[1] == split}
        file = folder / f"{split}-sizes.json"
        file.write_text(json.dumps(sizes, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        outputs.append(Output("sizes", file=file, path=f"release/{split}/sizes.json", rows=len(sizes)))
    return outputs


def _checksums(files: list[Output], tars: list[StoredFile], folder: Path) -> Output:
    """List every released file but this one, in the form that ``sha256sum --check`` reads."""
    digests = {tar.path: tar.sha256 for tar in tars}
    digests |= {output.path: file_sha256(output.file) for output in files if output.file}
    lines = [f"{sha256}  {path.removeprefix('release/')}\n" for path, sha256 in sorted(digests.items())]
    file = folder / "checksums.sha256"
    file.write_text("".join(lines), encoding="utf-8")
    return Output("checksums", file=file, path="release/checksums.sha256", rows=len(lines))

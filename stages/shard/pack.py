"""shard.pack: writes one released tar. Image bytes go out as they were fetched, never encoded again."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from manifests.ledger import count_by_source
from manifests.schemas import LEDGER, TABLES
from manifests.tables import empty_frame
from stages.images import Place, Spool, read_images
from stages.step import Input, Output, Prior, Result, Step, Tables, Task
from stages.tars import TarWriter


class Pack(Step):
    """Writes ``<sample id>.img_name``, ``.img_content`` and ``.caption`` of every planned sample, in order of id."""

    name = "shard.pack"
    kind = "map"
    VERSION = 1
    inputs = (Input("shard.plan", "plan"),)
    outputs = ("packed", "tar")
    keeps = "packed"
    releases = True

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Pack one tar. Raises CorruptFileError for stored bytes that changed."""
        del prior
        plan = tables.frame("shard.plan", "plan").sort("position")
        places = [
            Place(tar, offset, length, sha256)
            for tar, offset, length, sha256 in plan.select("image_tar", "offset", "length", "sha256").iter_rows()
        ]
        spool = Spool(task.scratch)
        try:
            for index, body in read_images(tables.store, places):
                spool.add(body, places[index].sha256)
            file = Path(task.scratch, "released.tar")
            packed, sha256 = _write(plan, spool, file)
        finally:
            spool.close()
        _, split, _ = task.partition.split("-")
        released = f"release/{split}/{task.partition}.tar"
        return Result(
            outputs=[
                Output("packed", packed),
                Output("tar", file=file, path=released, rows=packed.height, sha256=sha256),
            ],
            ledger=empty_frame(LEDGER),
            seen=count_by_source(plan),
            kept=count_by_source(plan.join(packed.select("sample_id"), on="sample_id")),
        )


def _write(plan: pl.DataFrame, spool: Spool, file: Path) -> tuple[pl.DataFrame, str]:
    rows: list[tuple[str, str, int, int, str]] = []
    with TarWriter(file, hashed=True) as tar:
        for row in plan.iter_rows(named=True):
            key, body = row["sample_id"], spool.read(row["sha256"])
            tar.add(f"{key}.img_name", row["img_name"].encode("utf-8"))
            offset = tar.add(f"{key}.img_content", body)
            tar.add(f"{key}.caption", row["caption"].encode("utf-8"))
            rows.append((key, row["tar"], offset, len(body), row["sha256"]))
    return pl.DataFrame(rows, schema=empty_frame(TABLES["packed"]).schema, orient="row"), tar.sha256

"""The metadata files of a world, in the published layouts of the eleven sources.

Parts are chosen by url and rows ordered by a keyed hash, so that a file's order says nothing about how the world was
made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from manifests.identity import bucket, draw
from pipeline.world import json_layouts, line_layouts
from pipeline.world.draft import SOURCES, Row
from pipeline.world.parquet_layouts import parquet_bytes, table_file

_FILES: Mapping[str, tuple[str, ...]] = {
    "laion2b": tuple(f"part-{part:05d}.snappy.parquet" for part in range(3)),
    "laion400m": ("part-00000.snappy.parquet",),
    "laioncoco": tuple(f"part-{part:05d}.snappy.parquet" for part in range(2)),
    "coyo700m": ("part-00000.snappy.parquet",),
    "cc3m": ("Train_GCC-training.tsv",),
    "cc12m": ("cc12m.tsv",),
    "wit": ("wit_v1.train.all-00000-of-00010.tsv.gz",),
    "yfcc14m": ("yfcc100m_dataset.bz2",),
    "redcaps": ("aerialpics_2019.json", "oldmaps_2020.json"),
    "sbu": ("sbu-captions-all.json",),
    "vg": ("region_descriptions.json",),
}
_LABELLED = "Image_Labels_Subset_Train_GCC-Labels-training.tsv"


def placed(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Give every row its file and position.

    Args:
        rows: All rows of a world.

    Returns:
        Rows in file order, by file relative to the world; files by source, then name. A row that repeats
        one before it is marked as repeated.
    """
    files: dict[str, list[Row]] = {}
    for source in SOURCES:
        names = _FILES[source]
        by_name: dict[str, list[Row]] = {name: [] for name in names}
        for row in (row for row in rows if row.source == source):
            name = _LABELLED if row.labelled else names[bucket(row.url or "", len(names))]
            by_name.setdefault(name, []).append(row)
        for name, mine in sorted(by_name.items()):
            mine.sort(key=lambda row: (draw("order", row.source, row.url or "", *row.texts, str(row.raw)), row.ordinal))
            files[f"metadata/{source}/{name}"] = [_marked(row) for row in mine]
    return files


def _marked(row: Row) -> Row:
    # Equal rows stand next to each other in one file, so the one with the higher ordinal is the later one.
    return replace(row, expected="filter.repeated_row", cluster=None, proof=None) if row.ordinal else row


def metadata_files(file: str, rows: Sequence[Row]) -> dict[str, bytes]:
    """Encode the rows of one file in the layout that its source publishes.

    Args:
        file: Path of the file, relative to the world (`placed`).
        rows: Its rows, in order.

    Returns:
        The file and those that belong beside it, by path.
    """
    folder, _, name = file.rpartition("/")
    source = folder.rpartition("/")[2]
    match source:
        case "cc3m" | "cc12m":
            return {file: line_layouts.tsv(rows)}
        case "wit":
            return {file: line_layouts.wit(rows)}
        case "yfcc14m":
            ids = f"{folder}/yfcc100m_subset_data.tsv"
            return {file: line_layouts.yfcc_records(rows), ids: line_layouts.yfcc_ids(rows)}
        case "redcaps":
            return {file: json_layouts.redcaps(rows, name.removesuffix(".json"))}
        case "sbu":
            return {file: json_layouts.sbu(rows)}
        case "vg":
            return {file: json_layouts.vg_regions(rows), f"{folder}/image_data.json": json_layouts.vg_images(rows)}
    return {file: table_file(source, rows)}


def attributes_file(attributes: Mapping[str, tuple[str, str, str | None]]) -> bytes:
    """Encode licence, credit and group by url, sorted by url."""
    columns = list(zip(*((url, *said) for url, said in sorted(attributes.items())), strict=True))
    return parquet_bytes(pa.table(columns, names=["url", "licence", "credit", "group"]), len(attributes))

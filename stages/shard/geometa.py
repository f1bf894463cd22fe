"""Geo metadata beside the tars: CSV files under the names and with the columns that RS5M published them with.

Every file lists released rows only, in order of image name, every field quoted, and names an image as the release does,
so that files join on ``img_name``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from stages.step import Output

_LABELS = ("img_name", "text", "url", "download_status")
_WHERE = ("country", "month")


@dataclass(frozen=True, slots=True)
class _File:
    source: str
    stem: str
    by_split: bool
    columns: tuple[str, ...]


_FILES = (
    _File("fmow", "fmow_geometa_{}_coord", True, ("img_name", "geometa_cap", *_WHERE, "latitude", "longitude", "utm")),
    _File("ben", "ben_geometa_{}_coord", True, ("img_name", "geometa_cap", *_WHERE, "utm")),
    _File("yfcc14m", "yfcc14m_geometa_coord", False, (*_LABELS, "meta_caption", *_WHERE, "longitude", "latitude")),
    _File("cc3m", "cc3m_geometa", False, (*_LABELS, "meta_caption", *_WHERE)),
    _File("redcaps", "redcaps_geometa", False, (*_LABELS, "meta_caption", *_WHERE)),
)


def geometa_files(released: pl.DataFrame, places: pl.DataFrame, folder: Path) -> list[Output]:
    """Write the geo metadata of a release.

    Args:
        released: Rows of samples.parquet; read are img_name, caption, sample_id, source, subset, split and url.
        places: Rows of the table ``places``.
        folder: Where the files are written, before they are stored.

    Returns:
        One output ``geometa`` a file, only for sources that have rows.
    """
    columns = ["img_name", "caption", "sample_id", "source", "subset", "split", "url"]
    rows = released.select(columns).join(places, on="sample_id").sort("img_name", "sample_id")
    outputs: list[Output] = []
    names = rows.filter((pl.col("subset") == "pub11") & (pl.col("entities").list.len() > 0))
    if not names.is_empty():
        outputs.append(_names_file(names, folder))
    for file in _FILES:
        of_source = rows.filter(pl.col("source") == file.source)
        for split in ("train", "val") if file.by_split else ("",):
            part = of_source.filter(pl.col("split") == split) if split else of_source
            if not part.is_empty():
                outputs.append(_source_file(file, part, split, folder))
    return outputs


def _names_file(rows: pl.DataFrame, folder: Path) -> Output:
    """Write the places that captions name: rows with one name or more; the column ``entity`` is a list as text."""
    listed = (
        (name, text, repr([entity["name"] for entity in entities]))
        for name, text, entities in rows.select("img_name", "caption", "entities").iter_rows()
    )
    return _written(folder / "RS5M_pub11_geolocation.csv", ("img_name", "text", "entity"), listed, rows.height)


def _source_file(file: _File, rows: pl.DataFrame, split: str, folder: Path) -> Output:
    # Only what was downloaded is released, hence the constant.
    named = rows.select(
        "img_name", "url", "country", "month", "utm", pl.col("caption").alias("text"),
        pl.lit("success").alias("download_status"), pl.col("meta").alias("meta_caption"),
        pl.col("meta").alias("geometa_cap"), pl.col("lon").alias("longitude"), pl.col("lat").alias("latitude"),
    )  # fmt: skip
    path = folder / f"{file.stem.format(split)}.csv"
    return _written(path, file.columns, named.select(file.columns).iter_rows(), rows.height)


def _written(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]], count: int) -> Output:
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(head)
        writer.writerows(rows)
    return Output("geometa", file=path, path=f"release/geometa/{path.name}", rows=count)

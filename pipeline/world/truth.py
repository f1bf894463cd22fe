"""The truth table of a world: for every metadata row, what a build must find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from pipeline.world.draft import Row

TRUTH = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field(
            "file", pa.string(), nullable=False
        ),  # relative to the world's folder; or a folder or archive of images
        # From 0: for TSV the record after the header, for JSON the entry, for archives the image, sorted by path.
        pa.field("row", pa.int64(), nullable=False),
        pa.field("url", pa.string()),  # as published; of an image in an archive its place in the official set
        pa.field("text", pa.list_(pa.string()), nullable=False),  # published text fields in the source's order
        pa.field("keyword", pa.bool_(), nullable=False),  # whether the text matches the lexicon
        # released, cluster (one of the copies stays), outlier (reaches the outlier stage and is no remote sensing: it
        # is for a model to say), or the reason with which the row ends
        pa.field("expected", pa.string(), nullable=False),
        pa.field("cluster", pa.string()),  # the staged copies it belongs to
        pa.field("proof", pa.string()),  # url, bytes or near: how it repeats the first of its cluster
        pa.field("image", pa.string()),  # name of the picture it shows
        pa.field("kind", pa.string()),  # tile, texture; or photo, print, drawn, synthetic
        pa.field("group", pa.string()),  # world:<source image>
        pa.field("staged", pa.string()),  # what is staged about it, in words
    ]
)
"""Schema of truth.parquet, sorted by source as in `draft.SOURCES`, then archives, file, row."""


def truth_table(files: Mapping[str, Sequence[Row]]) -> pa.Table:
    """Return the truth about the rows of all metadata files; a record that its source does not list is no row.

    Args:
        files: Rows in order, by file relative to the world.
    """
    return pa.Table.from_pylist(
        [
            _truth(file, number, row)
            for file, rows in files.items()
            for number, row in enumerate(rows)
            if not row.passed_over
        ],
        TRUTH,
    )


def _truth(file: str, number: int, row: Row) -> dict[str, object]:
    picture = row.picture
    return {
        "source": row.source,
        "file": file,
        "row": number,
        "url": row.url,
        "text": list(row.texts),
        "keyword": row.keyword,
        "expected": row.expected,
        "cluster": row.cluster,
        "proof": row.proof,
        "image": picture.name if picture else None,
        "kind": picture.kind if picture else None,
        "group": picture.group if picture else None,
        "staged": row.staged,
    }

"""The metadata files of a world, in the published layouts of the six sources.

Parts are chosen by url and rows ordered by a keyed hash, so that a file's order says nothing about how the world was
made.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.identity import bucket, draw
from pipeline.world.draft import SOURCES, Row

_PARTS = {"laion2b": 3, "laioncoco": 2}
_GROUPS_AT_LEAST = 2
_LAION2B = pa.schema(
    [("URL", pa.string()), ("TEXT", pa.string()), ("WIDTH", pa.int32()), ("HEIGHT", pa.int32()),
     ("similarity", pa.float64()), ("hash", pa.int64()), ("punsafe", pa.float64()), ("pwatermark", pa.float64())]
)  # fmt: skip
_LAION400M = pa.schema(
    [("SAMPLE_ID", pa.int64()), ("URL", pa.string()), ("TEXT", pa.string()), ("HEIGHT", pa.int32()),
     ("WIDTH", pa.int32()), ("LICENSE", pa.string()), ("NSFW", pa.string()), ("similarity", pa.float64())]
)  # fmt: skip
_LAIONCOCO = pa.schema(
    [("URL", pa.string()), ("TEXT", pa.string()), ("top_caption", pa.string()), ("all_captions", pa.list_(pa.string())),
     ("all_similarities", pa.list_(pa.float64())), ("WIDTH", pa.float64()), ("HEIGHT", pa.float64()),
     ("similarity", pa.float64()), ("hash", pa.int64()), ("pwatermark", pa.float64()), ("punsafe", pa.float64())]
)  # fmt: skip
_COYO700M = pa.schema(
    [("id", pa.int64()), ("url", pa.string()), ("text", pa.string()), ("width", pa.int64()), ("height", pa.int64()),
     ("image_phash", pa.string()), ("text_length", pa.int64()), ("word_count", pa.int64()),
     ("num_tokens_bert", pa.int64()), ("num_tokens_gpt", pa.int64()), ("num_faces", pa.int64()),
     ("clip_similarity_vitb32", pa.float64()), ("clip_similarity_vitl14", pa.float64()),
     ("nsfw_score_opennsfw2", pa.float64()), ("nsfw_score_gantman", pa.float64()), ("watermark_score", pa.float64()),
     ("aesthetic_score_laion_v2", pa.float64())]
)  # fmt: skip


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
        parts = _PARTS.get(source, 1)
        for part in range(parts):
            mine = [row for row in rows if row.source == source and bucket(row.url or "", parts) == part]
            mine.sort(key=lambda row: (draw("order", row.source, row.url or "", *row.texts, str(row.raw)), row.ordinal))
            files[_file(source, part)] = [_marked(row) for row in mine]
    return files


def _marked(row: Row) -> Row:
    # Equal rows stand next to each other in one file, so the one with the higher ordinal is the later one.
    return replace(row, expected="filter.repeated_row", cluster=None, proof=None) if row.ordinal else row


def _file(source: str, part: int) -> str:
    name = {"cc3m": "Train_GCC-training.tsv", "cc12m": "cc12m.tsv"}.get(source, f"part-{part:05d}.snappy.parquet")
    return f"metadata/{source}/{name}"


def metadata_file(source: str, rows: Sequence[Row]) -> bytes:
    """Encode the rows of one file in the layout that the source publishes.

    Args:
        source: Source key.
        rows: Its rows, in order.
    """
    if source in ("cc3m", "cc12m"):
        return b"".join(_line(row) for row in rows)
    schema, record = _PARQUET[source]
    return parquet_bytes(pa.Table.from_pylist([record(row) for row in rows], schema), len(rows) // _GROUPS_AT_LEAST)


def attributes_file(attributes: Mapping[str, tuple[str, str, str | None]]) -> bytes:
    """Encode licence, credit and group by url, sorted by url."""
    columns = list(zip(*((url, *said) for url, said in sorted(attributes.items())), strict=True))
    return parquet_bytes(pa.table(columns, names=["url", "licence", "credit", "group"]), len(attributes))


def parquet_bytes(table: pa.Table, group_rows: int) -> bytes:
    """Return ``table`` as a snappy Parquet file with ``group_rows`` rows a row group."""
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=max(group_rows, 1), compression="snappy")
    return out.getvalue()


def _line(row: Row) -> bytes:
    if row.raw is not None:
        return row.raw + b"\n"
    fields = (row.texts[0], row.url or "") if row.source == "cc3m" else (row.url or "", row.texts[0])
    return "\t".join(fields).encode() + b"\n"


def _text(row: Row) -> str | None:
    return row.texts[0] if row.texts else None


def _invented(row: Row, name: str) -> float:
    """Return an invented number in [0, 1) that belongs to the row; equal rows have equal numbers."""
    return round(draw(name, row.source, row.url or "", *row.texts), 6)


def _size(row: Row) -> tuple[int, int]:
    if row.image:
        return row.image.width, row.image.height
    return 200 + int(_invented(row, "width") * 1000), 200 + int(_invented(row, "height") * 800)


def _laion2b(row: Row) -> dict[str, Any]:
    width, height = _size(row)
    return {
        "URL": row.url, "TEXT": _text(row), "WIDTH": width, "HEIGHT": height,
        "similarity": 0.28 + _invented(row, "similarity") / 10, "hash": int((_invented(row, "hash") - 0.5) * 2**63),
        "punsafe": _invented(row, "punsafe") / 50, "pwatermark": _invented(row, "pwatermark"),
    }  # fmt: skip


def _laion400m(row: Row) -> dict[str, Any]:
    width, height = _size(row)
    return {
        "SAMPLE_ID": int(_invented(row, "id") * 10**12), "URL": row.url, "TEXT": _text(row), "HEIGHT": height,
        "WIDTH": width,
        "LICENSE": "?", "NSFW": "UNLIKELY", "similarity": 0.3 + _invented(row, "similarity") / 10,
    }  # fmt: skip


def _laioncoco(row: Row) -> dict[str, Any]:
    captions = list(row.texts[1:])
    shared = _laion2b(row)
    falling = [round(0.36 - 0.01 * place, 2) for place in range(len(captions))]
    # The alternative text of the page is not what the source matches on; here it repeats the top caption.
    return shared | {
        "top_caption": _text(row), "all_captions": captions, "all_similarities": falling,
        "WIDTH": float(shared["WIDTH"]), "HEIGHT": float(shared["HEIGHT"]),
    }  # fmt: skip


def _coyo700m(row: Row) -> dict[str, Any]:
    width, height = _size(row)
    text = _text(row)
    words = len((text or "").split())
    phash = row.image.phash if row.image else int(_invented(row, "phash") * 2**64)
    return {
        "id": int(_invented(row, "id") * 10**12), "url": row.url, "text": text, "width": width, "height": height,
        "image_phash": f"{phash:016x}", "text_length": len(text or ""), "word_count": words,
        "num_tokens_bert": words + 2, "num_tokens_gpt": words + 1, "num_faces": 0,
        "clip_similarity_vitb32": 0.2 + _invented(row, "b32") / 10,
        "clip_similarity_vitl14": 0.2 + _invented(row, "l14") / 10,
        "nsfw_score_opennsfw2": _invented(row, "nsfw") / 50, "nsfw_score_gantman": _invented(row, "gantman") / 50,
        "watermark_score": _invented(row, "watermark") / 5, "aesthetic_score_laion_v2": 4 + _invented(row, "aesthetic"),
    }  # fmt: skip


_PARQUET: dict[str, tuple[pa.Schema, Callable[[Row], dict[str, Any]]]] = {
    "laion2b": (_LAION2B, _laion2b),
    "laion400m": (_LAION400M, _laion400m),
    "laioncoco": (_LAIONCOCO, _laioncoco),
    "coyo700m": (_COYO700M, _coyo700m),
}

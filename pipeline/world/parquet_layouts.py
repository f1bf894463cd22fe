"""Metadata that are published as Parquet: the LAION sets, LAION-COCO and COYO-700M."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.world.draft import Row
from pipeline.world.invented import invented, size

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


def table_file(source: str, rows: Sequence[Row]) -> bytes:
    """Encode rows as one of the Parquet files that the source publishes.

    Args:
        source: laion2b, laion400m, laioncoco or coyo700m.
        rows: Its rows, in order.
    """
    schema, record = _LAYOUTS[source]
    return parquet_bytes(pa.Table.from_pylist([record(row) for row in rows], schema), len(rows) // _GROUPS_AT_LEAST)


def parquet_bytes(table: pa.Table, group_rows: int) -> bytes:
    """Return ``table`` as a snappy Parquet file with ``group_rows`` rows a row group."""
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=max(group_rows, 1), compression="snappy")
    return out.getvalue()


def _text(row: Row) -> str | None:
    return row.texts[0] if row.texts else None


def _laion2b(row: Row) -> dict[str, Any]:
    width, height = size(row)
    return {
        "URL": row.url, "TEXT": _text(row), "WIDTH": width, "HEIGHT": height,
        "similarity": 0.28 + invented(row, "similarity") / 10, "hash": int((invented(row, "hash") - 0.5) * 2**63),
        "punsafe": invented(row, "punsafe") / 50, "pwatermark": invented(row, "pwatermark"),
    }  # fmt: skip


def _laion400m(row: Row) -> dict[str, Any]:
    width, height = size(row)
    return {
        "SAMPLE_ID": int(invented(row, "id") * 10**12), "URL": row.url, "TEXT": _text(row), "HEIGHT": height,
        "WIDTH": width,
        "LICENSE": "?", "NSFW": "UNLIKELY", "similarity": 0.3 + invented(row, "similarity") / 10,
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
    width, height = size(row)
    text = _text(row)
    words = len((text or "").split())
    phash = row.image.phash if row.image else int(invented(row, "phash") * 2**64)
    return {
        "id": int(invented(row, "id") * 10**12), "url": row.url, "text": text, "width": width, "height": height,
        "image_phash": f"{phash:016x}", "text_length": len(text or ""), "word_count": words,
        "num_tokens_bert": words + 2, "num_tokens_gpt": words + 1, "num_faces": 0,
        "clip_similarity_vitb32": 0.2 + invented(row, "b32") / 10,
        "clip_similarity_vitl14": 0.2 + invented(row, "l14") / 10,
        "nsfw_score_opennsfw2": invented(row, "nsfw") / 50, "nsfw_score_gantman": invented(row, "gantman") / 50,
        "watermark_score": invented(row, "watermark") / 5, "aesthetic_score_laion_v2": 4 + invented(row, "aesthetic"),
    }  # fmt: skip


_LAYOUTS: dict[str, tuple[pa.Schema, Callable[[Row], dict[str, Any]]]] = {
    "laion2b": (_LAION2B, _laion2b),
    "laion400m": (_LAION400M, _laion400m),
    "laioncoco": (_LAIONCOCO, _laioncoco),
    "coyo700m": (_COYO700M, _coyo700m),
}

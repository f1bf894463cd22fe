"""Metadata that are published as JSON: RedCaps, SBU, Visual Genome."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pipeline.world.draft import Row
from pipeline.world.invented import invented, size


def redcaps(rows: Sequence[Row], name: str) -> bytes:
    """Encode rows as annotations of one subreddit and year.

    Args:
        rows: The rows.
        name: ``<subreddit>_<year>``.
    """
    subreddit, _, year = name.rpartition("_")
    start_s = 1_546_300_800 + (int(year) - 2019) * 31_536_000
    annotations = [_written(row) if row.raw is not None else _annotation(row, subreddit, start_s) for row in rows]
    info = {"description": "Made up in RedCaps' layout for rs5m-build", "year": int(year), "version": "1.0"}
    return _json({"info": info, "annotations": annotations})


def _annotation(row: Row, subreddit: str, start_s: int) -> dict[str, Any]:
    text = row.texts[0] if row.texts else ""
    width, height = size(row)
    key = f"{int(invented(row, 'id') * 36**6):x}"
    return {
        "image_id": key, "author": f"author{int(invented(row, 'author') * 1e4)}", "url": row.url,
        "raw_caption": f"{text.capitalize()} [{width}x{height}]", "caption": text, "subreddit": subreddit,
        "score": int(invented(row, "score") * 900),
        "created_utc": start_s + int(invented(row, "second") * 31_000_000),
        "permalink": f"/r/{subreddit}/comments/{key}/",
    }  # fmt: skip


def sbu(rows: Sequence[Row]) -> bytes:
    """Encode rows as SBU's parallel arrays."""
    entries = [_written(row) if row.raw is not None else _entry(row) for row in rows]
    names = ("image_urls", "user_ids", "captions")
    return _json({name: [entry[name] for entry in entries] for name in names})


def _entry(row: Row) -> dict[str, Any]:
    user = f"{10_000_000 + int(invented(row, 'user') * 8e7)}@N00"
    return {"image_urls": row.url, "user_ids": user, "captions": row.texts[0] if row.texts else None}


def vg_regions(rows: Sequence[Row]) -> bytes:
    """Encode the texts of rows as Visual Genome's region descriptions, a list of regions an image."""
    return _json([_written(row) if row.raw is not None else _regions(row) for row in rows])


def vg_images(rows: Sequence[Row]) -> bytes:
    """Encode the urls of rows as Visual Genome's list of images."""
    return _json([_image(row) for row in rows if row.raw is None or isinstance(_written(row), dict)])


def _regions(row: Row) -> dict[str, Any]:
    image_id = _image_id(row)
    width, height = size(row)
    regions = [
        {
            "region_id": image_id * 100 + number, "image_id": image_id, "phrase": phrase,
            "x": number * width // 8, "y": number * height // 8, "width": width // 2, "height": height // 2,
        }
        for number, phrase in enumerate(row.texts)
    ]  # fmt: skip
    return {"id": image_id, "regions": regions}


def _image(row: Row) -> dict[str, Any]:
    width, height = size(row)
    return {
        "image_id": _image_id(row), "url": _vg_url(row), "width": width, "height": height, "coco_id": None,
        "flickr_id": 1_000_000_000 + int(invented(row, "flickr") * 1e9),
    }  # fmt: skip


def _vg_url(row: Row) -> str | None:
    return row.url if row.raw is None else "http://campus.rs5m.test/VG_100K/unreadable.jpg"


def _image_id(row: Row) -> int:
    if row.raw is not None:
        return int(_written(row)["id"])
    return 1 + int(invented(row, "image") * 2_400_000)


def _written(row: Row) -> Any:  # noqa: ANN401
    return json.loads(row.raw or b"null")


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"

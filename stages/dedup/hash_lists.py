"""Hash lists: what must be known of the images of an evaluation set to keep them out of a build, without the images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from manifests.schemas import TABLES
from manifests.tables import empty_frame, read_table, write_table
from stages.dedup.inspect import inspected
from stages.held_images import find_samples
from stages.members import Archive

TABLE = TABLES["hash_list"]
HashKind = Literal["exact", "fast"]


class HashListError(ValueError):
    """A file is no hash list."""


@dataclass(frozen=True, slots=True)
class Hashed:
    """The images of a folder or archive, hashed.

    Attributes:
        frame: The table `hash_list`: one row for every image that could be read, sorted by item (its path).
        unread: Path and reason of the others, sorted.
    """

    frame: pl.DataFrame
    unread: list[tuple[str, str]]


def hash_images(
    archive: Archive, kind: HashKind, max_pixels: int, max_bytes: int, tell: Callable[[int, int], None]
) -> Hashed:
    """Hash every image of a folder or archive, as `dedup.inspect` hashes those of a build.

    Args:
        archive: Open; images are known by their endings.
        kind: As `dedup.hash` of the builds it is meant for.
        max_pixels: Images of more pixels are not decoded.
        max_bytes: Files of more bytes are not read.
        tell: Told now and then how many images are done, and of how many.

    Raises:
        ArchiveError: If the archive as a whole is damaged.
    """
    samples = find_samples("imagefolder", [member.path for member in archive.members()])
    paths = [sample.image for sample in samples if sample.image]
    rows: list[dict[str, Any]] = []
    unread: list[tuple[str, str]] = []
    for count, piece in enumerate(archive.read_many(paths, max_bytes), 1):
        if piece.problem:
            found: dict[str, Any] = {"reason": piece.problem, "detail": piece.detail}
        else:
            found = _look(piece.body, kind, max_pixels)
        if "reason" in found:
            unread.append((piece.path, f"{found['reason']}: {found['detail']}"))
        else:
            rows.append({**found, "item": piece.path})
        tell(count, len(paths))
    schema = empty_frame(TABLE).schema
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in schema if name != "thumbnail"}
    thumbnails = np.array([row["thumbnail"] for row in rows], np.uint8).reshape(len(rows), 256)
    columns["thumbnail"] = pl.Series(thumbnails, dtype=schema["thumbnail"])
    frame = pl.DataFrame({name: columns[name] for name in schema}, schema=schema).sort("item")
    return Hashed(frame, sorted(unread))


def write_hash_list(frame: pl.DataFrame, path: Path) -> None:
    """Write a hash list: equal images and settings give equal bytes."""
    write_table(TABLE, frame, path)


def read_hash_list(path: Path) -> pl.DataFrame:
    """Read a hash list.

    Raises:
        HashListError: It is not there, or no hash list.
    """
    try:
        return read_table(TABLE, path)
    except FileNotFoundError as error:
        raise HashListError(f"{path} is not there") from error
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise HashListError(f"{path} is no hash list; make one with `rs5m-build hash-images`") from error


def _look(body: bytes, kind: HashKind, max_pixels: int) -> dict[str, Any]:
    return {**inspected(body, kind, max_pixels), "sha256": hashlib.sha256(body).hexdigest()}

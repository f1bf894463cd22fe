"""Hash lists: what must be known of the images of an evaluation set to keep them out of a build, without the images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from manifests.schemas import TABLES
from manifests.tables import empty_frame
from stages.dedup.guarded import inspect_guarded
from stages.held_images import find_samples
from stages.members import Archive

TABLE = TABLES["hash_list"]
HashKind = Literal["exact", "fast"]


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
        GuardError: If images cannot be decoded in a process of their own.
    """
    samples = find_samples("imagefolder", [member.path for member in archive.members()])
    paths = [sample.image for sample in samples if sample.image]
    rows: list[dict[str, Any]] = []
    unread: list[tuple[str, str]] = []

    def leave(path: str, reason: str, detail: str) -> None:
        unread.append((path, f"{reason}: {detail}"))
        tell(len(rows) + len(unread), len(paths))

    def readable() -> Iterator[tuple[tuple[str, str], bytes]]:
        for piece in archive.read_many(paths, max_bytes):
            if piece.problem:
                leave(piece.path, piece.problem, piece.detail)
            else:
                yield (piece.path, hashlib.sha256(piece.body).hexdigest()), piece.body

    for (path, sha256), found in inspect_guarded(readable(), kind, max_pixels):
        if "reason" in found:
            leave(path, found["reason"], found["detail"])
            continue
        rows.append({**found, "sha256": sha256, "item": path})
        tell(len(rows) + len(unread), len(paths))
    schema = empty_frame(TABLE).schema
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in schema if name != "thumbnail"}
    thumbnails = np.array([row["thumbnail"] for row in rows], np.uint8).reshape(len(rows), 256)
    columns["thumbnail"] = pl.Series(thumbnails, dtype=schema["thumbnail"])
    frame = pl.DataFrame({name: columns[name] for name in schema}, schema=schema).sort("item")
    return Hashed(frame, sorted(unread))

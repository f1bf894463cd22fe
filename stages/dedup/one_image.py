"""What dedup.inspect says of one image: pure, and light enough to import for a process that does nothing else."""

from __future__ import annotations

from typing import Any

from stages.decode import DecodeError, decode
from stages.phash import phash_d4, texture


def inspected(body: bytes, kind: str, max_pixels: int) -> dict[str, Any]:
    """Look at one image, in this process: for bytes from strangers see `stages.dedup.guarded`.

    Args:
        body: The file.
        kind: "exact" or "fast", as `dedup.hash`.
        max_pixels: Greatest accepted pixel count.

    Returns:
        The columns of `inspected` that follow from the body (``thumbnail`` as uint8 [256]), or ``reason`` and
        ``detail``.

    Raises:
        MemoryError: There was no memory for a picture of an accepted size.
    """
    try:
        image = decode(body, max_pixels, fast=kind == "fast")
    except DecodeError as error:
        return {"reason": error.reason, "detail": error.detail}
    hashes = phash_d4(image.luma32)
    return {
        "width": image.width,
        "height": image.height,
        "mode": image.mode,
        "frames": image.frames,
        "exif_orientation": image.exif_orientation,
        "exif_lon": image.exif_lon,
        "exif_lat": image.exif_lat,
        "hash_kind": f"phash64-{kind}",
        "phash": hashes[0],
        "phash_d4": list(hashes),
        "thumbnail": image.thumbnail.reshape(256),
        "texture": texture(image.thumbnail),
    }

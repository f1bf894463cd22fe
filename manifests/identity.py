"""Who a row is: file digests, locators, sample ids, and the keyed hashes that partitions and splits use.

Nothing here depends on a position in a released file, a machine path, a port or the number of workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import BinaryIO

_SAMPLE_PERSON = b"rs5m-sample-1"
_DRAW_PERSON = b"rs5m-draw-1"
_BLOCK_BYTES = 1 << 20
_PARQUET_MAGIC = b"PAR1"
_MAX_FOOTER_BYTES = 1 << 28


def sample_id(source: str, source_key: str | None, url: str, texts: Sequence[str]) -> str:
    """Return the sample id: 32 hex digits of BLAKE2b-128 over what the source published about the row.

    Args:
        source: Source key, e.g. ``laion2b``.
        source_key: The source's own key of the row, or None.
        url: The url as published.
        texts: The raw published text fields, unjoined, in the source's declared order.
    """
    digest = hashlib.blake2b(digest_size=16, person=_SAMPLE_PERSON)
    for field in (source, source_key or "", url, *texts):
        raw = field.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


def draw(*key: str | int) -> float:
    """Return a fixed number in [0, 1) drawn from ``key``: the only kind of randomness in a build."""
    return _draw_bits(key) / 2**53


def bucket(key: str, buckets: int) -> int:
    """Return which of ``buckets`` partitions ``key`` falls into, 0-based."""
    return _draw_bits((key,)) % buckets


def _draw_bits(key: Iterable[str | int]) -> int:
    digest = hashlib.blake2b(digest_size=8, person=_DRAW_PERSON)
    for part in key:
        raw = str(part).encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return int.from_bytes(digest.digest(), "little") >> 11


def file_digest(file: BinaryIO) -> str:
    """Return the file digest: sha256 over size and footer for Parquet, over the whole file otherwise.

    A Parquet footer holds every column chunk's offsets, sizes and statistics, so it stands for the file at the
    cost of one small read. Fixed within format 1.

    Args:
        file: Seekable binary file.
    """
    size = file.seek(0, 2)
    if size >= 12:
        file.seek(size - 8)
        tail = file.read(8)
        footer = int.from_bytes(tail[:4], "little")
        if tail[4:] == _PARQUET_MAGIC and footer <= min(size - 12, _MAX_FOOTER_BYTES):
            file.seek(size - 8 - footer)
            return hashlib.sha256(size.to_bytes(8, "little") + file.read(footer + 8)).hexdigest()
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


def locator(digest: str, row: int) -> str:
    """Return where a metadata row stood: ``<file digest 12>:<row>``."""
    return f"{digest[:12]}:{row}"


def tar_stem(subset: str, split: str, number: int) -> str:
    """Return the name of a released tar without its suffix, e.g. ``pub11-train-0007``."""
    return f"{subset}-{split}-{number:04d}"

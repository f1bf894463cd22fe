"""What clustering holds of every row: 74 bytes, whatever its url and ids are long."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.dedup.level_hash import level_hashes
from stages.dedup.urls import normalise

Keys = NDArray[np.uint64]

COLUMNS = ("sample_id", "source", "url", "sha256", "phash", "thumbnail", "texture")
_KEY_BYTES = 16
_KEY_DIGITS = 2 * _KEY_BYTES
_NO_KEY = "0" * _KEY_DIGITS


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What is compared of N rows, but for their thumbnails.

    Keys are 128 bits in two columns, the high half first, so that they sort as the texts they stand for; equal keys of
    different texts are out of reach of chance (2^-80 for a billion rows).

    Attributes:
        ids: Sample ids, uint64 [N, 2].
        tier: Tier of each source, 0 the best, uint16 [N].
        urls: Keys of the normalised urls, uint64 [N, 2]; zero where there is none.
        bodies: First halves of the sha256, uint64 [N, 2]; zero where there is none.
        phash: uint64 [N].
        levels: Level hashes of the thumbnails, uint64 [N].
        sums: Levels of the thumbnails added up, int32 [N].
        texture: Grey levels, float32 [N].
    """

    ids: Keys
    tier: NDArray[np.uint16]
    urls: Keys
    bodies: Keys
    phash: NDArray[np.uint64]
    levels: NDArray[np.uint64]
    sums: NDArray[np.int32]
    texture: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.phash)

    @classmethod
    def of(cls, frame: pl.DataFrame, order: Sequence[str]) -> Rows:
        """Take rows out of a table.

        Args:
            frame: sample_id string (32 hex digits), source, url string, sha256 string (hex), phash uint64, thumbnail
                uint8 [256], texture float32; no nulls. An empty url or sha256 ties nothing.
            order: As `tiers`.

        Raises:
            ValueError: Columns are missing, or an id or a digest is no hex.
        """
        if missing := sorted(set(COLUMNS) - set(frame.columns)):
            raise ValueError(f"rows to group lack {', '.join(missing)}")
        tier = tiers(order, frame["source"].unique().to_list())
        thumbnails = thumbnails_of(frame["thumbnail"])
        return cls(
            ids=_hex_keys(frame["sample_id"]),
            tier=frame["source"].replace_strict(tier, default=None, return_dtype=pl.UInt16).to_numpy(),
            urls=_url_keys(frame["url"]),
            bodies=_hex_keys(frame["sha256"]),
            phash=frame["phash"].to_numpy(),
            levels=level_hashes(thumbnails),
            sums=thumbnails.sum(axis=1, dtype=np.int32),
            texture=frame["texture"].to_numpy(),
        )

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Return the rows of all parts, one after the other."""
        empty = Rows.of(pl.DataFrame(schema=_SCHEMA), ())
        names = [field.name for field in fields(cls)]
        return cls(**{name: np.concatenate([getattr(part, name) for part in (empty, *parts)]) for name in names})

    def names(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the sample ids of some rows, as text."""
        text = self.ids[rows].astype(">u8").tobytes().hex()
        return [text[start : start + _KEY_DIGITS] for start in range(0, len(text), _KEY_DIGITS)]


_SCHEMA: dict[str, Any] = {
    "sample_id": pl.String, "source": pl.String, "url": pl.String, "sha256": pl.String, "phash": pl.UInt64,
    "thumbnail": pl.Array(pl.UInt8, 256), "texture": pl.Float32,
}  # fmt: skip


def thumbnails_of(column: pl.Series) -> NDArray[np.uint8]:
    """Return a column of thumbnails as uint8 [N, 256], without a copy where polars holds them as arrays."""
    levels: NDArray[np.uint8] = column.explode().to_numpy() if len(column) else np.empty(0, np.uint8)
    return levels.reshape(len(column), 256)


def tiers(order: Sequence[str], sources: Sequence[str]) -> dict[str, int]:
    """Tier of each source, 0 the best.

    Args:
        order: tiers, best first: each a list of names with commas, or "*" for all that are not named.
        sources: names to look up.

    Returns:
        source -> tier; len(order) for a source that nothing names.
    """
    named = {name.strip(): tier for tier, names in reversed([*enumerate(order)]) for name in names.split(",")}
    rest = named.get("*", len(order))
    return {source: named.get(source, rest) for source in sources}


def _hex_keys(texts: pl.Series) -> Keys:
    """The first 32 hex digits of each text as a key; zero for an empty text."""
    digits = texts.str.slice(0, _KEY_DIGITS).replace("", _NO_KEY)
    if not (digits.str.len_bytes() == _KEY_DIGITS).all():
        raise ValueError("a sample id has 32 hex digits, and a sha256 64")
    return _keys(bytes.fromhex("".join(digits)))


def _url_keys(urls: pl.Series) -> Keys:
    """The BLAKE2b-128 of each normalised url; zero for an empty url."""
    empty = bytes(_KEY_BYTES)
    plain = (normalise(url).encode("utf-8", "surrogatepass") for url in urls)
    return _keys(b"".join(hashlib.blake2b(url, digest_size=_KEY_BYTES).digest() if url else empty for url in plain))


def _keys(digests: bytes) -> Keys:
    return np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2)

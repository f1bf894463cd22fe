"""Which images of a build are images of an evaluation set, turned or mirrored as they may be."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.dedup.near import LOW_TEXTURE_LEVELS, LOW_TEXTURE_SHARE, NO_PROOF
from stages.dedup.pigeonhole import pairs_within

VIEWS = 8
_SIDE = 16
_PAIRS_AT_ONCE = 1 << 22
_SLICE_ROWS = 1 << 16  # thumbnails compared at once: bounds memory at about 64 MiB
_Rows = NDArray[np.int64]


class HashKindError(ValueError):
    """Hashes that were made in different ways: they are not compared."""


def find_leaks(images: pl.DataFrame, items: pl.DataFrame, radius: int, confirm_levels: float) -> pl.DataFrame:
    """Find the images that show an item of an evaluation set, in any of its eight rotations and reflections.

    A pair is within the radius in its hashes and is confirmed by its thumbnails, as duplicates within a build are:
    their mean difference is at most ``confirm_levels``, and a third of that where either picture has little texture.

    Args:
        images: sample_id string, hash_kind string, phash uint64, thumbnail uint8 [256], texture float32.
        items: item string, hash_kind, phash_d4 eight uint64, thumbnail, texture; as `hash_images` makes them.
        radius: Greatest hash distance in bits, 0 to 16.
        confirm_levels: Grey levels; 255: hashes alone decide.

    Returns:
        sample_id, item, distance int16 (bits), view uint8 (the image looks like the item turned by `view` quarters;
        from 4 on mirrored first, then turned), confirm float32 (mean difference in grey levels). Of the views of a pair
        the nearest, sorted by sample_id and item.

    Raises:
        HashKindError: The hashes are not all of one kind.
    """
    schema = {
        "sample_id": pl.String, "item": pl.String, "distance": pl.Int16, "view": pl.UInt8, "confirm": pl.Float32,
    }  # fmt: skip
    one_kind(set(images["hash_kind"].unique()) | set(items["hash_kind"].unique()))
    if images.is_empty() or items.is_empty():
        return pl.DataFrame(schema=schema)
    views = items["phash_d4"].explode().to_numpy()
    near = _near(images["phash"].to_numpy(), views, radius)
    if near.count() > _PAIRS_AT_ONCE and len(images) > 1:  # a placeholder on both sides: a block at a time
        half = len(images) // 2
        parts = [find_leaks(part, items, radius, confirm_levels) for part in (images[:half], images[half:])]
        return pl.concat(parts).sort("sample_id", "item")
    image, view, distance = near.pairs()
    item, turn = view // VIEWS, (view % VIEWS).astype(np.uint8)
    confirm, agrees = _confirmed(images, items, image, item, turn, confirm_levels)
    found = pl.DataFrame(
        {
            "sample_id": images["sample_id"].gather(image[agrees]), "item": items["item"].gather(item[agrees]),
            "distance": distance[agrees].astype(np.int16), "view": turn[agrees], "confirm": confirm[agrees],
        },
        schema=schema,
    )  # fmt: skip
    best = found.sort("sample_id", "item", "distance", "confirm", "view")
    return best.unique(["sample_id", "item"], keep="first", maintain_order=True)


def one_kind(kinds: Collection[str]) -> None:
    """Refuse hashes of several kinds.

    Raises:
        HashKindError: There are several.
    """
    if len(kinds) > 1:
        named = " and of ".join(sorted(kinds))
        raise HashKindError(f"hashes of {named} are not compared: hash all images in one way (dedup.hash)")


@dataclass(frozen=True, slots=True)
class _Near:
    """Which rows of one vector are near which of another, by their distinct hashes.

    Attributes:
        images: left (hash), image (row).
        views: right (hash), view (row).
        hashes: left, right, bits: pairs of hashes that are near, both ways and each with itself.
    """

    images: pl.DataFrame
    views: pl.DataFrame
    hashes: pl.DataFrame

    def count(self) -> int:
        """How many pairs of rows there are."""
        images = self.images.group_by("left").len("images")
        views = self.views.group_by("right").len("views")
        counted = self.hashes.join(images, on="left").join(views, on="right")
        return int(counted.select((pl.col("images").cast(pl.Int64) * pl.col("views")).sum()).item())

    def pairs(self) -> tuple[_Rows, _Rows, _Rows]:
        """Return the pairs: image, view, bits apart."""
        pairs = self.hashes.join(self.images, on="left").join(self.views, on="right")
        return pairs["image"].to_numpy(), pairs["view"].to_numpy(), pairs["bits"].to_numpy()


def _near(one: NDArray[np.uint64], other: NDArray[np.uint64], radius: int) -> _Near:
    hashes, place = np.unique(np.concatenate([one, other]), return_inverse=True)
    low, high, apart = pairs_within(hashes, radius)
    same = np.arange(len(hashes))
    # Each hash is its own neighbour; a pair of neighbours counts both ways.
    left, right = np.concatenate([same, low, high]), np.concatenate([same, high, low])
    bits = np.concatenate([np.zeros(len(hashes), np.int64), apart.astype(np.int64), apart.astype(np.int64)])
    return _Near(
        pl.DataFrame({"left": place[: len(one)], "image": np.arange(len(one))}),
        pl.DataFrame({"right": place[len(one) :], "view": np.arange(len(other))}),
        pl.DataFrame({"left": left, "right": right, "bits": bits}),
    )


def _confirmed(
    images: pl.DataFrame, items: pl.DataFrame, image: _Rows, item: _Rows, turn: NDArray[np.uint8], levels: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Mean differences of the thumbnails of pairs, and whether they are small enough."""
    ours, theirs = _thumbnails(images), _turned(_thumbnails(items))
    low_ours, low_theirs = (frame["texture"].to_numpy() < LOW_TEXTURE_LEVELS for frame in (images, items))
    share = 1.0 if levels >= NO_PROOF else LOW_TEXTURE_SHARE
    limit = np.where(low_ours[image] | low_theirs[item], levels * share, levels)
    differ = np.empty(len(image), np.float32)
    for start in range(0, len(image), _SLICE_ROWS):
        part = slice(start, start + _SLICE_ROWS)
        apart = np.abs(ours[image[part]].astype(np.int16) - theirs[turn[part], item[part]])
        differ[part] = apart.mean(axis=1)
    return differ, differ <= limit


def _thumbnails(frame: pl.DataFrame) -> NDArray[np.uint8]:
    return frame["thumbnail"].explode().to_numpy().reshape(len(frame), _SIDE * _SIDE)


def _turned(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """All views of thumbnails, uint8 [8, N, 256], in the order of `phash_d4`."""
    upright = thumbnails.reshape(-1, _SIDE, _SIDE)
    mirrored = upright[:, :, ::-1]
    views = [np.rot90(start, quarters, axes=(1, 2)) for start in (upright, mirrored) for quarters in range(4)]
    return np.stack([view.reshape(len(thumbnails), -1) for view in views])

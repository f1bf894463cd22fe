"""Which images of a build are images of an evaluation set, turned or mirrored as they may be."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.dedup import level_hash
from stages.dedup.pigeonhole import collapsed, pairs_within
from stages.dedup.rows import thumbnails_of
from stages.dedup.second_proof import NOTHING_TO_SEE, Looks, SecondProof, confirmed

VIEWS = 8
LEVEL_TEXTURE = 3.0
"""Texture, grey levels, from which level hashes are compared."""

_SIDE = 16
_PAIRS_AT_ONCE = 1 << 22
_LEAKS = pl.Schema({
    "sample_id": pl.String, "item": pl.String, "distance": pl.Int16, "view": pl.UInt8, "confirm": pl.Float32,
})  # fmt: skip
_Rows = NDArray[np.int64]


class HashKindError(ValueError):
    """Hashes that were made in different ways: they are not compared."""


def find_leaks(images: pl.DataFrame, items: pl.DataFrame, radius: int, proof: SecondProof | None) -> pl.DataFrame:
    """Find the images that show an item of an evaluation set, in any of its eight rotations and reflections.

    Pairs are found and confirmed as duplicates within a build are: by equal bytes, or by either hash and then by their
    thumbnails. Level
    hashes are compared from a texture of `LEVEL_TEXTURE` on: eight views of calm pictures look like very many others.

    Args:
        images: sample_id string, sha256 string, hash_kind string, phash uint64, thumbnail uint8 [256], texture float32.
        items: item string, sha256, hash_kind, phash_d4 eight uint64, thumbnail, texture; as `hash_images` makes them.
        radius: Greatest distance of perceptual hashes in bits, 0 to 16.
        proof: When thumbnails agree; None: the perceptual hash alone decides.

    Returns:
        sample_id, item, distance int16 (bits), view uint8 (the image looks like the item turned by `view` quarters;
        from 4 on mirrored first, then turned), confirm float32 (standard deviation of the thumbnails' difference, grey
        levels). Of the views of a pair the nearest, sorted by sample_id and item.

    Raises:
        HashKindError: The hashes are not all of one kind.
    """
    one_kind(set(images["hash_kind"].unique()) | set(items["hash_kind"].unique()))
    same = images.select("sample_id", "sha256").join(items.select("item", "sha256"), on="sha256")
    equal = same.with_columns(distance=0, view=0, confirm=0.0).select(*_LEAKS).cast(_LEAKS)
    found = pl.concat([equal, _look_alikes(images, items, radius, proof)])
    best = found.sort("sample_id", "item", "distance", "confirm", "view")
    return best.unique(["sample_id", "item"], keep="first", maintain_order=True)


def _look_alikes(images: pl.DataFrame, items: pl.DataFrame, radius: int, proof: SecondProof | None) -> pl.DataFrame:
    if proof is not None:
        images, items = (frame.filter(pl.col("texture") >= NOTHING_TO_SEE) for frame in (images, items))
    if images.is_empty() or items.is_empty():
        return pl.DataFrame(schema=_LEAKS)
    ours, theirs = _looks(images), _looks_of_views(items)
    near = [_near(ours.phash, theirs.phash, radius)]
    if proof is not None:
        near.append(_near_by_level(ours, theirs))
    if sum(one.count() for one in near) > _PAIRS_AT_ONCE and len(images) > 1:  # a placeholder on both sides
        half = len(images) // 2
        return pl.concat([_look_alikes(part, items, radius, proof) for part in (images[:half], images[half:])])
    image, view = _joined([one.pairs() for one in near])
    agrees, confirm = confirmed(ours, theirs, image, view, proof)
    image, view = image[agrees], view[agrees]
    return pl.DataFrame(
        {
            "sample_id": images["sample_id"].gather(image), "item": items["item"].gather(view // VIEWS),
            "distance": np.bitwise_count(ours.phash[image] ^ theirs.phash[view]).astype(np.int16),
            "view": (view % VIEWS).astype(np.uint8), "confirm": confirm[agrees],
        },
        schema=_LEAKS,
    )  # fmt: skip


def _looks(images: pl.DataFrame) -> Looks:
    return Looks.of(images["phash"].to_numpy(), images["texture"].to_numpy(), thumbnails_of(images["thumbnail"]))


def _looks_of_views(items: pl.DataFrame) -> Looks:
    """What is known of all views of the items, view k of item n at 8 n + k."""
    views = _turned(thumbnails_of(items["thumbnail"])).transpose(1, 0, 2).reshape(-1, _SIDE * _SIDE)
    return Looks.of(items["phash_d4"].explode().to_numpy(), np.repeat(items["texture"].to_numpy(), VIEWS), views)


def _joined(found: list[tuple[_Rows, _Rows]]) -> tuple[_Rows, _Rows]:
    """Pairs that several hashes found, each once."""
    pairs = np.unique(np.stack([np.concatenate(side) for side in zip(*found, strict=True)]), axis=1)
    return pairs[0], pairs[1]


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
        hashes: left, right: pairs of hashes that are near, both ways and each with itself.
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

    def pairs(self) -> tuple[_Rows, _Rows]:
        """Return the pairs: image, view."""
        pairs = self.hashes.join(self.images, on="left").join(self.views, on="right")
        return pairs["image"].to_numpy(), pairs["view"].to_numpy()


def _near_by_level(ours: Looks, theirs: Looks) -> _Near:
    rows = [np.flatnonzero(side.texture >= LEVEL_TEXTURE) for side in (ours, theirs)]
    levels = [level_hash.level_hashes(side.thumbnails[some]) for side, some in zip((ours, theirs), rows, strict=True)]
    near = _near(levels[0], levels[1], level_hash.RADIUS)
    return _Near(
        near.images.with_columns(pl.Series("image", rows[0][near.images["image"].to_numpy()])),
        near.views.with_columns(pl.Series("view", rows[1][near.views["view"].to_numpy()])),
        near.hashes,
    )


def _near(one: NDArray[np.uint64], other: NDArray[np.uint64], radius: int) -> _Near:
    hashes, place = collapsed(np.concatenate([one, other]))
    low, high, _ = pairs_within(hashes, radius)
    same = np.arange(len(hashes), dtype=np.uint32)
    # Each hash is its own neighbour; a pair of neighbours counts both ways.
    left, right = np.concatenate([same, low, high]), np.concatenate([same, high, low])
    return _Near(
        pl.DataFrame({"left": place[: len(one)], "image": np.arange(len(one))}),
        pl.DataFrame({"right": place[len(one) :], "view": np.arange(len(other))}),
        pl.DataFrame({"left": left, "right": right}),
    )


def _turned(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """All views of thumbnails, uint8 [8, N, 256], in the order of `phash_d4`."""
    upright = thumbnails.reshape(-1, _SIDE, _SIDE)
    mirrored = upright[:, :, ::-1]
    views = [np.rot90(start, quarters, axes=(1, 2)) for start in (upright, mirrored) for quarters in range(4)]
    return np.stack([view.reshape(len(thumbnails), -1) for view in views])

"""Who stays and who goes: groups of copies, each with the one member that stays.

1. Rank. Every row has the rank (tier of its source, sample id); sample ids are digests, so within a tier the order is a
   fixed random draw. The best-ranked row of a group stays.
2. Equality. Rows with the same normalised url, or the same bytes, are one group, through any chain of such ties: these
   are equalities, so chains are sound. The best-ranked row represents the group.
3. Near. Representatives are visited from the best rank down. Each joins the best-ranked representative that stays, is
   within the radius and agrees by thumbnail; one that finds none stays. Every representative dropped is thus near the
   one that stays, and look-alikes cannot chain: with a-b and b-c near but a-c far, b goes to a, and c stays.

Only representatives are compared: members of an equality group nearly always share their bytes, and a url that served
two pictures must not tie their look-alikes together.

Thumbnails agree when their mean absolute difference is at most `confirm_levels`. Where the texture of either is below
stages.dedup.near.LOW_TEXTURE_LEVELS, a third of that: haze, sea and blank tiles have hashes made of noise, and their
copies differ less. Measured on 13,600 re-encoded and resized copies of 1,700 pictures: copies differ by at most 4.8
levels, those of low texture by at most 1.3 (benchmarks/measure_radius.py).
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
import scipy.sparse
import scipy.sparse.csgraph
from numpy.typing import NDArray

from stages.dedup.near import Pictures, join_leaders
from stages.dedup.urls import normalise

Rows = NDArray[np.int64]

COLUMNS = ("sample_id", "source", "url", "sha256", "phash", "thumbnail", "texture")
SCHEMA = {
    "sample_id": pl.String, "cluster_id": pl.String, "via_id": pl.String, "proof": pl.String,
    "distance": pl.Int16, "confirm": pl.Float32,
}  # fmt: skip
_PROOFS = pl.Series(["", "url", "bytes", "near"])


def group(rows: pl.DataFrame, radius: int, confirm_levels: float, order: Sequence[str]) -> pl.DataFrame:
    """Groups copies and says by which proof each row belongs to the one that stays.

    Args:
        rows: sample_id string (unique), source string, url string, sha256 string, phash uint64, thumbnail uint8 [P]
            (array or list of one length), texture float32 (grey levels); no nulls, any order. An empty url or sha256
            ties nothing.
        radius: greatest hash distance in bits, 0 to 16.
        confirm_levels: greatest mean absolute thumbnail difference in grey levels.
        order: tiers of sources, best first: each a list of names with commas, or "*" for all that are not named. Last
            if nothing names them.

    Returns:
        One line per row, sorted by sample_id: sample_id; cluster_id, the row that stays; via_id, the row it is tied to
        directly (its own id if it stays); proof, "" for the row that stays, else how it is tied to via_id: "url" (same
        normalised url), "bytes" (same sha256, another url), "near"; distance int16 (bits) and confirm float32 (mean
        absolute thumbnail difference, grey levels), null unless near. Copies of a near row keep "url" or "bytes" and
        the row they copy in via_id; following via_id always ends at cluster_id.

    Raises:
        ValueError: Columns are missing, a sample id stands twice, or a limit is out of range.
    """
    _check(rows, confirm_levels)
    ranked = _ranked(rows, order)
    same_url, same_bytes = _first_with(ranked, "url_key"), _first_with(ranked, "sha256")
    representative = _components(same_url, same_bytes)
    via, by_url = _ties(representative, same_url, same_bytes)
    leads = np.flatnonzero(representative == np.arange(len(representative)))
    pictures = Pictures(
        phash=ranked["phash"].to_numpy()[leads],
        texture=ranked["texture"].to_numpy()[leads],
        thumbnails=_thumbnails(rows["thumbnail"]),
        rows=ranked["row"].to_numpy()[leads].astype(np.int64),
    )
    joined = join_leaders(pictures, radius, confirm_levels)

    count = len(ranked)
    leader = np.arange(count)
    leader[leads] = leads[joined.leader]
    near = leader != np.arange(count)
    via[near] = leader[near]
    follows = representative != np.arange(count)
    ids = ranked["sample_id"]
    return pl.DataFrame(
        {
            "sample_id": ids,
            "cluster_id": ids.gather(leader[representative]),
            "via_id": ids.gather(via),
            "proof": _PROOFS.gather(np.select([near, follows & by_url, follows], [3, 1, 2], 0)),
            "distance": _where(near, leads, joined.distance),
            "confirm": _where(near, leads, joined.confirm),
        },
        schema=SCHEMA,
    ).sort("sample_id")


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


def _check(rows: pl.DataFrame, confirm_levels: float) -> None:
    missing = sorted(set(COLUMNS) - set(rows.columns))
    if missing:
        msg = f"rows to group lack {', '.join(missing)}"
        raise ValueError(msg)
    if rows["sample_id"].n_unique() != len(rows):
        raise ValueError("a sample id stands twice in the rows to group: drop repeated rows first")
    if not 0 <= confirm_levels <= 255:
        msg = f"confirm_levels must be 0 to 255 grey levels, not {confirm_levels}"
        raise ValueError(msg)


def _ranked(rows: pl.DataFrame, order: Sequence[str]) -> pl.DataFrame:
    """The rows without thumbnails, best rank first: `rank` counts from 0, `row` is where each stood."""
    tier = tiers(order, rows["source"].unique().to_list())
    return (
        rows.select(*(column for column in COLUMNS if column != "thumbnail"))
        .with_row_index("row")
        .with_columns(
            pl.col("source").replace_strict(tier, default=None, return_dtype=pl.Int32).alias("tier"),
            pl.Series("url_key", [normalise(url) for url in rows["url"]], dtype=pl.String),
        )
        .sort("tier", "sample_id")
        .with_row_index("rank")
    )


def _first_with(ranked: pl.DataFrame, key: str) -> Rows:
    """For every row the best-ranked row of equal key; itself where the key is empty."""
    rank = pl.col("rank")
    first = pl.when(pl.col(key) == "").then(rank).otherwise(rank.min().over(key))
    return ranked.select(first.cast(pl.Int64)).to_series().to_numpy()


def _components(same_url: Rows, same_bytes: Rows) -> Rows:
    """For every row the best-ranked row that it is tied to through any chain of equal urls and bytes."""
    count = len(same_url)
    if count == 0:
        return np.empty(0, np.int64)
    rows = np.arange(count)
    ends = np.concatenate((same_url, same_bytes))
    ties = scipy.sparse.coo_array((np.ones(2 * count, np.bool_), (np.tile(rows, 2), ends)), shape=(count, count))
    _, label = scipy.sparse.csgraph.connected_components(ties, directed=False)
    _, first = np.unique(label, return_index=True)
    best: Rows = first[label].astype(np.int64)
    return best


def _ties(representative: Rows, same_url: Rows, same_bytes: Rows) -> tuple[Rows, NDArray[np.bool_]]:
    """The row each row is tied to directly, one step nearer to its representative, and whether by url.

    Of several, the one reached in the fewest steps, a shared url before shared bytes, then the best rank.
    """
    count = len(representative)
    via, by_url = np.arange(count), np.zeros(count, np.bool_)
    known_url, known_bytes = np.full(count, count), np.full(count, count)
    reached = np.flatnonzero(representative == np.arange(count))
    waiting = np.flatnonzero(representative != np.arange(count))
    while len(waiting):
        for known, key in ((known_url, same_url[reached]), (known_bytes, same_bytes[reached])):
            fresh = known[key] == count
            np.minimum.at(known, key[fresh], reached[fresh])
        url_tie, bytes_tie = known_url[same_url[waiting]], known_bytes[same_bytes[waiting]]
        by_url[waiting] = url_tie < count
        tied = (url_tie < count) | (bytes_tie < count)
        via[waiting] = np.where(url_tie < count, url_tie, bytes_tie)
        reached, waiting = waiting[tied], waiting[~tied]
    return via, by_url


def _thumbnails(column: pl.Series) -> NDArray[np.uint8]:
    """The thumbnails as one uint8 table [N, pixels], without a copy where polars holds them as arrays."""
    values = column.explode() if len(column) else pl.Series([], dtype=pl.UInt8)
    flat: NDArray[np.uint8] = values.to_numpy()
    if flat.dtype != np.uint8 or (len(column) and len(flat) % len(column)):
        raise ValueError("thumbnails must be uint8 and all of one length")
    return flat.reshape(len(column), len(flat) // max(1, len(column)))


def _where(near: NDArray[np.bool_], leads: Rows, values: NDArray[np.int16] | NDArray[np.float32]) -> pl.Series:
    """The values of the representatives, spread over all rows; null where a row is not tied as near."""
    spread = np.zeros(len(near), values.dtype)
    spread[leads] = values
    column = pl.Series("value", spread)
    return pl.select(pl.when(pl.Series("near", near)).then(column)).to_series()

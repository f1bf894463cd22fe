"""Who stays and who goes: groups of copies, each with the one member that stays.

1. Rank. Every row has the rank (tier of its source, sample id); sample ids are digests, so within a tier the order is a
   fixed random draw. The best-ranked row of a group stays.
2. Equality. Rows with the same normalised url, or the same bytes, are one group, through any chain of such ties: these
   are equalities, so chains are sound. The best-ranked row represents the group.
3. Near. Representatives are visited from the best rank down. Each joins the best-ranked representative that stays, is
   its rival by a hash and agrees by thumbnail; one that finds none stays. Every representative dropped is thus near the
   one that stays, and look-alikes cannot chain: with a-b and b-c near but a-c far, b goes to a, and c stays.

Only representatives are compared: members of an equality group nearly always share their bytes, and a url that served
two pictures must not tie their look-alikes together.

Rivals of a representative, and when two pictures agree, are told in stages.dedup.near and stages.dedup.second_proof.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse
import scipy.sparse.csgraph
from numpy.typing import NDArray

from stages.dedup.level_pairs import Facts
from stages.dedup.near import Thumbnails, join_leaders
from stages.dedup.rows import Keys, Rows, thumbnails_of
from stages.dedup.second_proof import SecondProof

Index = NDArray[np.int64]

PROOFS = ("", "url", "bytes", "near")
SCHEMA = {
    "sample_id": pl.String, "cluster_id": pl.String, "via_id": pl.String, "proof": pl.String,
    "distance": pl.Int16, "confirm": pl.Float32,
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Who stays for each of N rows, in the order of the rows.

    Attributes:
        leader: The row that stays, int64 [N]; a row that stays is its own.
        via: The row it is tied to directly, int64 [N]; following it always ends at the leader.
        proof: Place in `PROOFS` of how it is tied to that row, uint8 [N]: 0 for a row that stays; the same normalised
            url; the same sha256 under another url; near.
        distance: Bits between the two hashes, int16 [N]; 0 unless near.
        confirm: Standard deviation of the difference of the thumbnails, grey levels, float32 [N]; 0 unless near.
        size: Rows of its cluster, itself among them, int64 [N].
        left_out: Rows that were compared by their perceptual hashes alone (`stages.dedup.level_pairs`).
    """

    leader: Index
    via: Index
    proof: NDArray[np.uint8]
    distance: NDArray[np.int16]
    confirm: NDArray[np.float32]
    size: Index
    left_out: int

    def frame(self, rows: Rows, some: Index) -> pl.DataFrame:
        """Return some rows as a table with the columns of `SCHEMA`; distance and confirm are null unless near."""
        near = pl.Series("near", self.proof[some] == PROOFS.index("near"))
        columns = {
            "sample_id": rows.names(some), "cluster_id": rows.names(self.leader[some]),
            "via_id": rows.names(self.via[some]), "proof": pl.Series(PROOFS).gather(self.proof[some]),
            "distance": self.distance[some], "confirm": self.confirm[some],
        }  # fmt: skip
        return pl.DataFrame(columns, schema=SCHEMA).with_columns(
            pl.when(near).then("distance").alias("distance"), pl.when(near).then("confirm").alias("confirm")
        )


def group_rows(rows: Rows, thumbnails: Thumbnails, radius: int, proof: SecondProof | None) -> Groups:
    """Group copies and say by which proof each row belongs to the one that stays.

    Args:
        rows: Any order; no sample id twice.
        thumbnails: Reads the thumbnails of some of the rows; asked for once, for rows that have a rival.
        radius: Greatest distance of perceptual hashes in bits, 0 to 16.
        proof: When thumbnails agree; None: the perceptual hash alone decides.

    Returns:
        Whom each row is tied to. Copies of a near row keep "url" or "bytes" and the row they copy in `via`.

    Raises:
        ValueError: A sample id stands twice, or the radius is out of range.
    """
    # From here on rows are numbered by rank; `ranked` leads back.
    ranked = np.lexsort((rows.ids[:, 1], rows.ids[:, 0], rows.tier))
    _check_ids(rows.ids)
    tied = _equality(rows.urls[ranked], rows.bodies[ranked])
    count = len(ranked)
    leads = np.flatnonzero(tied.representative == np.arange(count))
    places = ranked[leads]
    facts = Facts(rows.phash[places], rows.levels[places], rows.sums[places], rows.texture[places])
    joined = join_leaders(facts, lambda some: _in_order(thumbnails, places[some]), radius, proof)

    leader, via = np.arange(count), tied.via
    leader[leads] = leads[joined.leader]
    near = np.flatnonzero(leader != np.arange(count))
    via[near] = leader[near]
    by = np.select([tied.by_url, tied.representative != np.arange(count)], [1, 2], 0).astype(np.uint8)
    by[near] = PROOFS.index("near")
    staying = leader[tied.representative]
    return Groups(
        leader=_back(ranked[staying], ranked),
        via=_back(ranked[via], ranked),
        proof=_back(by, ranked),
        distance=_back(_spread(joined.distance, leads, count), ranked),
        confirm=_back(_spread(joined.confirm, leads, count), ranked),
        size=_back(np.bincount(staying, minlength=count)[staying], ranked),
        left_out=joined.left_out,
    )


def group(table: pl.DataFrame, radius: int, proof: SecondProof | None, order: Sequence[str]) -> pl.DataFrame:
    """Group the rows of a table.

    Args:
        table: The columns of `Rows.of`; any order.
        radius: As `group_rows`.
        proof: As `group_rows`.
        order: Tiers of sources, as `stages.dedup.rows.tiers`.

    Returns:
        One line per row with the columns of `SCHEMA`, sorted by sample_id.

    Raises:
        ValueError: As `group_rows` and `Rows.of`.
    """
    rows = Rows.of(table, order)
    levels = thumbnails_of(table["thumbnail"])
    found = group_rows(rows, lambda some: levels[some], radius, proof)
    return found.frame(rows, np.arange(len(rows))).sort("sample_id")


def _check_ids(ids: Keys) -> None:
    order = np.lexsort((ids[:, 1], ids[:, 0]))
    if (ids[order[1:]] == ids[order[:-1]]).all(axis=1).any():
        raise ValueError("a sample id stands twice in the rows to group: drop repeated rows first")


def _in_order(thumbnails: Thumbnails, places: Index) -> NDArray[np.uint8]:
    """Read thumbnails by rising place, and return them in the order asked for."""
    order = np.argsort(places)
    levels = thumbnails(places[order])
    result = np.empty_like(levels)
    result[order] = levels
    return result


@dataclass(frozen=True, slots=True, eq=False)
class _Tied:
    """Rows of equal url or bytes, by rank.

    Attributes:
        representative: The best-ranked row that each is tied to through any chain; itself if there is none.
        via: The row it is tied to directly, one step nearer to its representative.
        by_url: Whether by the url.
    """

    representative: Index
    via: Index
    by_url: NDArray[np.bool_]


def _equality(urls: Keys, bodies: Keys) -> _Tied:
    count = len(urls)
    rows = np.arange(count)
    same_url, same_bytes = _first_with(urls), _first_with(bodies)
    tied = _Tied(rows.copy(), rows.copy(), np.zeros(count, np.bool_))
    follows = (same_url != rows) | (same_bytes != rows)
    # Most rows are tied to nobody: the rest is done on those that are, and on those that they are tied to.
    some = np.unique(np.concatenate((np.flatnonzero(follows), same_url[follows], same_bytes[follows])))
    if not len(some):
        return tied
    near_url, near_bytes = np.searchsorted(some, same_url[some]), np.searchsorted(some, same_bytes[some])
    representative = _components(near_url, near_bytes)
    via, by_url = _ties(representative, near_url, near_bytes)
    tied.representative[some], tied.via[some], tied.by_url[some] = some[representative], some[via], by_url
    return tied


def _first_with(keys: Keys) -> Index:
    """For every row the first row of equal key; itself where the key is zero."""
    first = np.arange(len(keys))
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: within equal keys the rows rise
    ordered = keys[order]
    begins = np.ones(len(keys), np.bool_)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    starts = np.flatnonzero(begins)
    first[order] = np.repeat(order[starts], np.diff(starts, append=len(keys)))
    none = (keys == 0).all(axis=1)
    first[none] = np.flatnonzero(none)
    return first


def _components(same_url: Index, same_bytes: Index) -> Index:
    """For every row the first row that it is tied to through any chain of equal urls and bytes."""
    count = len(same_url)
    rows = np.arange(count)
    ends = np.concatenate((same_url, same_bytes))
    ties = scipy.sparse.coo_array((np.ones(2 * count, np.bool_), (np.tile(rows, 2), ends)), shape=(count, count))
    _, label = scipy.sparse.csgraph.connected_components(ties, directed=False)
    _, first = np.unique(label, return_index=True)
    best: Index = first[label].astype(np.int64)
    return best


def _ties(representative: Index, same_url: Index, same_bytes: Index) -> tuple[Index, NDArray[np.bool_]]:
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


def _spread(values: NDArray[Any], leads: Index, count: int) -> NDArray[Any]:
    """Return values of the representatives as values of all rows, zero for the others."""
    spread = np.zeros(count, values.dtype)
    spread[leads] = values
    return spread


def _back(values: NDArray[Any], ranked: Index) -> NDArray[Any]:
    """Return values by rank in the order of the rows."""
    back = np.empty_like(values)
    back[ranked] = values
    return back

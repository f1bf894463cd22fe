import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.dedup import pigeonhole
from stages.dedup.bands import Bands, BitOrder, choose_bands
from stages.dedup.pigeonhole import TooManyPairsError, collapsed, pairs_within

ALL_BITS = 2**64 - 1


def brute(hashes, radius):
    pairs = [
        (i, j, (int(a) ^ int(b)).bit_count())
        for (i, a), (j, b) in itertools.combinations(enumerate(hashes.tolist()), 2)
        if (int(a) ^ int(b)).bit_count() <= radius
    ]
    return sorted(pairs)


def brute_by_rows(hashes, radius):
    pairs = []
    for row in range(len(hashes) - 1):
        distance = np.bitwise_count(hashes[row + 1 :] ^ hashes[row])
        pairs += [(row, row + 1 + k, int(distance[k])) for k in np.flatnonzero(distance <= radius).tolist()]
    return pairs


def found(hashes, radius, threads=1):
    i, j, distance = pairs_within(hashes, radius, threads=threads)
    assert (i.dtype, j.dtype, distance.dtype) == (np.uint32, np.uint32, np.uint8)
    return list(zip(i.tolist(), j.tolist(), distance.tolist(), strict=True))


def even_bands(radius, chosen=1, groups=1, sources=tuple(range(63, -1, -1))):
    """Bands that take no notice of the hashes: every choice of `chosen` bands of a group, for even slices of bits."""
    count = radius + (chosen - 1) * groups + 1
    edges = [round(64 * band / count) for band in range(count + 1)]
    keys = [key for group in range(groups) for key in itertools.combinations(range(group, count, groups), chosen)]
    sizes = tuple(stop - start for start, stop in itertools.pairwise(edges))
    return Bands(BitOrder.of(list(sources)), sizes, tuple(keys))


@st.composite
def crowded(draw):
    """Hashes around a few centres, so that most distances matter; some equal, some sharing all their upper bits."""
    centres = draw(st.lists(st.integers(0, ALL_BITS), min_size=1, max_size=3))
    bits = st.integers(0, draw(st.sampled_from([7, 20, 63])))
    members = draw(st.lists(st.tuples(st.sampled_from(centres), st.lists(bits, max_size=10)), max_size=40))
    return np.array([c ^ sum(1 << b for b in set(flips)) for c, flips in members], dtype=np.uint64)


@given(crowded(), st.integers(0, 16))
@settings(max_examples=100)
def test_equals_brute_force_when_comparing_all(hashes, radius):
    assert found(hashes, radius) == brute(hashes, radius)


@given(
    crowded(),
    st.integers(0, 16),
    st.integers(1, 4),
    st.integers(1, 3),
    st.permutations(range(64)),
    st.sampled_from([2, 3, 256]),
    st.sampled_from([2, 8, 1 << 14]),
    st.sampled_from([1, 3]),
)
@settings(max_examples=80)
def test_equals_brute_force_through_any_bands(hashes, radius, chosen, groups, sources, long, searched, threads):
    chosen = min(chosen, 1 if radius > 6 else 2 if radius > 4 else 4)
    with pytest.MonkeyPatch.context() as patch:
        given_out = itertools.repeat(even_bands(max(radius, 1), chosen, groups, sources), 2)
        patch.setattr(pigeonhole, "choose_bands", lambda *_: next(given_out, None))
        patch.setattr(pigeonhole, "_LONG_RUN", long)
        patch.setattr(pigeonhole, "_SEARCHED_RUN", searched)
        patch.setattr(pigeonhole, "_BLOCK_ROWS", 16)
        patch.setattr(pigeonhole, "_SPARSE", 2)
        assert found(hashes, radius, threads) == brute(hashes, radius)


def near_copies(draw, rows, copies):
    hashes = draw.integers(0, 1 << 64, rows, dtype=np.uint64)
    for copy in range(copies):
        flips = sum(1 << int(bit) for bit in draw.choice(64, copy % 9, replace=False))
        hashes[rows - 1 - copy] = hashes[copy] ^ np.uint64(flips)
    return hashes


@pytest.mark.parametrize("radius", [0, 1, 2, 4, 6, 8])
def test_finds_planted_copies_among_many(radius):
    hashes = near_copies(np.random.default_rng(radius), 20_000, 200)
    if radius:
        assert choose_bands(np.unique(hashes), radius) is not None, "the bands must be what is tested here"
    everything = brute_by_rows(hashes, radius)
    assert len(everything) == sum(copy % 9 <= radius for copy in range(200))
    assert found(hashes, radius) == everything


@pytest.mark.parametrize("radius", [2, 4, 6])
def test_threads_make_no_difference(radius):
    draw = np.random.default_rng(radius)
    crowd = np.uint64(draw.integers(1 << 63)) ^ (draw.integers(0, 1 << 12, 900, dtype=np.uint64) << np.uint64(20))
    hashes = np.concatenate((near_copies(draw, 60_000, 500), crowd))
    results = [found(hashes, radius, threads) for threads in (1, 2, 3, 7)]
    assert len(results[0]) > 900
    assert results[0] == sorted(results[0])
    assert all(result == results[0] for result in results[1:])
    assert found(hashes, radius, None) == results[0]


def test_order_and_repeats_of_the_hashes_make_no_difference():
    draw = np.random.default_rng(5)
    distinct = np.unique(near_copies(draw, 20_000, 300))
    taken = np.concatenate((draw.permutation(len(distinct)), draw.integers(0, len(distinct), 100), np.full(50, 7)))
    expected = []
    for i, j, bits in found(distinct, 4) + [(d, d, 0) for d in range(len(distinct))]:
        ours, theirs = np.flatnonzero(taken == i).tolist(), np.flatnonzero(taken == j).tolist()
        expected += {(min(a, b), max(a, b), bits) for a in ours for b in theirs if a != b}
    assert len(expected) > 1_000
    assert found(distinct[taken], 4) == sorted(expected)


@given(st.lists(st.integers(0, ALL_BITS) | st.integers(0, 3), max_size=30))
def test_equal_hashes_are_collapsed(values):
    hashes = np.array(values, np.uint64)
    distinct, place = collapsed(hashes)
    assert distinct.tolist() == sorted(set(values))
    assert distinct[place].tolist() == values


def compared(patch):
    """Counts the pairs that are compared all with all, and how many rows each call gets."""
    rows = []
    honest = pigeonhole._near_of_all

    def counting(values, radius):
        rows.append(len(values))
        return honest(values, radius)

    patch.setattr(pigeonhole, "_near_of_all", counting)
    return rows


def lopsided(rows):
    """Half of all hashes share their upper 16 bits, and in half of those the next 16 as well."""
    draw = np.random.default_rng(2)
    hashes = near_copies(draw, rows, 200)
    hashes[: rows // 2] &= np.uint64(ALL_BITS >> 16)
    hashes[: rows // 4] &= np.uint64(ALL_BITS >> 32)
    return np.unique(hashes)


@pytest.mark.parametrize("own", [True, False], ids=["chosen bands", "bands that take no notice"])
def test_a_key_that_half_of_the_hashes_share_is_not_compared_all_with_all(monkeypatch, own):
    hashes = lopsided(120_000)
    expected = found(hashes, 3)
    rows = compared(monkeypatch)
    asked = []

    def choose(asking, *more):
        asked.append(len(asking))
        return even_bands(3) if not own and len(asking) == len(hashes) else choose_bands(asking, *more)

    monkeypatch.setattr(pigeonhole, "choose_bands", choose)
    assert found(hashes, 3) == expected
    assert sum(count**2 for count in rows) < len(hashes) ** 2 / 100
    assert own or max(asked[1:]) > len(hashes) * 0.49, "four keys of 16 bits must have had a run of half the hashes"


def test_a_crowd_is_found_whole():
    draw = np.random.default_rng(1)
    crowd = np.uint64(0xABCD << 48) | draw.integers(0, 1 << 24, 3_000, dtype=np.uint64)
    hashes = np.unique(np.concatenate((crowd, draw.integers(0, 1 << 64, 60_000, dtype=np.uint64))))
    assert found(hashes, 4) == brute_by_rows(hashes, 4)


def test_bands_take_the_shape_of_the_hashes():
    draw = np.random.default_rng(3)
    few = draw.integers(0, 1 << 24, 200_000, dtype=np.uint64)
    copied = (few << np.uint64(24)) | few  # 24 bits, each of them twice, and 16 that say nothing
    bands = choose_bands(np.unique(copied), 4)
    if bands is not None:
        told = [set() for _ in bands.sizes]
        edges = list(itertools.accumulate(bands.sizes, initial=0))
        where = bands.order.undone()
        for band, start in enumerate(edges[:-1]):
            for place in range(start, edges[band + 1]):
                bit = int(where.apply(np.array([1 << 63 - place], np.uint64))[0]).bit_length() - 1
                if bit < 48:
                    assert bit % 24 not in told[band], "a bit and its copy stand in one band"
                    told[band].add(bit % 24)
    spread = draw.integers(0, 1 << 64, 200_000, dtype=np.uint64)
    assert choose_bands(spread, 4) == choose_bands(spread.copy(), 4)


@given(st.permutations(range(64)), st.lists(st.integers(0, ALL_BITS), min_size=1, max_size=5))
def test_an_order_of_bits_is_undone(sources, values):
    order = BitOrder.of(list(sources))
    hashes = np.array(values, np.uint64)
    ordered = order.apply(hashes)
    for value, moved in zip(values, ordered.tolist(), strict=True):
        assert moved == sum((value >> source & 1) << 63 - place for place, source in enumerate(sources))
    assert order.undone().apply(ordered).tolist() == values


@pytest.mark.parametrize("rows", [10_000, 100_000])
@pytest.mark.parametrize("radius", [1, 2, 3, 4, 6, 8, 16])
def test_chosen_bands_leave_a_key_whichever_bands_differ(rows, radius):
    bands = choose_bands(np.random.default_rng(0).integers(0, 1 << 64, rows, dtype=np.uint64), radius, 2)
    if bands is None:
        assert radius > 2 or rows < 20_000
        return
    assert sum(bands.sizes) == 64
    keys = [sum(1 << band for band in key) for key in bands.keys]
    draw = np.random.default_rng(1)
    everyone = itertools.combinations(range(len(bands.sizes)), radius)
    some = (draw.choice(len(bands.sizes), radius, replace=False).tolist() for _ in range(2_000))
    for differing in everyone if radius <= 3 else some:
        taken = sum(1 << int(band) for band in differing)
        assert any(not key & taken for key in keys)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_for_a_pair(count):
    assert found(np.zeros(count, np.uint64), 4) == []


def test_more_pairs_than_wanted_are_refused():
    near = np.arange(16, dtype=np.uint64)  # 120 pairs at most 4 bits apart
    equal = np.zeros(16, np.uint64)
    for hashes in (near, equal, np.concatenate((near, near))):
        with pytest.raises(TooManyPairsError, match="smaller radius"):
            pairs_within(hashes, 4, most=119)
    assert len(pairs_within(near, 4, most=120)[0]) == len(pairs_within(equal, 4, most=120)[0]) == 120


def test_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match="0 to 16"):
        pairs_within(np.zeros(2, np.uint64), 17)
    with pytest.raises(ValueError, match="uint64"):
        pairs_within(np.zeros(2, np.int64), 4)

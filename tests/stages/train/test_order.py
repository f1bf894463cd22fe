import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.train.order import BLOCK_SAMPLES, WINDOW_SAMPLES, Shares, epoch_order, keyed_seed

COUNTS = st.lists(st.integers(0, 300), min_size=1, max_size=6)


@given(COUNTS, st.integers(-5, 5), st.integers(0, 3))
def test_an_epoch_has_every_sample_once(per_tar, seed, epoch):
    assert sorted(epoch_order(per_tar, seed, epoch)) == list(range(sum(per_tar)))


@given(st.integers(0, 200), st.sampled_from([1, 2, 3, 4]), st.integers(1, 5))
def test_ranks_read_disjoint_parts_of_the_same_batches(samples, world, own):
    order = np.random.default_rng(samples).permutation(samples)
    shares = [Shares(world * own, rank, world) for rank in range(world)]
    parts = [share.of(order) for share in shares]
    assert sorted(np.concatenate(parts)) == list(range(samples))
    for step in range(shares[0].steps(samples)):
        batch = np.concatenate([part[step * own : (step + 1) * own] for part in parts])
        assert list(batch) == list(order[step * world * own : (step + 1) * world * own])


def test_the_order_is_fixed_by_seed_and_epoch_for_good():
    assert epoch_order([5, 4], 2023, 0).tolist() == [8, 6, 1, 3, 5, 2, 7, 0, 4]
    assert epoch_order([5, 4], 2023, 1).tolist() != epoch_order([5, 4], 2023, 0).tolist()
    assert epoch_order([5, 4], 2024, 0).tolist() != epoch_order([5, 4], 2023, 0).tolist()
    assert keyed_seed(1, 2) != keyed_seed(2, 1)


def test_reads_stay_near_one_another_and_windows_draw_from_everywhere():
    order = epoch_order([50_000, 50_000], 1, 0)
    window = np.sort(order[:WINDOW_SAMPLES])
    runs = 1 + int((np.diff(window) > 1).sum())
    assert runs <= WINDOW_SAMPLES / BLOCK_SAMPLES + 2
    assert np.histogram(window, bins=10, range=(0, 100_000))[0].min() > 200
    assert np.abs(np.diff(order[:1000])).mean() > 10_000

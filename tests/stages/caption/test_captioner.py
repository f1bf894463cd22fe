from stages.caption.captioner import candidate_seed


def test_every_candidate_has_a_seed_of_its_own_that_never_changes():
    seeds = {
        candidate_seed(*key) for key in [(1, "a", 0), (2, "a", 0), (1, "b", 0), (1, "a", 1), (11, "a", 0), (1, "1a", 0)]
    }
    assert len(seeds) == 6
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert candidate_seed(2023, "0" * 32, 19) == 15134223921503459683

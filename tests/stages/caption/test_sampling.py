import collections
import math

import pytest

from stages.caption.captioner import Sampling, candidate_seed
from stages.caption.sampling import KeyedSampling, gumbel, philox

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def drawn(logits, seeds, sampling, step=0):
    """The tokens that argmax takes, one for each seed."""
    processor = KeyedSampling(seeds, sampling)
    scores = torch.tensor(logits).expand(len(seeds), -1)
    for _ in range(step):
        processor(None, scores)
    return processor(None, scores).argmax(dim=-1).tolist()


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_answers(counter, key, words):
    # The known answers that come with the authors' Random123 library.
    found = philox(tuple(torch.tensor(word) for word in counter), tuple(torch.tensor(word) for word in key))
    assert " ".join(f"{int(word):08x}" for word in found) == words


def test_gumbel_noise_has_the_right_mean_and_spread_and_no_infinity():
    noise = gumbel(torch.arange(50), 3, torch.arange(2000).expand(50, -1))
    assert torch.isfinite(noise).all()
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.02)
    assert float(noise.var()) == pytest.approx(math.pi**2 / 6, abs=0.04)


def test_noise_belongs_to_seed_step_and_token_alone():
    tokens = torch.arange(100).expand(2, -1)
    noise = gumbel(torch.tensor([5, -7]), 3, tokens)
    assert torch.equal(gumbel(torch.tensor([-7]), 3, tokens[:1].flip(-1)).flip(-1)[0], noise[1])
    others = [gumbel(torch.tensor([5]), 4, tokens[:1])[0], noise[1], gumbel(torch.tensor([6]), 3, tokens[:1])[0]]
    assert all(not torch.isclose(noise[0], other).any() for other in others)


def test_draws_follow_the_probabilities_that_top_k_and_top_p_leave():
    chances = [0.05, 0.4, 0.15, 0.3, 0.1]
    logits = [math.log(chance) for chance in chances]
    seeds = [candidate_seed(1, "one", number) for number in range(6000)]
    for sampling, left in [
        (Sampling(1, 1, top_k=0, top_p=1.0), {0, 1, 2, 3, 4}),
        (Sampling(1, 1, top_k=3, top_p=1.0), {1, 2, 3}),
        (Sampling(1, 1, top_k=0, top_p=0.69), {1, 3}),
        (Sampling(1, 1, top_k=0, top_p=0.71), {1, 2, 3}),
        # Of the top three, 0.85 together, the first two hold 0.82.
        (Sampling(1, 1, top_k=3, top_p=0.8), {1, 3}),
        (Sampling(1, 1, top_k=50, top_p=0.01), {1}),
    ]:
        counts = collections.Counter(drawn(logits, seeds, sampling))
        total = sum(chances[token] for token in left)
        assert set(counts) == left
        for token in left:
            assert counts[token] / len(seeds) == pytest.approx(chances[token] / total, abs=0.025)


def test_temperature_sharpens_and_flattens():
    seeds = list(range(3000))
    logits = [0.0, 1.0]

    def share(temperature):
        found = drawn(logits, seeds, Sampling(1, 1, temperature, 0, 1.0))
        return sum(found) / len(found)

    assert share(1.0) == pytest.approx(1 / (1 + math.exp(-1)), abs=0.03)
    assert share(4.0) == pytest.approx(1 / (1 + math.exp(-0.25)), abs=0.03)
    assert share(0.01) == 1.0


def test_a_row_is_drawn_alike_whatever_rows_stand_beside_it():
    seeds = [2**64 - 1, 2**63, 12, 0]
    logits = [0.1 * (token % 7) for token in range(60)]
    together = drawn(logits, seeds, Sampling(1, 1), step=2)
    assert [drawn(logits, [seed], Sampling(1, 1), step=2)[0] for seed in seeds] == together
    assert drawn(logits, seeds, Sampling(1, 1), step=3) != together


def test_equal_logits_at_the_edge_of_top_k_go_by_token():
    # A plain top-k takes tokens out of the middle here.
    found = drawn([1.0] * 100, list(range(400)), Sampling(1, 1, top_k=5, top_p=1.0))
    assert set(found) == {0, 1, 2, 3, 4}


def test_logits_that_are_no_numbers_are_never_drawn():
    bad = [math.nan, 1.0, -math.inf, 1.0]
    assert set(drawn(bad, list(range(50)), Sampling(1, 1, top_k=0, top_p=1.0))) == {1, 3}
    assert len(drawn([math.nan, math.nan], [1, 2], Sampling(1, 1))) == 2

import itertools

import numpy as np
import pytest

from stages.dedup import level_pairs as module
from stages.dedup.level_hash import RADIUS, level_hashes
from stages.dedup.level_pairs import Facts, level_pairs
from stages.dedup.pigeonhole import pairs_within
from stages.dedup.second_proof import BRIGHTNESS_LEVELS, SecondProof

PROOF = SecondProof(0.8, 0.86)


def pictures(count, seed, textures=(1.0, 2.0, 30.0)):
    """Thumbnails of a few scenes, a little brighter or noisier each."""
    draw = np.random.default_rng(seed)
    scenes = draw.integers(60, 190, (4, 256))
    kinds = draw.integers(0, 4, count)
    thumbnails = (scenes[kinds] + draw.integers(0, 3, (count, 1)) + draw.integers(0, 2, (count, 256))).astype(np.uint8)
    texture = np.array(textures, np.float32)[kinds % len(textures)]
    phash = draw.integers(0, 4, count, dtype=np.uint64)
    return Facts(phash, level_hashes(thumbnails), thumbnails.sum(axis=1, dtype=np.int32), texture)


def by_hand(facts, some):
    found = set()
    for one, other in itertools.combinations(some.tolist(), 2):
        near = int(facts.levels[one] ^ facts.levels[other]).bit_count() <= RADIUS
        bright = abs(int(facts.sums[one]) - int(facts.sums[other])) <= BRIGHTNESS_LEVELS * 256
        if near and bright and facts.texture[one] == facts.texture[other]:
            found.add((one, other))
    return found


def told(pairs):
    assert (pairs.first < pairs.second).all()
    listed = list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert len(set(listed)) == len(listed)
    return set(listed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rows", [1 << 18, 16, 1])
def test_all_pairs_are_found_whatever_the_ranges(monkeypatch, seed, rows):
    monkeypatch.setattr(module, "_RANGE_ROWS", rows)
    facts, some = pictures(120, seed), np.arange(0, 120, 1 + seed)
    found = level_pairs(facts, some, PROOF)
    assert told(found) == by_hand(facts, some)
    assert told(found)
    assert found.left_out == 0


def test_ranges_are_narrowed_until_their_pairs_fit(monkeypatch):
    facts, some = pictures(120, 1), np.arange(120)
    whole = told(level_pairs(facts, some, PROOF))
    looked_at, _, _ = pairs_within(facts.levels, RADIUS)
    monkeypatch.setattr(module, "_LEAST_ROWS", 2)
    monkeypatch.setattr(module, "_KEPT_PER_ROW", 1000)
    monkeypatch.setattr(module, "_MOST_PAIRS", len(looked_at) - 1)
    found = level_pairs(facts, some, PROOF)
    assert (told(found), found.left_out) == (whole, 0)


def test_where_calm_pictures_are_too_many_they_are_left_out_and_counted(monkeypatch):
    facts, some = pictures(120, 1, (2.0, 2.0, 2.0, 30.0)), np.arange(120)
    whole = told(level_pairs(facts, some, PROOF))
    textured = {pair for pair in whole if facts.texture[pair[0]] > 3}
    calm, rich = int((facts.texture < 3).sum()), int((facts.texture > 3).sum())
    assert 0 < len(textured) / rich < len(whole) / 120
    monkeypatch.setattr(module, "_LEAST_ROWS", 1)
    monkeypatch.setattr(module, "_KEPT_PER_ROW", (len(textured) / rich + len(whole) / 120) / 2)
    found = level_pairs(facts, some, PROOF)
    assert (told(found), found.left_out) == (textured, calm)


def test_where_all_are_too_many_none_is_compared(monkeypatch):
    facts, some = pictures(60, 1), np.arange(60)
    monkeypatch.setattr(module, "_LEAST_ROWS", 1 << 14)
    monkeypatch.setattr(module, "_MOST_PAIRS", 1)
    found = level_pairs(facts, some, PROOF)
    assert (told(found), found.left_out) == (set(), 60)

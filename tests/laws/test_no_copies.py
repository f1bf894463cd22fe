"""No two rows that stay are copies of each other, by the stated rule applied to every pair of them."""

import itertools

import polars as pl
import pytest

from stages.dedup.second_proof import proof_of
from stages.dedup.urls import normalise
from tests.stages.dedup.by_hand import alike


@pytest.mark.parametrize("overrides", [(), ("dedup.radius=6", "dedup.confirm_correlation=0.6")])
def test_no_two_survivors_are_copies(settled, overrides):
    assert settled.run(*overrides, stage="dedup").exit_code == 0
    survivors = settled.table("dedup.cluster", "survivors", *overrides)
    pool = settled.table("filter.pool", "candidates").filter(pl.col("subset") == "pub11").select("sample_id", "url")
    inspected = settled.table("dedup.inspect", "inspected").join(pool, on="sample_id")
    stay = pl.col("sample_id").is_in(survivors["sample_id"].to_list())
    dedup = settled.recipe(*overrides).dedup
    proof = proof_of(settled.recipe(*overrides).flat())

    def copies(rows):
        return [
            (one["sample_id"], other["sample_id"])
            for one, other in itertools.combinations(rows.to_dicts(), 2)
            if normalise(one["url"]) == normalise(other["url"])
            or one["sha256"] == other["sha256"]
            or alike(one, other, dedup.radius, proof)
        ]

    assert copies(inspected)
    assert not copies(inspected.filter(stay))

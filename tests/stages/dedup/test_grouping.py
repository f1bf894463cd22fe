import hashlib
import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.dedup.grouping import SCHEMA, group
from stages.dedup.near import LOW_TEXTURE_LEVELS
from stages.dedup.rows import tiers
from stages.dedup.urls import normalise

ORDER = ["laion2b,laion400m,coyo700m", "*", "laioncoco"]
FAR = [0, 0xFFFF_FFFF, 0xFFFF_FFFF_0000_0000, 0x5555_5555_5555_5555]


def key(name):
    """An id that sorts as its short name does."""
    return name.encode().hex().ljust(32, "0")


def name(sample_id):
    return bytes.fromhex(sample_id).rstrip(b"\0").decode()


def digest(name):
    return hashlib.sha256(name.encode()).hexdigest() if name else ""


def table(*rows):
    """Rows of (short id, and what differs from a picture that resembles no other)."""
    made = []
    for number, (sample_id, given_values) in enumerate(rows):
        row = {
            "source": "cc12m", "url": f"http://a.org/{sample_id}", "sha256": f"sha-{sample_id}",
            "phash": int(hashlib.sha256(str(number).encode()).hexdigest()[:16], 16), "thumbnail": [100] * 256,
            "texture": 30.0,
        }  # fmt: skip
        row |= given_values
        made.append({"sample_id": key(sample_id)} | row | {"sha256": digest(row["sha256"])})
    schema = {"phash": pl.UInt64, "thumbnail": pl.Array(pl.UInt8, 256), "texture": pl.Float32}
    return pl.DataFrame(made, schema_overrides=schema)


def grouped(rows, radius=4, confirm_levels=6.0, order=ORDER):
    out = group(rows, radius, confirm_levels, order)
    assert out.schema == pl.Schema(SCHEMA)
    ids = ("sample_id", "cluster_id", "via_id")
    named = [row | {column: name(row[column]) for column in ids} for row in out.iter_rows(named=True)]
    return {row["sample_id"]: row for row in named}


def verdicts(rows, **options):
    found = grouped(rows, **options)
    return {key: (row["cluster_id"], row["via_id"], row["proof"]) for key, row in found.items()}


def test_strangers_stay():
    rows = table(("a", {}), ("b", {}), ("c", {}))
    assert verdicts(rows) == {key: (key, key, "") for key in "abc"}
    assert all(row["distance"] is None and row["confirm"] is None for row in grouped(rows).values())


def test_precedence_is_tier_then_id():
    alike = {"sha256": "same"}
    rows = table(
        ("a", alike | {"source": "laioncoco"}), ("b", alike | {"source": "cc12m"}),
        ("d", alike | {"source": "coyo700m"}), ("c", alike | {"source": "laion2b"}),
    )  # fmt: skip
    assert {row["cluster_id"] for row in grouped(rows).values()} == {"c"}
    assert {row["cluster_id"] for row in grouped(rows, order=["cc12m", "laioncoco"]).values()} == {"b"}
    assert {row["cluster_id"] for row in grouped(rows, order=[]).values()} == {"a"}


def test_tiers():
    assert tiers(ORDER, ["laion400m", "wit", "laioncoco"]) == {"laion400m": 0, "wit": 1, "laioncoco": 2}
    assert tiers(["a , b", "b"], ["a", "b", "c"]) == {"a": 0, "b": 0, "c": 2}


def test_same_url_after_normalising_then_same_bytes():
    rows = table(
        ("a", {"url": "http://X.org/p#1", "sha256": "s"}),
        ("b", {"url": "https://x.org:443/p", "sha256": "s"}),
        ("c", {"url": "http://x.org/q", "sha256": "s"}),
    )
    assert verdicts(rows) == {"a": ("a", "a", ""), "b": ("a", "a", "url"), "c": ("a", "a", "bytes")}


def test_equalities_chain_and_say_who_ties_whom():
    rows = table(
        ("a", {"url": "http://x/1", "sha256": "s1"}),
        ("b", {"url": "http://x/1", "sha256": "s2"}),
        ("c", {"url": "http://x/2", "sha256": "s2"}),
        ("d", {"url": "http://x/2", "sha256": "s3"}),
    )
    assert verdicts(rows) == {
        "a": ("a", "a", ""), "b": ("a", "a", "url"), "c": ("a", "b", "bytes"), "d": ("a", "c", "url"),
    }  # fmt: skip


def test_an_empty_url_or_digest_ties_nothing():
    rows = table(("a", {"url": "", "sha256": ""}), ("b", {"url": "", "sha256": ""}))
    assert verdicts(rows) == {"a": ("a", "a", ""), "b": ("b", "b", "")}


@pytest.mark.parametrize(("bits", "joins"), [(0, True), (0b1111, True), (0b11111, False)])
def test_near_within_the_radius(bits, joins):
    found = grouped(table(("a", {"phash": 7 << 40}), ("b", {"phash": (7 << 40) ^ bits})))
    assert (found["b"]["cluster_id"] == "a") is joins
    if joins:
        assert (found["b"]["proof"], found["b"]["distance"], found["b"]["confirm"]) == ("near", bits.bit_count(), 0.0)


def test_look_alikes_do_not_chain():
    rows = table(("a", {"phash": 0}), ("b", {"phash": 0b111}), ("c", {"phash": 0b111111}))
    assert verdicts(rows) == {"a": ("a", "a", ""), "b": ("a", "a", "near"), "c": ("c", "c", "")}
    assert verdicts(rows, radius=6)["c"] == ("a", "a", "near")


def test_the_best_ranked_leader_wins_over_the_nearest():
    rows = table(("a", {"phash": 0}), ("b", {"phash": 0b1111111}), ("c", {"phash": 0b1111}))
    assert verdicts(rows) == {"a": ("a", "a", ""), "b": ("b", "b", ""), "c": ("a", "a", "near")}


def test_equal_hashes_need_the_thumbnail_as_well():
    rows = table(
        ("a", {"phash": 5, "thumbnail": [100] * 256}), ("b", {"phash": 5, "thumbnail": [106] * 256}),
        ("c", {"phash": 5, "thumbnail": [106] * 255 + [107]}), ("d", {"phash": 4, "thumbnail": [94] * 256}),
    )  # fmt: skip
    found = verdicts(rows)
    assert found == {"a": ("a", "a", ""), "b": ("a", "a", "near"), "c": ("c", "c", ""), "d": ("a", "a", "near")}
    assert grouped(rows)["d"]["confirm"] == 6.0
    assert verdicts(rows, confirm_levels=6.1)["c"] == ("a", "a", "near")
    assert verdicts(rows, confirm_levels=5.9)["b"] == ("b", "b", "")


def test_low_texture_needs_a_third_of_the_difference():
    low = {"phash": 5, "texture": LOW_TEXTURE_LEVELS - 0.1}
    rows = table(
        ("a", {"phash": 5, "thumbnail": [100] * 256}),
        ("b", low | {"thumbnail": [102] * 256}),
        ("c", low | {"thumbnail": [103] * 256}),
    )
    assert verdicts(rows) == {"a": ("a", "a", ""), "b": ("a", "a", "near"), "c": ("c", "c", "")}


def test_copies_of_a_near_picture_follow_it():
    rows = table(
        ("a", {"phash": 0}), ("b", {"phash": 1, "sha256": "s"}), ("c", {"phash": 1, "sha256": "s"}),
        ("d", {"phash": 1, "url": "http://a.org/b"}),
    )  # fmt: skip
    assert verdicts(rows) == {
        "a": ("a", "a", ""), "b": ("a", "a", "near"), "c": ("a", "b", "bytes"), "d": ("a", "b", "url"),
    }  # fmt: skip
    assert grouped(rows)["c"]["distance"] is None


def test_only_the_representative_of_an_equality_group_is_compared():
    rows = table(
        ("a", {"phash": 0}), ("b", {"url": "http://x", "phash": FAR[1]}), ("c", {"url": "http://x", "phash": 0})
    )
    assert verdicts(rows) == {"a": ("a", "a", ""), "b": ("b", "b", ""), "c": ("b", "b", "url")}


@st.composite
def worlds(draw):
    """Small crowded worlds: few urls, digests, hashes and shades."""
    count = draw(st.integers(0, 14))
    rows = []
    for number in range(count):
        shade = draw(st.sampled_from([90, 94, 100, 102, 107]))
        flips = sum(1 << bit for bit in draw(st.sets(st.integers(0, 8), max_size=4)))
        rows.append((
            f"{draw(st.integers(0, 2**20)):07x}{number:x}",
            {"source": draw(st.sampled_from(["laion2b", "coyo700m", "wit", "laioncoco"])),
             "url": f"http://h/{draw(st.integers(0, 12))}", "sha256": f"s{draw(st.integers(0, 12))}",
             "phash": draw(st.sampled_from(FAR[:2])) ^ flips, "thumbnail": [shade] * 256,
             "texture": draw(st.sampled_from([2.0, 40.0]))},
        ))  # fmt: skip
    return table(*rows) if rows else table(("a", {})).clear()


def by_hand(rows, radius, levels):
    """The stated rule, one row at a time."""
    tier = tiers(ORDER, rows["source"].to_list())
    ranked = sorted(rows.iter_rows(named=True), key=lambda row: (tier[row["source"]], row["sample_id"]))

    def equal(a, b):
        return normalise(a["url"]) == normalise(b["url"]) or a["sha256"] == b["sha256"]

    def alike(a, b):
        low = min(a["texture"], b["texture"]) < LOW_TEXTURE_LEVELS
        difference = np.abs(np.array(a["thumbnail"], int) - np.array(b["thumbnail"], int)).mean()
        near = (a["phash"] ^ b["phash"]).bit_count() <= radius
        return near and difference <= (levels / 3 if low else levels)

    groups = []
    for row in ranked:
        tied = [members for members in groups if any(equal(row, member) for member in members)]
        groups = [members for members in groups if members not in tied] + [[row, *itertools.chain(*tied)]]
    rank = ranked.index
    groups = sorted((sorted(members, key=rank) for members in groups), key=lambda members: rank(members[0]))
    leaders, cluster = [], {}
    for members in groups:
        leader = next((one for one in leaders if alike(one, members[0])), None)
        if leader is None:
            leader = members[0]
            leaders.append(leader)
        cluster |= {name(member["sample_id"]): name(leader["sample_id"]) for member in members}
    return cluster


@given(worlds(), st.integers(0, 6), st.sampled_from([0.0, 4.0, 6.0]))
@settings(max_examples=250, deadline=None)
def test_equals_the_rule_applied_one_row_at_a_time(rows, radius, levels):
    found = grouped(rows, radius, levels)
    assert {key: row["cluster_id"] for key, row in found.items()} == by_hand(rows, radius, levels)


@given(worlds(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_input_order_does_not_matter(rows, shuffler):
    positions = list(range(len(rows)))
    shuffler.shuffle(positions)
    lists = rows[positions].with_columns(pl.col("thumbnail").arr.to_list())
    assert group(rows, 4, 6.0, ORDER).equals(group(lists, 4, 6.0, ORDER))


@given(worlds())
@settings(max_examples=100, deadline=None)
def test_every_proof_holds_and_leads_to_the_one_that_stays(rows):
    facts = {name(row["sample_id"]): row for row in rows.iter_rows(named=True)}
    found = grouped(rows)
    assert set(found) == set(facts)
    for key, row in found.items():
        ours, via = facts[key], facts[row["via_id"]]
        assert (row["proof"] == "") == (key == row["via_id"] == row["cluster_id"])
        same_url = normalise(ours["url"]) == normalise(via["url"])
        if row["proof"] in {"url", "bytes"}:
            assert same_url is (row["proof"] == "url")
            assert same_url or ours["sha256"] == via["sha256"]
        if row["proof"] == "near":
            assert (ours["phash"] ^ via["phash"]).bit_count() == row["distance"] <= 4
        steps = [key]
        while found[steps[-1]]["proof"]:
            steps.append(found[steps[-1]]["via_id"])
            assert len(steps) <= len(found)
        assert steps[-1] == row["cluster_id"]


def test_a_hundred_thousand_placeholders_of_one_hash():
    count = 100_000
    ids = [f"{k:032x}" for k in range(count)]
    shades = np.where(np.arange(count) % 2 == 0, 100, 150).astype(np.uint8)
    thumbnails = np.repeat(shades[:, None], 256, axis=1)
    thumbnails[:, 0] += (np.arange(count) % 100).astype(np.uint8)
    rows = pl.DataFrame(
        {
            "sample_id": ids, "source": ["wit"] * count, "url": [f"http://h/{k}" for k in ids], "sha256": ids,
            "phash": pl.Series([1 << 63] * count, dtype=pl.UInt64),
            "thumbnail": pl.Series(thumbnails, dtype=pl.Array(pl.UInt8, 256)),
            "texture": pl.Series([1.0] * count, dtype=pl.Float32),
        }
    )  # fmt: skip
    out = group(rows, 4, 6.0, ORDER)
    assert set(out["cluster_id"]) == {ids[0], ids[1]}
    assert out["proof"].value_counts().sort("proof").rows() == [("", 2), ("near", count - 2)]


def test_refuses_what_it_cannot_group():
    with pytest.raises(ValueError, match="twice"):
        group(table(("a", {}), ("a", {})), 4, 6.0, ORDER)
    with pytest.raises(ValueError, match="lack texture"):
        group(table(("a", {})).drop("texture"), 4, 6.0, ORDER)
    with pytest.raises(ValueError, match="confirm_levels"):
        group(table(("a", {})), 4, -1.0, ORDER)
    with pytest.raises(ValueError, match="radius"):
        group(table(("a", {})), 17, 6.0, ORDER)

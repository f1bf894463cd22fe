import hashlib
import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.dedup.grouping import SCHEMA, group
from stages.dedup.level_hash import RADIUS, level_hashes
from stages.dedup.rows import tiers
from stages.dedup.second_proof import CALM, NOTHING_TO_SEE, SecondProof
from stages.dedup.urls import normalise
from tests.stages.dedup.by_hand import alike
from tests.stages.dedup.scenes import scene

PROOF = SecondProof(noise=0.8, correlation=0.86)
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
            "phash": int(hashlib.sha256(str(number).encode()).hexdigest()[:16], 16), "texture": 30.0,
            "thumbnail": scene(number % 15 + 1),
        }  # fmt: skip
        row |= given_values
        made.append({"sample_id": key(sample_id)} | row | {"sha256": digest(row["sha256"])})
    schema = {"phash": pl.UInt64, "thumbnail": pl.Array(pl.UInt8, 256), "texture": pl.Float32}
    return pl.DataFrame(made, schema_overrides=schema)


def grouped(rows, radius=4, proof=PROOF, order=ORDER):
    out = group(rows, radius, proof, order)
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
        assert (found["b"]["proof"], found["b"]["distance"]) == ("near", bits.bit_count())
        apart = np.array(scene(1), int) - np.array(scene(2), int)
        assert found["b"]["confirm"] == pytest.approx(apart.std())


def test_look_alikes_do_not_chain():
    rows = table(("a", {"phash": 0}), ("b", {"phash": 0b111}), ("c", {"phash": 0b111111}))
    assert verdicts(rows) == {"a": ("a", "a", ""), "b": ("a", "a", "near"), "c": ("c", "c", "")}
    assert verdicts(rows, radius=6)["c"] == ("a", "a", "near")


def test_the_best_ranked_leader_wins_over_the_nearest():
    rows = table(("a", {"phash": 0}), ("b", {"phash": 0b1111111}), ("c", {"phash": 0b1111}))
    assert verdicts(rows) == {"a": ("a", "a", ""), "b": ("b", "b", ""), "c": ("a", "a", "near")}


def test_pictures_of_far_hashes_are_near_if_their_blocks_are_as_bright():
    rows = table(
        ("a", {"phash": 0, "thumbnail": scene(1)}), ("b", {"phash": 0xFFF, "thumbnail": scene(1)}),
        ("c", {"phash": 0xFFF << 20, "thumbnail": scene(2)}),
    )  # fmt: skip
    found = grouped(rows)
    assert (found["b"]["cluster_id"], found["b"]["proof"], found["b"]["distance"]) == ("a", "near", 12)
    assert found["c"]["cluster_id"] == "c"
    assert verdicts(rows, proof=None)["b"] == ("b", "b", "")


def test_equal_hashes_need_the_thumbnail_as_well():
    far = scene(1, amplitude=40)
    rows = table(("a", {"phash": 5}), ("b", {"phash": 5, "thumbnail": far}))
    assert verdicts(rows)["b"] == ("b", "b", "")
    assert verdicts(rows, proof=SecondProof(0.8, 0.0))["b"] == ("a", "a", "near")
    assert verdicts(rows, proof=SecondProof(60.0, 0.86))["b"] == ("a", "a", "near")
    assert verdicts(rows, proof=None)["b"] == ("a", "a", "near")


@pytest.mark.parametrize(("brighter", "joins"), [(0, True), (1, True), (2, False), (-2, False)])
def test_a_copy_is_as_bright(brighter, joins):
    rows = table(("a", {"phash": 5}), ("b", {"phash": 5, "thumbnail": scene(2, brighter=brighter)}))
    assert (verdicts(rows)["b"] == ("a", "a", "near")) is joins


@pytest.mark.parametrize(
    ("texture", "amplitude", "joins"),
    [(CALM, 0.5, True), (CALM, 0.9, False), (CALM - 0.1, 0.5, False), (NOTHING_TO_SEE, 0, True),
     (NOTHING_TO_SEE - 0.1, 0, False)],
)  # fmt: skip
def test_of_pictures_with_little_to_see_only_noise_may_differ(texture, amplitude, joins):
    """`amplitude` ** 2 of the cells differ by one level, up or down: that is its standard deviation."""
    plain = 100 + 2 * np.tile([1, -1], 128)
    half = round(amplitude**2 * 128)
    noise = np.array([1] * half + [-1] * half + [0] * (256 - 2 * half))
    changed = plain + np.random.default_rng(0).permutation(noise)
    rows = table(
        ("a", {"phash": 5, "texture": texture, "thumbnail": plain.tolist()}),
        ("b", {"phash": 5, "texture": texture, "thumbnail": changed.tolist()}),
    )
    assert (verdicts(rows, proof=SecondProof(0.8, 1.0))["b"] == ("a", "a", "near")) is joins


def test_a_like_border_makes_no_copy():
    """White edges of two strangers correlate by more than 0.9."""
    framed = np.full((2, 16, 16), 255)
    for side, seed in zip(framed, (1, 2), strict=True):
        side[2:-2, 2:-2] = np.random.default_rng(seed).integers(90, 111, (12, 12))
    ours, theirs = (side.ravel().tolist() for side in framed)
    assert np.corrcoef(ours, theirs)[0, 1] > 0.95
    rows = table(
        ("a", {"phash": 5, "thumbnail": ours, "texture": 75.0}),
        ("b", {"phash": 5, "thumbnail": theirs, "texture": 75.0}),
    )
    assert verdicts(rows)["b"] == ("b", "b", "")


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
    """Small crowded worlds: few urls, digests, hashes and thumbnails, of one texture or with nothing to see."""
    count, texture = draw(st.integers(0, 14)), draw(st.sampled_from([1.0, 2.0, 40.0]))
    rows = []
    for number in range(count):
        flips = sum(1 << bit for bit in draw(st.sets(st.integers(0, 8), max_size=4)))
        thumbnail = scene(draw(st.integers(1, 3)), draw(st.sampled_from([0, 1, 6, 30])), draw(st.integers(0, 3)))
        rows.append((
            f"{draw(st.integers(0, 2**20)):07x}{number:x}",
            {"source": draw(st.sampled_from(["laion2b", "coyo700m", "wit", "laioncoco"])),
             "url": f"http://h/{draw(st.integers(0, 12))}", "sha256": f"s{draw(st.integers(0, 12))}",
             "phash": draw(st.sampled_from(FAR[:2])) ^ flips, "thumbnail": thumbnail,
             "texture": draw(st.sampled_from([texture, texture, 0.3]))},
        ))  # fmt: skip
    return table(*rows) if rows else table(("a", {})).clear()


def by_hand(rows, radius, proof):
    """The stated rule, one row at a time."""
    tier = tiers(ORDER, rows["source"].to_list())
    ranked = sorted(rows.iter_rows(named=True), key=lambda row: (tier[row["source"]], row["sample_id"]))

    def equal(a, b):
        return normalise(a["url"]) == normalise(b["url"]) or a["sha256"] == b["sha256"]

    groups = []
    for row in ranked:
        tied = [members for members in groups if any(equal(row, member) for member in members)]
        groups = [members for members in groups if members not in tied] + [[row, *itertools.chain(*tied)]]
    rank = ranked.index
    groups = sorted((sorted(members, key=rank) for members in groups), key=lambda members: rank(members[0]))
    leaders, cluster = [], {}
    for members in groups:
        leader = next((one for one in leaders if alike(one, members[0], radius, proof)), None)
        if leader is None:
            leader = members[0]
            leaders.append(leader)
        cluster |= {name(member["sample_id"]): name(leader["sample_id"]) for member in members}
    return cluster


@given(worlds(), st.integers(0, 6), st.sampled_from([None, PROOF, SecondProof(0.0, 0.9), SecondProof(7.0, 0.99)]))
@settings(max_examples=250, deadline=None)
def test_equals_the_rule_applied_one_row_at_a_time(rows, radius, proof):
    found = grouped(rows, radius, proof)
    assert {key: row["cluster_id"] for key, row in found.items()} == by_hand(rows, radius, proof)


@given(worlds(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_input_order_does_not_matter(rows, shuffler):
    positions = list(range(len(rows)))
    shuffler.shuffle(positions)
    assert group(rows, 4, PROOF, ORDER).equals(group(rows[positions], 4, PROOF, ORDER))


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
            assert (ours["phash"] ^ via["phash"]).bit_count() == row["distance"]
            levels = level_hashes(np.array([ours["thumbnail"], via["thumbnail"]], np.uint8)).tolist()
            assert row["distance"] <= 4 or (levels[0] ^ levels[1]).bit_count() <= RADIUS
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
            "texture": pl.Series([30.0] * count, dtype=pl.Float32),
        }
    )  # fmt: skip
    out = group(rows, 4, PROOF, ORDER)
    assert set(out["cluster_id"]) == {ids[0], ids[1]}
    assert out["proof"].value_counts().sort("proof").rows() == [("", 2), ("near", count - 2)]


def test_refuses_what_it_cannot_group():
    with pytest.raises(ValueError, match="twice"):
        group(table(("a", {}), ("a", {})), 4, PROOF, ORDER)
    with pytest.raises(ValueError, match="lack texture"):
        group(table(("a", {})).drop("texture"), 4, PROOF, ORDER)
    with pytest.raises(ValueError, match="radius"):
        group(table(("a", {})), 17, PROOF, ORDER)

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.store import Store
from stages.dedup.cluster import Cluster
from tests.stages.dedup.scenes import scene, stranger
from tests.stages.handing import Handed, perform, rows_of

INSPECTED = ("sha256", "phash", "thumbnail", "texture")


def cluster(parts, **changed):
    """Rows by partition and short id; each says how it differs from a picture that resembles no other."""
    inspected, candidates = {}, {}
    for partition, rows in parts.items():
        # Those of which a hash is said show one scene.
        alike = {key: {"thumbnail": scene(ord(key[0]) % 15 + 1)} for key, given in rows.items() if "phash" in given}
        made = {full(key): _row(key) | alike.get(key, {}) | given for key, given in rows.items()}
        for row in made.values():
            row["sha256"] = hashlib.sha256(row["sha256"].encode()).hexdigest() if row["sha256"] else ""
        inspected[partition] = rows_of(
            "inspected", *({"sample_id": key, **{n: row[n] for n in INSPECTED}} for key, row in made.items())
        )
        candidates[partition] = rows_of(
            "candidates",
            *({"sample_id": key, **{n: v for n, v in row.items() if n not in INSPECTED}} for key, row in made.items()),
        )
    tables = {("dedup.inspect", "inspected"): inspected, ("filter.pool", "candidates"): candidates}
    settings = {f"dedup.{name}": value for name, value in changed.items()}
    return perform(Cluster(), Handed(Store("memory://cluster"), tables), settings)


def full(name):
    """A sample id that sorts as its short name does."""
    return name.encode().hex().ljust(32, "0")


def short(value):
    """The short name of an id, or of a text that ends in one; other values as they are."""
    if not isinstance(value, str) or len(value) < 32:
        return value
    return value[:-32] + bytes.fromhex(value[-32:]).rstrip(b"\0").decode()


def _row(key):
    digest = hashlib.sha256(key.encode()).hexdigest()
    return {
        "source": "cc3m", "subset": "pub11", "url": f"http://a.org/{key}", "sha256": digest,
        "phash": int(digest[:16], 16), "thumbnail": stranger(int(digest[:8], 16)), "texture": 30.0,
    }  # fmt: skip


def stay(done):
    return set(map(short, done.table("survivors")["sample_id"]))


def left(done):
    return {short(key): {name: short(value) for name, value in row.items()} for key, row in done.left().items()}


def clusters(done):
    """(leader, whom it is tied to, proof) by sample id."""
    rows = done.table("clusters").select("sample_id", "cluster_id", "via_id", "proof").iter_rows()
    return {short(key): tuple(map(short, row)) for key, *row in rows}


def test_strangers_all_stay():
    done = cluster({"web-0000": {"a": {}, "b": {"source": "wit"}}})
    assert stay(done) == {"a", "b"}
    assert clusters(done) == {}
    assert done.result.facts == {"clusters": 0}
    assert {source: books.kept for source, books in done.books.items()} == {"cc3m": 1, "wit": 1}


@pytest.mark.parametrize(
    ("sources", "stays"),
    [
        ({"a": "laioncoco", "b": "cc12m", "c": "laion2b"}, "c"),
        ({"a": "laioncoco", "b": "cc12m"}, "b"),
        ({"a": "wit", "b": "coyo700m", "c": "laion400m"}, "b"),
        ({"a": "yfcc14m", "b": "laion400m", "c": "laioncoco"}, "b"),
        ({"b": "sbu", "a": "redcaps"}, "a"),
    ],
)
def test_published_precedence(sources, stays):
    """LAION2B, LAION400M and COYO700M first, LAIONCOCO last; within a tier the lowest id."""
    rows = {key: {"source": source, "sha256": "same"} for key, source in sources.items()}
    done = cluster({"web-0000": rows})
    assert stay(done) == {stays}
    assert {row["other_id"] for row in left(done).values()} == {stays}


def test_the_order_is_a_setting():
    rows = {"a": {"source": "laion2b", "sha256": "same"}, "b": {"source": "laioncoco", "sha256": "same"}}
    assert stay(cluster({"web-0000": rows}, order=["laioncoco", "*"])) == {"b"}


def test_the_cluster_map_holds_whole_clusters_and_no_singles():
    done = cluster({
        "web-0000": {"a": {"phash": 0}, "b": {"phash": 7}, "alone": {}},
        "web-0001": {"c": {"phash": 3, "sha256": "s"}, "d": {"url": "https://A.org/a#part"}},
        "web-0002": {"e": {"phash": 3, "sha256": "s"}},
    })  # fmt: skip
    assert clusters(done) == {
        "a": ("a", "a", ""), "b": ("a", "a", "near"), "c": ("a", "a", "near"), "d": ("a", "a", "url"),
        "e": ("a", "c", "bytes"),
    }  # fmt: skip
    assert stay(done) == {"a", "alone"}
    assert done.result.facts == {"clusters": 1}


def test_evidence_in_the_ledger():
    done = cluster({"web-0000": {
        "a": {"phash": 0, "url": "http://a.org/x"}, "b": {"phash": 7, "sha256": "s", "source": "wit"},
        "c": {"phash": 7, "sha256": "s", "source": "wit"}, "d": {"url": "http://a.org/x"},
    }}, radius=5)  # fmt: skip
    common = {"step": "dedup.cluster", "class": "dropped", "other_id": "a"}
    near = {"source": "wit", "sample_id": "b", "reason": "dedup.near_duplicate", "value": 3, "cut": 5}
    same_bytes = {"source": "wit", "sample_id": "c", "reason": "dedup.same_bytes", "detail": "via b"}
    same_url = {"source": "cc3m", "sample_id": "d", "reason": "dedup.same_url"}
    assert left(done) == {row["sample_id"]: common | row for row in (near, same_bytes, same_url)}
    assert {source: (books.kept, books.dropped) for source, books in done.books.items()} == {
        "cc3m": (1, {"dedup.same_url": 1}), "wit": (0, {"dedup.near_duplicate": 1, "dedup.same_bytes": 1}),
    }  # fmt: skip


def test_radius_and_confirmation_are_settings():
    rows = {"a": {"phash": 0}, "b": {"phash": 0b1111, "thumbnail": scene(9, amplitude=40)}}
    assert stay(cluster({"web-0000": rows})) == {"a", "b"}
    assert stay(cluster({"web-0000": rows}, confirm_correlation=0.0)) == {"a"}
    assert stay(cluster({"web-0000": rows}, confirm_noise=60.0)) == {"a"}
    assert stay(cluster({"web-0000": rows}, confirm="none")) == {"a"}
    assert stay(cluster({"web-0000": rows}, confirm="none", radius=3)) == {"a", "b"}


def test_survivors_go_back_to_the_partition_they_came_from():
    done = cluster({"web-0000": {"a": {"sha256": "s"}}, "web-0001": {"b": {"sha256": "s"}}, "web-0002": {"c": {}}})
    assert {name: [*map(short, part["sample_id"])] for name, part in done.parts("survivors").items()} == {
        "web-0000": ["a"], "web-0001": [], "web-0002": ["c"],
    }  # fmt: skip


def test_the_group_of_a_source_is_the_split_group_else_the_cluster():
    rows = {"a": {"group": "world:7"}, "b": {}, "c": {"sha256": "s"}, "d": {"sha256": "s", "group": "world:9"}}
    done = cluster({"web-0000": rows})
    rows = done.table("survivors").select("sample_id", "split_group").rows()
    assert {short(key): short(own) for key, own in rows} == {
        "a": "world:7", "b": "b", "c": "c",
    }  # fmt: skip


@pytest.mark.parametrize("parts", [{}, {"web-0000": {}}, {"web-0000": {}, "web-0001": {}}])
def test_nothing_in(parts):
    done = cluster(parts)
    assert {name: part.height for name, part in done.parts("survivors").items()} == dict.fromkeys(parts, 0)
    assert done.table("clusters").is_empty()
    assert (done.books, done.result.facts) == ({}, {"clusters": 0})


ROWS = st.fixed_dictionaries({
    "source": st.sampled_from(["laion2b", "wit", "laioncoco"]),
    "url": st.sampled_from(["http://x/1", "http://x/2", ""]),
    "sha256": st.sampled_from(["1", "2", "3", ""]), "phash": st.sampled_from([0, 1, 31, 255]),
})  # fmt: skip


@given(st.dictionaries(st.sampled_from("abcdefghij"), ROWS, max_size=10), st.integers(1, 3))
def test_the_result_knows_nothing_of_partitions_and_every_evidence_leads_to_one_who_stays(rows, cut):
    whole = cluster({"web-0000": rows})
    parted = cluster({f"web-{n}": {k: row for k, row in rows.items() if ord(k) % cut == n} for n in range(cut)})
    assert stay(parted) == stay(whole)
    assert left(parted) == left(whole)
    assert {row["other_id"] for row in left(whole).values()} <= stay(whole)
    assert stay(whole) | set(left(whole)) == set(rows)
    assert set(clusters(whole)) >= set(left(whole))


def test_subsets_that_are_not_named_lose_no_copies():
    twins = {"a": {"sha256": "one"}, "b": {"sha256": "one"}}
    frames = {
        key: row | {"source": "fmow", "subset": "rs3", "group": "train/port/port_1"} for key, row in twins.items()
    }
    done = cluster({"fmow-0000": frames, "web-0000": {"c": {"sha256": "one"}, "d": {"sha256": "one"}}})
    assert stay(done) == {"a", "b", "c"}
    assert done.reasons() == {full("d"): "dedup.same_bytes"}
    assert {done.row("survivors", full(key))["split_group"] for key in "ab"} == {"fmow:train/port/port_1"}
    every = cluster({"fmow-0000": frames}, subsets=["pub11", "rs3"])
    assert stay(every) == {"a"}


def test_an_image_of_an_archive_without_a_group_is_its_own():
    done = cluster({"millionaid-0000": {"a": {"source": "millionaid", "subset": "rs3"}}})
    assert short(done.row("survivors", full("a"))["split_group"]) == "a"
    assert done.table("clusters").is_empty()

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.identity import sample_id
from manifests.store import Store
from stages.exclusions import planned_lists
from stages.filter.pool import Pool
from stages.places import partitions_of
from tests.stages.handing import Handed, perform, rows_of

LOW, HIGH = "0" * 12, "f" * 12


def pool(parts, buckets=4, host_cap=1000, archive_rows=20_000, lists=None, **cuts):
    """Pool rows; ``lists``: entries by kind of list, ``cuts``: max_nsfw, unsafe_labels."""
    store = Store("memory://pool")
    handed = {name: rows_of("matched", *rows) for name, rows in parts.items()}
    tables = Handed(store, {("filter.match", "candidates"): handed})
    changed = {"filter.buckets": buckets, "filter.host_cap": host_cap, "filter.archive_rows": archive_rows}
    for kind, entries in (lists or {}).items():
        store.replace(kind, "\n".join(entries).encode())
    changed |= planned_lists(store, {f"exclude.{kind}": kind for kind in lists or {}})
    return perform(Pool(), tables, changed | {f"filter.{name}": value for name, value in cuts.items()})


def row(url, locator=f"{LOW}:0", source="laion2b", text="aerial view"):
    return {
        "sample_id": sample_id(source, None, url, [text]), "url": url, "locator": locator, "source": source,
        "text": text,
    }  # fmt: skip


def rows(*urls):
    return [row(url, f"{LOW}:{n}") for n, url in enumerate(urls)]


def places(done):
    """Partition by url."""
    return {url: name for name, frame in done.parts("candidates").items() for url in frame["url"]}


@pytest.mark.parametrize(
    ("locators", "stays"),
    [
        ([f"{LOW}:9", f"{LOW}:10"], f"{LOW}:9"),
        ([f"{LOW}:10", f"{LOW}:9"], f"{LOW}:9"),
        ([f"{HIGH}:1", f"{LOW}:500"], f"{LOW}:500"),
        ([f"{HIGH}:1", f"{LOW}:11", f"{LOW}:2"], f"{LOW}:2"),
    ],
)
def test_of_repeated_rows_the_lowest_digest_then_row_number_stays(locators, stays):
    url = "http://a.org/1"
    done = pool({f"part-{n}": [row(url, locator)] for n, locator in enumerate(locators)})
    assert done.table("candidates")["url"].to_list() == [url]
    left = done.result.ledger
    assert set(left["locator"]) == set(locators) - {stays}
    assert left["reason"].unique().to_list() == ["filter.repeated_row"]
    assert left["other_id"].unique().to_list() == [stays]
    assert left["url"].unique().to_list() == [url]
    assert done.books["laion2b"].dropped == {"filter.repeated_row": len(locators) - 1}


def test_what_stays_is_the_row_of_that_place():
    twins = [row("http://a.org/1", f"{HIGH}:0") | {"licence": "high"}, row("http://a.org/1") | {"licence": "low"}]
    assert pool({"x": twins}).table("candidates")["licence"].to_list() == ["low"]


def test_one_url_from_two_sources_is_two_rows():
    done = pool({"x": [row("http://a.org/1", source="laion2b"), row("http://a.org/1", f"{LOW}:1", source="cc3m")]})
    assert done.table("candidates").height == 2
    assert done.result.ledger.is_empty()


def test_the_locator_is_left_behind():
    assert "locator" not in pool({"x": rows("http://a.org/1")}).table("candidates").columns


def test_a_host_lives_in_one_partition_however_it_is_spelt():
    spellings = [(f"host{n}.org/1", f"HOST{n}.org/2", f"host{n}.org:81/3", f"me@host{n}.org/4") for n in range(20)]
    found = places(pool({"x": rows(*(f"http://{spelt}" for of_host in spellings for spelt in of_host))}))
    assert len(set(found.values())) == 4
    for of_host in spellings:
        assert len({found[f"http://{spelt}"] for spelt in of_host}) == 1


def test_a_host_over_the_cap_is_spread_by_url_and_others_stay_where_they_are():
    big = [f"http://big.org/{n}" for n in range(40)]
    small = [f"http://small.org/{n}" for n in range(39)]
    twice = row(big[0], f"{LOW}:99", source="cc3m")
    parts = {"x": [*rows(*big, *small), twice]}
    done = pool(parts, host_cap=39)
    found = places(done)
    assert len({found[url] for url in big}) == 4
    assert len({found[url] for url in small}) == 1
    assert sum(big[0] in frame["url"] for frame in done.parts("candidates").values()) == 1
    assert done.result.facts == {"layout": {"buckets": 4, "spread": ["big.org"]}}
    whole = places(pool(parts, host_cap=41))
    assert {whole[url] for url in small} == {found[url] for url in small}
    assert len({whole[url] for url in big}) == 1


def test_repeated_rows_do_not_count_towards_the_cap():
    urls = [f"http://a.org/{n}" for n in range(5)]
    done = pool({"x": rows(*urls), "y": [row(url, f"{HIGH}:{n}") for n, url in enumerate(urls)]}, host_cap=5)
    assert done.result.facts["layout"] == {"buckets": 4, "spread": []}


def test_nothing_in():
    for parts in ({}, {"x": []}):
        done = pool(parts)
        assert done.result.outputs == []
        assert done.books == {}
        assert done.result.ledger.is_empty()


URLS = st.builds("http://{}.org/{}".format, st.sampled_from("abcd"), st.integers(0, 5))


@given(
    st.lists(st.tuples(URLS, st.sampled_from([LOW, HIGH])), max_size=30), st.integers(1, 5), st.integers(1, 8),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_pooling_knows_no_order_and_the_layout_says_where_a_url_is(drawn, buckets, host_cap, random):
    given_rows = [row(url, f"{digest}:{n}") for n, (url, digest) in enumerate(drawn)]
    done = pool({"x": given_rows}, buckets, host_cap)
    shuffled = random.sample(given_rows, len(given_rows))
    other = pool({"a": shuffled[::2], "b": shuffled[1::2]}, buckets, host_cap)
    assert other.parts("candidates").keys() == done.parts("candidates").keys()
    for name, frame in done.parts("candidates").items():
        assert other.parts("candidates")[name].sort("sample_id").equals(frame.sort("sample_id"))
    assert other.result.ledger.sort("locator").equals(done.result.ledger.sort("locator"))
    spread = frozenset(done.result.facts["layout"]["spread"])
    for url, name in places(done).items():
        assert partitions_of([url], buckets, spread) == {name}


def test_partitions_are_named_by_bucket():
    names = set(pool({"x": rows(*(f"http://host{n}.org/" for n in range(30)))}, buckets=3).parts("candidates"))
    assert names == {"web-0000", "web-0001", "web-0002"}


def frames(source, *paths, digest=LOW):
    return [
        row(f"{source}:{path}", f"{digest}:{n}", source=source, text="") | {"subset": "rs3"}
        for n, path in enumerate(paths)
    ]


def test_images_of_archives_are_cut_in_order_of_their_official_paths():
    paths = [f"train/x/x_{n}/x_{n}_0_rgb.jpg" for n in (5, 1, 4, 2, 3)]
    parts = {"a": frames("fmow", *paths), "b": frames("millionaid", "test/P0000001.jpg"), "c": rows("http://a.org/1")}
    done = pool(parts, archive_rows=2)
    found = {name: frame["url"].to_list() for name, frame in done.parts("candidates").items() if "-" in name}
    web = {name for name in found if name.startswith("web-")}
    assert len(web) == 1
    ordered = sorted(f"fmow:{path}" for path in paths)
    assert {name: urls for name, urls in found.items() if name not in web} == {
        "fmow-0000": ordered[:2], "fmow-0001": ordered[2:4], "fmow-0002": ordered[4:],
        "millionaid-0000": ["millionaid:test/P0000001.jpg"],
    }  # fmt: skip
    assert {source: books.kept for source, books in done.books.items()} == {"fmow": 5, "laion2b": 1, "millionaid": 1}


def test_an_image_in_two_archives_is_one_row():
    again = frames("fmow", "train/x/x_1/x_1_0_rgb.jpg", digest=HIGH)
    done = pool({"a": frames("fmow", "train/x/x_1/x_1_0_rgb.jpg"), "b": again})
    assert done.table("candidates").height == 1
    assert done.result.ledger["locator"].to_list() == [f"{HIGH}:0"]


def test_archives_have_no_part_in_the_layout_of_hosts():
    done = pool({"a": frames("fmow", *(f"train/x/x_{n}/x_{n}_0_rgb.jpg" for n in range(9)))}, host_cap=1)
    assert done.result.facts["layout"]["spread"] == []


def left_by_url(done):
    """What the ledger says of each url, without nulls and what is the same everywhere."""
    same = {"step", "source", "class", "url", "sample_id"}
    return {row["url"]: {k: v for k, v in row.items() if k not in same} for row in done.left().values()}


def test_rows_that_a_list_names_leave_and_the_others_stay():
    given_rows = rows("http://a.org/0", "http://a.org/1", "http://img.b.org/2", "http://c.org/3")
    lists = {"ids": [f"laion2b_{given_rows[0]['sample_id']}.jpg"], "urls": ["http://a.org/1"], "hosts": ["B.org"]}
    done = pool({"x": given_rows}, lists=lists)
    assert set(places(done)) == {"http://c.org/3"}
    assert left_by_url(done) == {
        "http://a.org/0": {"locator": f"{LOW}:0", "reason": "filter.excluded", "detail": "exclude.ids"},
        "http://a.org/1": {"locator": f"{LOW}:1", "reason": "filter.excluded", "detail": "exclude.urls"},
        "http://img.b.org/2": {"locator": f"{LOW}:2", "reason": "filter.excluded", "detail": "exclude.hosts: b.org"},
    }
    assert done.books["laion2b"].dropped == {"filter.excluded": 3}
    assert set(done.result.ledger["class"]) == {"dropped"}


def test_a_takedown_moves_no_other_row():
    """Neither the spread of a host nor the parts of an archive depend on what a list takes out of them."""
    web = [f"http://big.org/{n}" for n in range(6)] + [f"http://host{n}.org/" for n in range(20)]
    paths = [f"train/x/x_{n}/x_{n}_0_rgb.jpg" for n in range(7)]
    parts = {"a": rows(*web), "b": frames("fmow", *paths)}
    before = pool(parts, host_cap=5, archive_rows=3)
    gone = {*web[:3], web[-1], f"fmow:{paths[0]}"}
    after = pool(parts, host_cap=5, archive_rows=3, lists={"urls": gone})
    assert places(after) == {url: name for url, name in places(before).items() if url not in gone}
    assert after.result.facts == before.result.facts
    untouched = set(before.parts("candidates")) - {places(before)[url] for url in gone}
    assert untouched
    for name in untouched:
        assert after.parts("candidates")[name].equals(before.parts("candidates")[name])


def test_a_part_that_a_list_empties_is_no_part_any_more():
    paths = [f"train/x/x_{n}/x_{n}_0_rgb.jpg" for n in range(4)]
    named = [f"fmow_x_{n}_0_rgb.jpg" for n in (0, 1)]
    done = pool({"b": frames("fmow", *paths)}, archive_rows=2, lists={"ids": named})
    assert {name: frame.height for name, frame in done.parts("candidates").items()} == {"fmow-0001": 2}
    everything = pool({"a": rows("http://a.org/1")}, lists={"hosts": ["org"]})
    assert everything.result.outputs == []
    assert everything.books["laion2b"].kept == 0


def scored(*scores, **more):
    return [row(f"http://a.org/{n}", f"{LOW}:{n}") | {"nsfw": score} | more for n, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("max_nsfw", "stays"), [(1.0, 6), (0.999, 5), (0.5, 4), (0.1, 3), (0.09, 2), (0.0, 2)],
)  # fmt: skip
def test_rows_over_the_sources_own_score_leave(max_nsfw, stays):
    done = pool({"x": scored(None, 0.0, 0.1, 0.3, 0.999, 1.0)}, max_nsfw=max_nsfw)
    assert done.table("candidates").height == stays
    assert set(done.reasons().values()) <= {"filter.unsafe"}
    assert all(one["value"] > one["cut"] == max_nsfw for one in done.left().values())
    assert not any("detail" in one for one in done.left().values())


def test_a_score_that_is_the_cut_stays_although_it_was_stored_as_float32():
    for cut in (0.1, 0.3, 0.7, 0.9):
        assert pool({"x": scored(cut)}, max_nsfw=cut).result.ledger.is_empty()


def test_a_score_beyond_one_is_cut_where_there_is_a_cut():
    assert pool({"x": scored(1.5)}).result.ledger.is_empty()
    assert pool({"x": scored(1.5)}, max_nsfw=0.5).reasons() != {}


@pytest.mark.parametrize(
    ("labels", "left"),
    [([], set()), (["NSFW"], {"NSFW"}), (["nsfw", "Unsure "], {"NSFW", "UNSURE"}), (["other", ""], set())],
)
def test_rows_of_the_sources_own_labels_leave(labels, left):
    given_rows = [
        row(f"http://a.org/{n}", f"{LOW}:{n}", source="laion400m") | {"nsfw_label": label}
        for n, label in enumerate(["UNLIKELY", "UNSURE", "NSFW", None])
    ]
    done = pool({"x": given_rows}, unsafe_labels=labels)
    assert {one["detail"] for one in done.left().values()} == left
    assert not any({"value", "cut"} & set(one) for one in done.left().values())
    assert done.table("candidates").height == 4 - len(left)


def test_a_row_may_be_unsafe_by_score_and_label():
    done = pool({"x": scored(0.75, nsfw_label="NSFW")}, max_nsfw=0.5, unsafe_labels=["nsfw"])
    assert [(r["value"], r["cut"], r["detail"]) for r in done.left().values()] == [(0.75, 0.5, "NSFW")]


def test_repeated_comes_first_then_excluded_then_unsafe():
    twice = [row("http://a.org/0", f"{LOW}:{n}") | {"nsfw": 0.9} for n in (0, 1)]
    other = [row("http://b.org/0", f"{LOW}:2") | {"nsfw": 0.9}, row("http://c.org/0", f"{LOW}:3") | {"nsfw": 0.1}]
    done = pool({"x": [*twice, *other]}, lists={"hosts": ["a.org"]}, max_nsfw=0.5)
    ledger = {r["locator"]: r for r in done.result.ledger.to_dicts()}
    assert {place: r["reason"] for place, r in ledger.items()} == {
        f"{LOW}:0": "filter.excluded", f"{LOW}:1": "filter.repeated_row", f"{LOW}:2": "filter.unsafe",
    }  # fmt: skip
    assert ledger[f"{LOW}:1"]["other_id"] == f"{LOW}:0"
    assert (ledger[f"{LOW}:0"]["value"], ledger[f"{LOW}:0"]["cut"]) == (None, None)
    assert ledger[f"{LOW}:2"]["value"] == pytest.approx(0.9)
    assert done.books["laion2b"].dropped == {"filter.excluded": 1, "filter.repeated_row": 1, "filter.unsafe": 1}
    assert done.table("candidates")["url"].to_list() == ["http://c.org/0"]

import polars as pl
import pytest

from manifests.recipe import Recipe, Settings
from manifests.recipe_files import RecipeError
from manifests.store import Store
from stages.exclusions import Exclusions, ListChangedError, list_inputs, planned_lists
from stages.step import ModelMissingError
from tests.stages.handing import rows_of

NAMES = {kind: f"lists/{kind}.txt" for kind in ("ids", "urls", "hosts", "sha256")}
KEYS = tuple(f"exclude.{kind}" for kind in NAMES)
OFF = Recipe(name="test").flat()
ID, SHA256 = "ab" * 16, "cd" * 32


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def planned(store, **lists):
    """Write lists and return the settings that a planner makes of them."""
    for kind, entries in lists.items():
        store.replace(NAMES[kind], "\n".join(entries).encode())
    return OFF | planned_lists(store, {f"exclude.{kind}": NAMES[kind] for kind in lists})


def excluded(store, rows, **lists):
    """What excludes each row."""
    settings = Settings({key: value for key, value in planned(store, **lists).items() if key in KEYS})
    return Exclusions.planned(settings, store).naming(rows).to_list()


def web(*urls, **more):
    return rows_of(
        "candidates",
        *({"sample_id": f"{n:032x}", "source": "cc3m", "subset": "pub11", "url": u} | more for n, u in enumerate(urls)),
    )


def test_without_lists_all_rows_stay(store):
    assert planned_lists(store, OFF) == {}
    none = Exclusions.planned(Settings(OFF), store)
    assert not none
    assert none.bodies == frozenset()
    assert none.naming(web("http://a.org/", "http://b.org/")).to_list() == [None, None]
    assert none.naming(web()).to_list() == []
    assert none.naming(web()).dtype == pl.String


def test_ids_are_sample_ids_or_released_names(store):
    rows = web("http://a.org/0", "http://a.org/1", "http://a.org/2", "http://a.org/3")
    listed = [f"{0:032X}", f"cc3m_{1:032x}.png", f"cc12m_{2:032x}.jpg"]
    assert excluded(store, rows, ids=listed) == ["exclude.ids", "exclude.ids", None, None]


@pytest.mark.parametrize(
    ("source", "url", "name"),
    [
        ("fmow", "fmow:train/port/port_1/port_1_0_rgb.jpg", "fmow_port_1_0_rgb.jpg"),
        ("fmow", "fmow:val/port/port_1/port_1_0_rgb.jpg", "fmow_val_port_1_0_rgb.jpg"),
        ("ben", "ben:S2A_MSIL2A_20170617T113321_36_85", "ben_S2A_MSIL2A_20170617T113321_36_85.jpg"),
        ("millionaid", "millionaid:test/P0000001.jpg", "millionaid_P0000001.jpg"),
    ],
)
def test_an_image_of_an_archive_is_named_as_it_is_released(store, source, url, name):
    rows = web(url, f"{url}x", source=source, subset="rs3")
    assert excluded(store, rows, ids=[name])[0] == "exclude.ids"
    assert excluded(store, rows, urls=[url]) == ["exclude.urls", None]


def test_a_url_is_meant_character_by_character(store):
    urls = [
        "http://a.org/1",
        " http://a.org/1\n",
        "http://a.org/1?",
        "HTTP://a.org/1",
        "http://a.org/10",
        "http://a.org/",
    ]
    assert excluded(store, web(*urls), urls=["http://a.org/1", "http://a.org/*"]) == ["exclude.urls"] * 2 + [None] * 4


@pytest.mark.parametrize(
    ("listed", "url", "named"),
    [
        ("a.org", "http://a.org/x", True),
        ("a.org", "https://user@WWW.A.ORG:81/x", True),
        ("a.org", "http://deep.down.a.org./x", True),
        ("a.org", "http://ba.org/x", False),
        ("a.org", "http://a.org.evil.com/x", False),
        ("a.org", "http://b.org/a.org", False),
        ("www.a.org", "http://a.org/x", False),
        ("a.org", "  http://%61.org/x", True),
        ("b\u00fccher.example", "http://xn--bcher-kva.example/x", True),
        ("xn--bcher-kva.example", "http://img.B\u00dcCHER.example/x", True),
        ("a.org", "http://\uff41.org/x", True),
        ("2001:db8::1", "http://[2001:DB8:0:0::1]:80/x", True),
        ("10.0.0.1", "http://10.0.0.1/x", True),
        ("0.0.1", "http://10.0.0.1/x", True),
        ("a.org", "fmow:train/a.org/x.jpg", False),
        ("a.org", "http://[a.org/", False),
        ("a.org", "http://a.org?x", True),
        ("a.org", "http://a.org#/x", True),
        ("a.org", "http:/\t/a.o\nrg/x", True),
        ("a.org", "//a.org/x", True),
        ("a.org", "http:a.org/x", False),
        ("a.org", "a.org/x", False),
    ],
)
def test_a_host_is_meant_with_its_subdomains(store, listed, url, named):
    assert excluded(store, web(url), hosts=[listed]) == [f"exclude.hosts: {listed_as(listed)}" if named else None]


def listed_as(host):
    return "xn--bcher-kva.example" if "example" in host else host


def test_the_nearest_of_two_listed_hosts_is_told(store):
    rows = web("http://x.img.a.org/", "http://img.a.org/", "http://a.org/")
    told = [f"exclude.hosts: {host}" for host in ("img.a.org", "img.a.org", "a.org")]
    assert excluded(store, rows, hosts=["a.org", "img.a.org"]) == told


def test_where_a_redirect_led_counts_too(store):
    rows = web(*(f"http://short.org/{n}" for n in range(4)))
    ends = ["http://cdn.a.org/x", "http://b.org/exact", None, "http://b.org/other"]
    rows = rows.with_columns(pl.Series("final_url", ends, dtype=pl.String))
    found = excluded(store, rows, hosts=["a.org"], urls=["http://b.org/exact"])
    assert found == ["exclude.hosts: a.org", "exclude.urls", None, None]


def test_bytes_are_told_by_their_digest(store):
    rows = web("http://a.org/", "http://b.org/").with_columns(pl.Series("sha256", [SHA256, "ef" * 32]))
    assert excluded(store, rows, sha256=[SHA256.upper()]) == ["exclude.sha256", None]
    settings = Settings(planned(store, sha256=[SHA256]))
    assert Exclusions.planned(settings, store).bodies == {SHA256}


def test_the_first_list_that_names_a_row_is_told(store):
    rows = web("http://a.org/0").with_columns(pl.Series("sha256", [SHA256]))
    lists = {"sha256": [SHA256], "hosts": ["a.org"], "urls": ["http://a.org/0"], "ids": ["0" * 32]}
    for kind, told in zip(list(lists)[::-1], ("exclude.ids", "exclude.urls", "exclude.hosts: a.org"), strict=False):
        assert excluded(store, rows, **lists) == [told]
        del lists[kind]
    assert excluded(store, rows, **lists) == ["exclude.sha256"]


def test_what_a_list_says_is_an_input_and_where_it_lies_is_not(store, tmp_path):
    first = planned(store, ids=[ID], hosts=["a.org", "b.org"])
    inputs = list_inputs(KEYS, first)
    assert [(table, kind) for table, kind, _ in inputs] == [("exclude", "ids"), ("exclude", "hosts")]
    moved = tmp_path / "moved.txt"
    moved.write_text("# moved\nB.org\n\na.org\n")
    again = OFF | planned_lists(store, {"exclude.ids": NAMES["ids"], "exclude.hosts": str(moved)})
    assert list_inputs(KEYS, again) == inputs
    assert again != first
    assert list_inputs(KEYS, planned(store, ids=[ID], hosts=["a.org"])) != inputs


def test_a_step_has_the_lists_that_it_asks_for_as_inputs(store):
    settings = planned(store, ids=[ID], sha256=[SHA256])
    assert [kind for _, kind, _ in list_inputs(("run.scratch", "exclude.sha256"), settings)] == ["sha256"]
    assert list_inputs(("run.scratch",), settings) == []
    assert list_inputs(KEYS, OFF) == []
    only = Exclusions.planned(Settings({"exclude.sha256": settings["exclude.sha256"]}), store)
    assert set(only.entries) == {"sha256"}


def test_an_empty_list_is_as_good_as_none(store):
    settings = planned(store, ids=["# nothing yet"], hosts=[""])
    assert list_inputs(KEYS, settings) == []
    assert not Exclusions.planned(Settings(settings), store)


@pytest.mark.parametrize("now", ["", "b.org\n", "a.org\nb.org\n", "no host at all\n"])
def test_a_list_that_changed_while_the_run_went_on_ends_it(store, now):
    settings = Settings(planned(store, hosts=["a.org"]))
    store.replace(NAMES["hosts"], now.encode())
    with pytest.raises(ListChangedError, match=r"exclude\.hosts: lists/hosts\.txt.* run again"):
        Exclusions.planned(settings, store)
    store.replace(NAMES["hosts"], b"# only a comment more\na.org\n")
    assert Exclusions.planned(settings, store)


def test_a_list_that_is_gone_ends_the_run_and_one_that_cannot_be_read_is_tried_again(store, tmp_path):
    settings = Settings(planned(store, hosts=["a.org"]))
    store.remove(NAMES["hosts"])
    with pytest.raises(ListChangedError, match=r"no such file.*give all machines the list"):
        Exclusions.planned(settings, store)
    (tmp_path / NAMES["hosts"]).mkdir()
    with pytest.raises(RecipeError, match="cannot be read"):
        Exclusions.planned(settings, store)
    assert issubclass(ListChangedError, ModelMissingError)  # which ends a run at once, with its one line


def test_a_list_that_was_not_planned_is_refused(store):
    with pytest.raises(TypeError, match=r"exclude\.ids is 'ids\.txt'"):
        Exclusions.planned(Settings(OFF | {"exclude.ids": "ids.txt"}), store)


def test_a_bad_list_is_refused_before_any_work(store):
    store.replace(NAMES["hosts"], b"a.org\nhttp://b.org/x\n")
    with pytest.raises(RecipeError, match=r"exclude\.hosts: lists/hosts\.txt, line 2: 'http://b\.org/x' is no host"):
        planned_lists(store, {"exclude.hosts": NAMES["hosts"]})


def test_many_entries_and_rows(store):
    urls = [f"http://host{n % 700}.org/{n}" for n in range(5000)]
    found = excluded(store, web(*urls), urls=urls[::2], hosts=[f"host{n}.org" for n in range(0, 700, 7)])
    for n, told in enumerate(found):
        by_host = n % 700 % 7 == 0
        assert told == ("exclude.urls" if n % 2 == 0 else f"exclude.hosts: host{n % 700}.org" if by_host else None)

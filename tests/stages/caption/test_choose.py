import collections

import pytest

from manifests.store import Store
from stages.caption.choose import Choose
from tests.stages.handing import Handed, perform, rows_of


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def candidate(sample_id, index, text, rank_b=None, variance=None):
    return {"sample_id": sample_id, "index": index, "text": text, "rank_b": rank_b, "rotation_variance": variance}


def choose(store, candidates, sources=None, **changed):
    names = list(dict.fromkeys(row["sample_id"] for row in candidates))
    survivors = [{"sample_id": name, "source": (sources or {}).get(name, "fmow")} for name in names]
    tables = Handed(store, {
        ("caption.generate", "survivors"): rows_of("survivors", *survivors),
        ("caption.generate", "caption_candidates"): rows_of("caption_candidates", *candidates),
    })  # fmt: skip
    return perform(Choose(), tables, changed)


def pair(name):
    return [
        candidate(name, 0, "nothing"),
        candidate(name, 1, "steady", 2, 1e-6),
        candidate(name, 2, "best", 1, 1e-5),
        candidate(name, 3, "third", 3, 1e-4),
        candidate(name, 4, "not looked at", 4),
    ]


def test_top_is_the_second_encoders_first_and_ssl_the_steadiest(store):
    done = choose(store, [row for number in range(40) for row in pair(f"{number}")])
    captions = done.table("captions")
    assert set(captions["top"]) == {"best"}
    assert set(captions["ssl"]) == {"steady"}
    for row in captions.iter_rows(named=True):
        assert row["chosen"] == {"top": "best", "ssl": "steady"}[row["rule"]]
    assert set(captions["rule"]) == {"top", "ssl"}


def test_the_choice_is_even_and_belongs_to_image_and_seed(store):
    rows = [row for number in range(400) for row in pair(f"{number}")]
    first = choose(store, rows).table("captions")
    counts = collections.Counter(first["rule"])
    assert 160 < counts["top"] < 240
    again = choose(store, rows[::-1]).table("captions").sort("sample_id")
    assert again.equals(first.sort("sample_id"))
    other = choose(store, rows, seed=1).table("captions").sort("sample_id")
    assert 120 < (other["rule"] != again["rule"]).sum() < 280


def test_equal_texts_are_one_caption(store):
    rows = [candidate("a", 0, "one", 1, 0.2), candidate("b", 0, "x", 1, 0.2), candidate("b", 1, "x", 2, 0.1)]
    assert choose(store, rows).table("captions").sort("sample_id").rows() == [
        ("a", "one", "one", "one", "same"),
        ("b", "x", "x", "x", "same"),
    ]


def test_equal_variances_go_by_number_and_no_number_never_wins(store):
    rows = [
        candidate("a", 3, "later", 1, 0.1),
        candidate("a", 2, "first of equals", 2, 0.1),
        candidate("a", 1, "no number", 3, float("nan")),
        candidate("a", 0, "none", 4),
    ]
    assert choose(store, rows).row("captions", "a")["ssl"] == "first of equals"


def test_books_by_source_and_nothing_to_choose(store):
    done = choose(store, [*pair("a"), *pair("b")], {"b": "ben"})
    assert {source: (books.seen, books.kept) for source, books in done.books.items()} == {"ben": (1, 1), "fmow": (1, 1)}
    assert choose(store, []).table("captions").is_empty()

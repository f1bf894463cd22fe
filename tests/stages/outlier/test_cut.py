import pytest

from manifests.store import Store
from stages.outlier.cut import Cut
from tests.stages.handing import Handed, perform, rows_of


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def handed(store, partitions, sources=None):
    """Scores (vlm, detector) by sample id, by partition."""
    scores = {
        name: rows_of("scores", *({"sample_id": key, "sha256": f"sha {key}", "vlm": s, "detector": c}
                                  for key, (s, c) in rows.items()))
        for name, rows in partitions.items()
    }  # fmt: skip
    survivors = {
        name: rows_of("survivors", *({"sample_id": key, "source": (sources or {}).get(key, "cc3m"),
                                      "split_group": f"group {key}"} for key in rows))
        for name, rows in partitions.items()
    }  # fmt: skip
    return Handed(store, {("outlier.embed", "scores"): scores, ("dedup.cluster", "survivors"): survivors})


def cut(tables, **changed):
    names = {"vlm": "outlier.vlm", "detector": "outlier.detector_cut"}
    off = {f"{name}.keep_top": 1.0 for name in names.values()}
    chosen = {f"{names[key.partition('_')[0]]}.{key.partition('_')[2]}": value for key, value in changed.items()}
    return perform(Cut(), tables, off | chosen)


def kept(done):
    return sorted(done.table("survivors")["sample_id"])


def test_the_quantile_is_of_the_whole_pool_not_of_a_partition_or_source(store):
    low = {f"a{n}": (n / 100, 0.9) for n in range(5)}
    high = {f"b{n}": (0.5 + n / 100, 0.9) for n in range(15)}
    tables = handed(store, {"web-0000": low, "web-0001": high}, dict.fromkeys(low, "wit"))
    done = cut(tables, vlm_keep_top=0.8)
    assert set(done.reasons()) == {"a0", "a1", "a2", "a3"}
    assert done.result.facts == {"vlm_cut": 0.04, "detector_cut": None, "pool_rows": 20}
    assert done.parts("survivors")["web-0000"]["sample_id"].to_list() == ["a4"]
    assert {source: (books.seen, books.kept) for source, books in done.books.items()} == {
        "cc3m": (15, 15),
        "wit": (5, 1),
    }


def test_the_defaults_are_the_papers_shares(store):
    rows = {f"{n:03d}": (n / 1000, ((n * 37) % 100) / 100) for n in range(100)}
    done = perform(Cut(), handed(store, {"web-0000": rows}))
    assert (done.result.facts["vlm_cut"], done.result.facts["detector_cut"]) == (0.01, 0.2)
    assert sorted(done.reasons().values()).count("outlier.vlm") == 10


def test_what_the_ledger_says(store):
    rows = {"both": (0.1, 0.1), "vlm": (0.1, 0.9), "detector": (0.9, 0.1), "fine": (0.9, 0.9), "none": (None, 0.9)}
    done = cut(handed(store, {"web-0000": rows}), vlm_at_least=0.3, detector_at_least=0.5)
    assert done.reasons() == {
        "both": "outlier.vlm", "vlm": "outlier.vlm", "detector": "outlier.detector", "none": "outlier.no_score",
    }  # fmt: skip
    left = done.left()
    assert (left["vlm"]["value"], left["vlm"]["cut"]) == (0.1, 0.3)
    assert (left["detector"]["value"], left["detector"]["cut"]) == (0.1, 0.5)
    assert left["both"]["detail"] == "detector 0.1 is below 0.5 too"
    assert "value" not in left["none"]
    assert all(row["class"] == "dropped" and row["sha256"] == f"sha {key}" for key, row in left.items())
    assert kept(done) == ["fine"]


def test_rows_of_archives_pass_uncut_and_are_no_part_of_the_pool(store):
    web = {f"w{n}": (0.5 + n / 100, 0.9) for n in range(10)}
    archive = {"f1": (-0.9, 0.0), "f2": (None, None), "f3": (0.99, 1.0)}
    tables = handed(store, {"web-0000": web, "fmow-0000": archive}, dict.fromkeys(archive, "fmow"))
    done = cut(tables, vlm_keep_top=0.9)
    assert set(done.reasons()) == {"w0"}
    assert done.result.facts["pool_rows"] == 10
    assert done.parts("survivors")["fmow-0000"].height == 3


def test_every_partition_gets_its_survivors_even_none(store):
    tables = handed(store, {"web-0000": {"a": (0.1, 0.1)}, "web-0001": {}, "web-0002": {"b": (0.9, 0.9)}})
    done = cut(tables, vlm_at_least=0.5)
    assert {name: part.height for name, part in done.parts("survivors").items()} == {
        "web-0000": 0, "web-0001": 0, "web-0002": 1,
    }  # fmt: skip
    assert done.row("survivors", "b") == {"sample_id": "b", "source": "cc3m", "split_group": "group b"}


@pytest.mark.parametrize("partitions", [{}, {"web-0000": {}}])
def test_an_empty_pool(store, partitions):
    tables = handed(store, partitions)
    done = perform(Cut(), tables)
    assert done.result.facts == {"vlm_cut": None, "detector_cut": None, "pool_rows": 0}
    assert list(done.parts("survivors")) == list(partitions)
    assert done.books == {}


def test_a_pool_too_small_for_a_quantile_loses_nobody_to_it(store):
    done = perform(Cut(), handed(store, {"web-0000": {"a": (0.1, 0.2), "b": (0.3, 0.4), "none": (None, None)}}))
    assert done.reasons() == {"none": "outlier.no_score"}
    assert kept(done) == ["a", "b"]


def test_a_pool_without_a_single_score(store):
    done = perform(Cut(), handed(store, {"web-0000": {f"{n}": (None, None) for n in range(20)}}))
    assert set(done.reasons().values()) == {"outlier.no_score"}
    assert kept(done) == []

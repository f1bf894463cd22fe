import io

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.identity import file_digest, sample_id
from manifests.recipe import Settings
from manifests.store import Store
from stages.filter.match import Match
from stages.filter.rows import MetadataError
from tests.stages.handing import Handed, perform

LIMIT = {"filter.max_text_bytes": 40}


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def write(store, path, columns, **options):
    """Store a Parquet file and return the params of a task over all of it."""
    buffer = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), buffer, **options)
    store.replace(path, buffer.getvalue())
    groups = pq.ParquetFile(buffer).num_row_groups
    return {"source": "laion2b", "uri": path, "digest": file_digest(buffer), "first_group": 0, "end_group": groups}


def told_by(store, path):
    """Return the params that name an attributes file."""
    with store.open(path) as file:
        return {"attributes": path, "attributes_digest": file_digest(file)}


def match(store, params, changed=None):
    return perform(Match(), Handed(store, {}), changed, params=params)


def laion(*rows):
    return {"URL": [url for url, _ in rows], "TEXT": [text for _, text in rows]}


def ledger(done):
    """(row, reason) of the ledger, by row."""
    rows = done.result.ledger.select("locator", "reason").iter_rows()
    return sorted((int(locator.split(":")[1]), reason.removeprefix("filter.")) for locator, reason in rows)


def test_every_row_is_kept_listed_or_counted(store):
    params = write(store, "m.parquet", laion(
        ("http://a.org/0", "a red car"), ("http://a.org/1", "satellite image of a port"), (None, "aerial view"),
        ("  ", "aerial view of spaces"), ("no url at all", "aerial view"), ("http:///path", "aerial view"),
        ("http://[::1/x", "aerial view"), ("http://a.org/7", "aerial view " + 40 * "x"), ("http://a.org/8", None),
        (None, "nothing to see, and no url"),
    ))  # fmt: skip
    done = match(store, params, LIMIT)
    assert done.table("candidates")["url"].to_list() == ["http://a.org/1"]
    assert ledger(done) == [
        (2, "no_url"), (3, "no_url"), (4, "bad_url"), (5, "bad_url"), (6, "bad_url"), (7, "text_too_long"),
    ]  # fmt: skip
    books = done.books["laion2b"]
    assert (books.seen, books.kept) == (10, 1)
    assert books.dropped == {
        "filter.no_keyword": 3, "filter.no_url": 2, "filter.bad_url": 3, "filter.text_too_long": 1,
    }  # fmt: skip


def test_the_keyword_comes_first(store):
    """A row without keyword is one of billions: counted, whatever else is wrong with it."""
    done = match(store, write(store, "m.parquet", laion((None, "a red car"), ("x", "b" * 99))), LIMIT)
    assert done.result.ledger.is_empty()
    assert done.books["laion2b"].dropped == {"filter.no_keyword": 2}


def test_a_text_may_be_as_long_as_the_limit_in_bytes(store):
    text = "aerial view " + 14 * "\u00e9"
    rows = laion(("http://a.org/0", text), ("http://a.org/1", text + "."))
    done = match(store, write(store, "m.parquet", rows), LIMIT)
    assert done.table("candidates")["url"].to_list() == ["http://a.org/0"]
    (row,) = done.left().values()
    assert (row["reason"], row["value"], row["cut"]) == ("filter.text_too_long", 41, 40)


def test_a_row_that_cannot_be_read_has_no_sample_id(store):
    texts = pa.array([b"aerial view", b"aerial view \xff"], pa.binary())
    unchecked = pa.Array.from_buffers(pa.string(), 2, texts.buffers())
    params = write(store, "m.parquet", pa.table({"URL": ["http://a.org/0", "http://a.org/1"], "TEXT": unchecked}))
    done = match(store, params)
    assert done.table("candidates").height == 1
    row = done.left()[""]
    assert (row["reason"], row["locator"]) == ("filter.bad_row", f"{params['digest'][:12]}:1")
    assert row["detail"].isascii()


def test_a_sample_id_is_born_from_what_was_published_and_a_locator_from_where(store):
    first = match(store, write(store, "1.parquet", laion(("http://a.org/x", "aerial view"))))
    params = write(store, "2.parquet", laion(("http://a.org/w", "a car"), ("http://a.org/x", "aerial view")))
    second = match(store, params)
    expected = sample_id("laion2b", None, "http://a.org/x", ["aerial view"])
    assert first.table("candidates")["sample_id"].to_list() == second.table("candidates")["sample_id"].to_list()
    assert second.table("candidates")["sample_id"].to_list() == [expected]
    assert second.table("candidates")["locator"].to_list() == [f"{params['digest'][:12]}:1"]


def test_the_key_of_a_source_is_part_of_the_id(store):
    table = {"id": [7, 8], "url": ["http://a.org/x"] * 2, "text": ["aerial view"] * 2}
    frame = match(store, write(store, "m.parquet", table) | {"source": "coyo700m"}).table("candidates")
    assert frame["sample_id"].to_list() == [
        sample_id("coyo700m", key, "http://a.org/x", ["aerial view"]) for key in ("7", "8")
    ]
    assert frame["source"].unique().to_list() == ["coyo700m"]


def test_ids_of_rows_that_leave_are_those_they_would_have_kept(store):
    rows = laion(("http://a.org/x", "aerial view " + "x" * 40))
    params = write(store, "m.parquet", rows)
    assert set(match(store, params, LIMIT).left()) == set(match(store, params).table("candidates")["sample_id"])


def test_row_group_ranges_cut_a_file_into_parts_that_make_up_the_whole(store):
    texts = ["aerial view" if n % 3 else "a car" for n in range(30)]
    params = write(store, "m.parquet", laion(*((f"http://a.org/{n}", t) for n, t in enumerate(texts))),
                   row_group_size=10)  # fmt: skip
    middle = match(store, params | {"first_group": 1, "end_group": 2, "rows": 10})
    assert middle.table("candidates")["locator"].to_list() == [
        f"{params['digest'][:12]}:{n}" for n in range(10, 20) if n % 3
    ]
    parts = [match(store, params | {"first_group": g, "end_group": g + 1}).table("candidates") for g in range(3)]
    assert pl.concat(parts).equals(match(store, params).table("candidates"))


def test_fewer_rows_than_the_footer_declares_are_an_error(store):
    params = write(store, "m.parquet", laion(("http://a.org/0", "aerial view")))
    assert match(store, params | {"rows": 1}).books["laion2b"].seen == 1
    with pytest.raises(MetadataError, match="1 rows were read, the file declares 2"):
        match(store, params | {"rows": 2})


def test_a_file_of_another_source_is_an_error(store):
    with pytest.raises(MetadataError, match="laion2b"):
        match(store, write(store, "m.parquet", {"picture": ["http://a.org/0"], "words": ["aerial view"]}))


def test_tsv(store):
    body = b"aerial view\thttp://a.org/0\na car\thttp://a.org/1\nsatellite map\t\nsatellite map\n"
    store.replace("m.tsv", body)
    done = match(store, {"source": "cc3m", "uri": "m.tsv", "digest": file_digest(io.BytesIO(body))})
    assert done.table("candidates").select("url", "text", "subset").rows() == [
        ("http://a.org/0", "aerial view", "pub11")
    ]
    assert ledger(done) == [(2, "no_url"), (3, "bad_row")]
    assert done.books["cc3m"].dropped["filter.no_keyword"] == 1


def test_metadata_lies_below_the_workdir_or_anywhere(store, tmp_path):
    params = write(store, "m.parquet", laion(("http://a.org/0", "aerial view")))
    below = match(store, params).table("candidates")
    for uri in (str(tmp_path / "m.parquet"), (tmp_path / "m.parquet").as_uri()):
        assert match(store, params | {"uri": uri}).table("candidates").equals(below)


def test_attributes_fill_licence_credit_and_group(store):
    rows = laion(*((f"http://a.org/{n}", "aerial view") for n in range(4)))
    params = write(store, "m.parquet", rows | {"LICENSE": ["?", "?", "?", None]})
    write(store, "attributes.parquet", {
        "url": ["http://a.org/1", "http://a.org/2", "http://a.org/1", "http://other.org"],
        "group": ["g1", None, "late", "g3"], "licence": ["CC0", None, "late", "CC0"],
        "credit": ["Ann", "Bob", "late", "x"],
    })  # fmt: skip
    given = match(store, params | told_by(store, "attributes.parquet")).table("candidates")
    assert given.select("licence", "credit", "group").rows() == [
        ("?", None, None), ("CC0", "Ann", "g1"), ("?", "Bob", None), (None, None, None),
    ]  # fmt: skip
    plain = match(store, params).table("candidates")
    changed = ["licence", "credit", "group"]
    assert given.columns == plain.columns
    assert given.drop(changed).equals(plain.drop(changed))


def test_attributes_may_lack_columns(store):
    params = write(store, "m.parquet", laion(("http://a.org/0", "aerial view")))
    write(store, "attributes.parquet", {"url": ["http://a.org/0"], "group": ["g"]})
    row = match(store, params | told_by(store, "attributes.parquet")).table("candidates").row(0, named=True)
    assert (row["group"], row["licence"], row["credit"]) == ("g", None, None)


def test_keywords_are_counted_on_the_rows_kept(store):
    rows = laion(
        ("http://a.org/0", "aerial view, MODIS"), ("http://a.org/1", "Aerial Views"), (None, "Landsat aerial view")
    )
    done = match(store, write(store, "m.parquet", rows))
    assert done.result.facts["keywords"] == {"MODIS": 1, "aerial view": 2}
    assert done.table("candidates")["matched"].to_list() == [["aerial view", "MODIS"], ["aerial view"]]


def test_mode_substring_matches_inside_words(store):
    params = write(store, "m.parquet", laion(("http://a.org/0", "a maxarium")))
    assert match(store, params).table("candidates").is_empty()
    assert match(store, params, {"filter.mode": "substring"}).table("candidates").height == 1


def test_an_empty_file(store):
    done = match(
        store,
        write(store, "m.parquet", pa.table({"URL": pa.array([], pa.string()), "TEXT": pa.array([], pa.string())})),
    )
    assert done.table("candidates").is_empty()
    assert done.books["laion2b"].seen == 0
    assert done.result.facts == {"keywords": {}}


def test_terms_that_a_recipe_names_are_in_the_rows_and_in_the_fingerprint(store):
    spec = {"key": "mine", "name": "mine", "own": True, "format": "parquet", "columns": {"url": ["URL"]},
            "text": ["TEXT"], "licence": "CC0"}  # fmt: skip
    params = write(store, "m.parquet", laion(("http://a.org/0", "aerial view"))) | {"source": "mine", "spec": spec}
    done = match(store, params)
    assert done.table("candidates")["licence"].to_list() == ["CC0"]
    pins = [
        Match().pins(Settings({"filter.lexicon": "rs5m-1"}), params | {"spec": spec | {"licence": licence}})
        for licence in ("CC0", "CC0", "CC-BY-4.0")
    ]
    assert pins[0] == pins[1] != pins[2]

import ast
import csv

import pytest

from stages.shard.geometa import geometa_files
from tests.stages.handing import rows_of

ENTITY = {"backend": "gazetteer", "geonameid": None, "country": None, "lon": None, "lat": None, "ambiguity": 0.5}
LABELS = "img_name text url download_status meta_caption country month".split()
HEADS = {
    "RS5M_pub11_geolocation.csv": ["img_name", "text", "entity"],
    "fmow_geometa_train_coord.csv": ["img_name", "geometa_cap", "country", "month", "latitude", "longitude", "utm"],
    "fmow_geometa_val_coord.csv": ["img_name", "geometa_cap", "country", "month", "latitude", "longitude", "utm"],
    "ben_geometa_train_coord.csv": ["img_name", "geometa_cap", "country", "month", "utm"],
    "ben_geometa_val_coord.csv": ["img_name", "geometa_cap", "country", "month", "utm"],
    "yfcc14m_geometa_coord.csv": [*LABELS, "longitude", "latitude"],
    "cc3m_geometa.csv": LABELS,
    "redcaps_geometa.csv": LABELS,
}


def sample(key, source, split="train", **more):
    subset = "rs3" if source in ("fmow", "ben", "millionaid") else "pub11"
    row = {"sample_id": key, "source": source, "subset": subset, "split": split, "img_name": f"{source}_{key}.jpg"}
    return row | {"caption": f"text of {key}", "url": f"http://a.org/{key}"} | more


def written(samples, places, folder):
    outputs = geometa_files(rows_of("released", *samples), rows_of("places", *places), folder)
    assert all(output.name == "geometa" and output.path == f"release/geometa/{output.file.name}" for output in outputs)
    tables = {}
    for output in outputs:
        with output.file.open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        assert len(rows) == output.rows
        tables[output.file.name] = (head, [dict(zip(head, row, strict=True)) for row in rows])
    return tables


@pytest.fixture
def world():
    samples = [
        sample("a", "fmow"), sample("b", "fmow", "val"), sample("c", "ben"), sample("d", "ben", "val"),
        sample("e", "yfcc14m", "val"), sample("f", "cc3m"), sample("g", "redcaps"), sample("h", "laion2b"),
        sample("i", "millionaid"), sample("j", "laion2b", caption='a "quoted", caption\nof Paris'),
    ]  # fmt: skip
    places = [
        {
            "sample_id": key,
            "lon": 8.5,
            "lat": 47.5,
            "utm": "32T",
            "country": "Switzerland",
            "month": 4,
            "meta": f"meta {key}",
        }
        for key in "abcdefg"
    ]
    places += [{"sample_id": "h"}, {"sample_id": "i"}]
    places += [{"sample_id": "j", "entities": [ENTITY | {"name": name} for name in ("Paris", "Coeur d'Alene")]}]
    return samples, places


def test_names_and_columns_are_the_published_ones(world, tmp_path):
    tables = written(*world, tmp_path)
    assert {name: head for name, (head, _) in tables.items()} == HEADS


def test_what_the_rows_say(world, tmp_path):
    tables = {name: rows for name, (_, rows) in written(*world, tmp_path).items()}
    (row,) = tables["RS5M_pub11_geolocation.csv"]
    assert row["text"] == 'a "quoted", caption\nof Paris'
    assert ast.literal_eval(row["entity"]) == ["Paris", "Coeur d'Alene"]
    (row,) = tables["fmow_geometa_val_coord.csv"]
    assert row == {"img_name": "fmow_b.jpg", "geometa_cap": "meta b", "country": "Switzerland", "month": "4",
                   "latitude": "47.5", "longitude": "8.5", "utm": "32T"}  # fmt: skip
    (row,) = tables["yfcc14m_geometa_coord.csv"]
    assert (row["meta_caption"], row["url"], row["text"]) == ("meta e", "http://a.org/e", "text of e")
    assert row["download_status"] == "success"


def test_only_sources_with_rows_have_files(tmp_path):
    assert written([], [], tmp_path) == {}
    assert (
        written([sample("h", "laion2b"), sample("i", "millionaid")], [{"sample_id": "h"}, {"sample_id": "i"}], tmp_path)
        == {}
    )
    only = written([sample("b", "ben", "val")], [{"sample_id": "b"}], tmp_path)
    assert set(only) == {"ben_geometa_val_coord.csv"}
    assert only["ben_geometa_val_coord.csv"][1] == [
        {"img_name": "ben_b.jpg", "geometa_cap": "", "country": "", "month": "", "utm": ""}
    ]


def test_equal_rows_give_equal_bytes_in_any_order(world, tmp_path):
    samples, places = world
    samples += [sample("k", "fmow"), sample("l", "fmow")]
    places += [{"sample_id": key, "lon": 0.1 + 0.2, "lat": -1e-7} for key in "kl"]
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    written(samples, places, one)
    written(samples[::-1], places[::-1], two)
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in two.iterdir()}

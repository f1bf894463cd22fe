import csv
import hashlib
import io
import json
import tempfile

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.ledger import BooksDoNotCloseError
from manifests.store import Store
from stages.shard.index import Index
from tests.stages.handing import Handed, perform, rows_of, stored_file

TARS = ("pub11-train-0000", "pub11-train-0001", "pub11-val-0000", "pub11-val-0001")
METAFILES = "release/metafile"


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def index(store, captions, tars=TARS, unpacked=()):
    """Index samples, given as sample id to (tar, caption)."""
    samples = rows_of("samples", *(
        {"sample_id": key, "img_name": f"cc3m_{key}.jpg", "caption": caption, "tar": tar, "split": tar.split("-")[1],
         "subset": "pub11", "source": "cc3m", "url": f"http://a.org/{key}", "sha256": f"fetched {key}"}
        for key, (tar, caption) in captions.items()
    ))  # fmt: skip
    packed = {
        tar: rows_of("packed", *(
            {"sample_id": key, "tar": tar, "released_sha256": f"released {key}"}
            for key, (its_tar, _) in captions.items() if its_tar == tar and key not in unpacked
        ))
        for tar in tars
    }  # fmt: skip
    files = []
    for tar, rows in packed.items():
        path = f"release/{tar.split('-')[1]}/{tar}.tar"
        store.replace(path, f"bytes of {tar}".encode())
        files.append(stored_file(store, tar, path, rows.height))
    handed = {("shard.plan", "samples"): samples, ("shard.pack", "packed"): packed, ("shard.pack", "tar"): files}
    handed["geo.locate", "places"] = rows_of("places")
    return perform(Index(), Handed(store, handed))


SAMPLES = {"0b": (TARS[0], "two"), "0a": (TARS[1], "one"), "0c": (TARS[0], "three"), "0d": (TARS[2], "four")}


def metafile(store, split):
    text = store.read(f"{METAFILES}/pub11_{split}_intermediate.csv").decode("utf-8")
    return list(csv.reader(io.StringIO(text, newline="")))


def test_the_first_two_columns_are_name_and_caption(store):
    index(store, SAMPLES)
    header, *rows = metafile(store, "train")
    assert header[:2] == ["img_name", "caption"]
    assert [row[:2] for row in rows] == [["cc3m_0a.jpg", "one"], ["cc3m_0b.jpg", "two"], ["cc3m_0c.jpg", "three"]]
    assert [row[:2] for row in metafile(store, "val")[1:]] == [["cc3m_0d.jpg", "four"]]
    assert dict(zip(header, rows[0], strict=True)) == {
        "img_name": "cc3m_0a.jpg", "caption": "one", "sample_id": "0a", "source": "cc3m", "tar": TARS[1],
        "url": "http://a.org/0a",
    }  # fmt: skip


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=6))
def test_any_caption_survives(captions):
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        index(store, {f"{n:04d}": (TARS[0], caption) for n, caption in enumerate(captions)})
        assert [row[1] for row in metafile(store, "train")[1:]] == captions


@pytest.mark.parametrize("caption", ["a\nb", "a\rb", "a\r\nb", '"', '""', 'say "hi", twice', ",", " ", "", "\t;\\"])
def test_captions_that_break_naive_files(store, caption):
    index(store, {"0a": (TARS[0], caption), "0b": (TARS[0], "next")})
    assert [row[1] for row in metafile(store, "train")[1:]] == [caption, "next"]
    table = pl.read_csv(store.read(f"{METAFILES}/pub11_train_intermediate.csv"), infer_schema=False)
    assert table["caption"].to_list() == [caption, "next"]


def test_sizes_list_every_tar_of_a_split_even_an_empty_one(store):
    index(store, SAMPLES)
    assert json.loads(store.read("release/train/sizes.json")) == {f"{TARS[0]}.tar": 2, f"{TARS[1]}.tar": 1}
    assert json.loads(store.read("release/val/sizes.json")) == {f"{TARS[2]}.tar": 1, f"{TARS[3]}.tar": 0}


def test_checksums_cover_every_released_file_but_themselves(store):
    index(store, SAMPLES)
    listed = {}
    for line in store.read("release/checksums.sha256").decode().splitlines():
        sha256, _, path = line.partition("  ")
        listed[path] = sha256
    released = {entry.path.removeprefix("release/") for entry in store.find("release")} - {"checksums.sha256"}
    assert set(listed) == released
    assert list(listed) == sorted(listed)
    for path, sha256 in listed.items():
        assert hashlib.sha256(store.read(f"release/{path}")).hexdigest() == sha256


def test_samples_know_the_released_bytes(store):
    done = index(store, SAMPLES)
    samples = pl.read_parquet(io.BytesIO(store.read(f"{METAFILES}/samples.parquet")))
    assert samples.select("sample_id", "sha256", "released_sha256").rows() == [
        (key, f"fetched {key}", f"released {key}") for key in sorted(SAMPLES)
    ]
    assert (done.books["cc3m"].seen, done.books["cc3m"].kept) == (4, 4)


def test_same_samples_same_bytes(store, tmp_path):
    index(store, SAMPLES)
    other = Store(str(tmp_path / "other"))
    index(other, dict(reversed(SAMPLES.items())))
    for entry in other.find("release"):
        assert other.read(entry.path) == store.read(entry.path), entry.path


def test_a_release_of_nothing_is_whole(store):
    done = index(store, {})
    assert (
        metafile(store, "train")
        == metafile(store, "val")
        == [["img_name", "caption", "sample_id", "source", "tar", "url"]]
    )
    assert json.loads(store.read("release/val/sizes.json")) == {f"{TARS[2]}.tar": 0, f"{TARS[3]}.tar": 0}
    assert pl.read_parquet(io.BytesIO(store.read(f"{METAFILES}/samples.parquet"))).is_empty()
    assert done.books == {}


def test_a_sample_that_was_planned_and_not_packed_does_not_vanish(store):
    with pytest.raises(BooksDoNotCloseError, match="4 rows in, 3 kept"):
        index(store, SAMPLES, unpacked={"0c"})

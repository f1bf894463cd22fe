"""The smaller sources' metadata, read with nothing but gzip, bz2, csv, json and str.split, against the truth."""

import bz2
import csv
import gzip
import io
import json
from urllib.parse import unquote_to_bytes

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from manifests.sources import PUB11
from pipeline.world.build import build_world
from pipeline.world.line_layouts import stored_gzip

SMALL = ("wit", "yfcc14m", "redcaps", "sbu", "vg")
WIT_HEADER = (
    "language page_url image_url page_title section_title hierarchical_section_title caption_reference_description "
    "caption_attribution_description caption_alt_text_description mime_type original_height original_width "
    "is_main_image attribution_passes_lang_id page_changed_recently context_page_description "
    "context_section_description"
).split()


@pytest.fixture(scope="module", params=["nano", "mini"])
def world(request, tmp_path_factory):
    if request.param == "mini":
        return request.getfixturevalue("mini_workdir") / "world"
    path = tmp_path_factory.mktemp("layouts")
    build_world("nano", path, print)
    return path


@pytest.fixture(scope="module")
def truth(world):
    return pl.read_parquet(world / "truth.parquet")


def _wit(folder):
    (file,) = folder.glob("*.tsv.gz")
    header, *records = _wit_records(file)
    assert header == WIT_HEADER
    for number, fields in enumerate(records):
        fits = len(fields) == 17 and _is_text("".join(fields))
        yield file.name, number, (fields[2], fields[6:9]) if fits else None


def _wit_records(file):
    text = gzip.decompress(file.read_bytes()).decode("utf-8", "surrogateescape")
    return list(csv.reader(io.StringIO(text, newline=""), delimiter="\t"))


def _yfcc(folder):
    listed = [line.split("\t") for line in (folder / "yfcc100m_subset_data.tsv").read_text().splitlines()]
    photos = {photo: int(number) for number, photo, _ in listed}
    assert len(photos) == len(listed)
    lines = bz2.decompress((folder / "yfcc100m_dataset.bz2").read_bytes()).removesuffix(b"\n").split(b"\n")
    assert len(lines) > len(listed), "some records are not in the list"
    for number, line in enumerate(lines):
        fields = line.decode("ascii").split("\t")
        if fields[0] not in photos:
            continue
        assert photos[fields[0]] == number
        try:
            texts = [unquote_to_bytes(field.replace("+", " ")).decode() for field in fields[6:8]]
            fits = len(fields) == 23 and fields[22] != "1"
            yield "yfcc100m_dataset.bz2", number, (fields[14], texts) if fits else None
        except UnicodeDecodeError:
            yield "yfcc100m_dataset.bz2", number, None


def _is_text(value):
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def _redcaps(folder):
    for file in folder.glob("*_20*.json"):
        for number, entry in enumerate(json.loads(file.read_text())["annotations"]):
            fits = isinstance(entry, dict) and _is_text(entry["caption"])
            assert not fits or entry["raw_caption"].lower().startswith(entry["caption"])
            yield file.name, number, (entry["url"], [entry["caption"]]) if fits else None


def _sbu(folder):
    arrays = json.loads((folder / "sbu-captions-all.json").read_text())
    for number, (url, _, text) in enumerate(
        zip(arrays["image_urls"], arrays["user_ids"], arrays["captions"], strict=True)
    ):
        yield "sbu-captions-all.json", number, (url, [text]) if _is_text(text) else None


def _vg(folder):
    urls = {image["image_id"]: image["url"] for image in json.loads((folder / "image_data.json").read_text())}
    for number, entry in enumerate(json.loads((folder / "region_descriptions.json").read_text())):
        fits = isinstance(entry, dict) and all(_is_text(region["phrase"]) for region in entry["regions"])
        texts = [region["phrase"] for region in entry["regions"]] if fits else None
        yield "region_descriptions.json", number, (urls[entry["id"]], texts) if fits else None


READ = {"wit": _wit, "yfcc14m": _yfcc, "redcaps": _redcaps, "sbu": _sbu, "vg": _vg}


@pytest.mark.parametrize("source", SMALL)
def test_a_file_read_plainly_holds_what_the_truth_says(world, truth, source):
    folder = world / "metadata" / source
    read = {(name, number): said for name, number, said in READ[source](folder)}
    rows = truth.filter(pl.col("source") == source).to_dicts()
    told = {
        (row["file"].rpartition("/")[2], row["row"]): None
        if row["expected"] == "filter.bad_row"
        else (row["url"] or "", row["text"])
        for row in rows
    }
    assert {place: said and (said[0] or "", said[1]) for place, said in read.items()} == told


def test_labels_stand_in_a_file_of_their_own(mini_workdir):
    world = mini_workdir / "world"
    truth = pl.read_parquet(world / "truth.parquet")
    (file,) = (world / "metadata/cc3m").glob("Image_Labels_*.tsv")
    rows = truth.filter(pl.col("file") == f"metadata/cc3m/{file.name}").to_dicts()
    lines = [line.split("\t") for line in file.read_text().splitlines()]
    assert len(lines) == len(rows) >= 5
    for line, row in zip(lines, rows, strict=True):
        if row["expected"] == "filter.bad_row":
            assert len(line) == 3
            continue
        caption, url, names, mids, shares = line
        assert ([caption], url) == (row["text"], row["url"])
        assert len(names.split(",")) == len(mids.split(",")) == len(shares.split(",")) >= 2
        assert all(0.6 <= float(share) < 1 for share in shares.split(","))


def test_every_source_has_rows_that_match_that_do_not_and_that_are_refused(truth):
    for source in PUB11:
        ends = set(truth.filter(pl.col("source") == source)["expected"])
        assert ends & {"cluster", "released"}, source
        assert "filter.no_keyword" in ends, source
        assert ends & {"filter.bad_row", "filter.bad_url", "filter.no_url"}, source
    assert "filter.not_english" in set(truth.filter(pl.col("source") == "wit")["expected"])


def test_rows_in_other_languages_are_told_by_their_language(world, truth):
    (file,) = (world / "metadata/wit").glob("*.tsv.gz")
    records = _wit_records(file)[1:]
    assert any("\n" in fields[15] for fields in records if len(fields) == 17), "a record of several lines"
    wit = truth.filter((pl.col("source") == "wit") & (pl.col("expected") != "filter.bad_row"))
    for row in wit.to_dicts():
        language = records[row["row"]][0]
        assert (language != "en") == (row["expected"] == "filter.not_english") or row["expected"] == "filter.no_keyword"


def test_some_photos_know_where_and_when_they_were_taken(world):
    lines = bz2.decompress((world / "metadata/yfcc14m/yfcc100m_dataset.bz2").read_bytes()).decode().splitlines()
    placed = [fields for line in lines if len(fields := line.split("\t")) == 23 and fields[10]]
    assert placed
    for fields in placed:
        assert -180 <= float(fields[10]) <= 180
        assert -90 <= float(fields[11]) <= 90
        assert fields[3][4::3][:2] == "--"


@given(st.binary(max_size=300), st.integers(0, 3))
@example(b"", 0)
@example(b"a", 65_534)
@example(b"a", 65_535)
@settings(deadline=None)
def test_stored_gzip_is_gzip_without_a_clock(body, more):
    body += b"x" * more
    packed = stored_gzip(body)
    assert gzip.decompress(packed) == body
    assert packed[4:8] == b"\0\0\0\0"


def test_the_drones_photo_tells_its_own_position_and_time(mini_workdir):
    body = (mini_workdir / "world/metadata/yfcc14m/yfcc100m_dataset.bz2").read_bytes()
    told = {
        (fields[3], fields[5], fields[10], fields[11])
        for line in bz2.decompress(body).decode().splitlines()
        if "DJI" in (fields := line.split("\t"))[5]
    }
    assert told == {("2020-06-04 22:10:30.0", "DJI+FC6310", "-94.348758", "45.037992")}


def test_each_smaller_source_shows_pictures_that_only_laioncoco_has_besides(mini_workdir):
    truth = pl.read_parquet(mini_workdir / "world/truth.parquet").drop_nulls("cluster")
    sources = dict(truth.group_by("cluster").agg(pl.col("source").unique()).iter_rows())
    for source in SMALL:
        assert sum(set(found) == {source, "laioncoco"} for found in sources.values()) >= 2, source
    pictures = pl.read_parquet(mini_workdir / "world/truth.parquet").filter(pl.col("kind") == "tile")
    alone = pictures.group_by("image").agg(pl.col("source").unique())["source"].to_list()
    assert sum(found == ["laioncoco"] for found in alone) >= 8, "LAION-COCO keeps some for itself"

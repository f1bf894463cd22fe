"""The released files as their users read them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tarfile
from pathlib import Path

import polars as pl
import pytest
import webdataset as wds
from PIL import Image

# webdataset leaves the tars it read to the garbage collector.
UNCLOSED = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@UNCLOSED
def test_the_loader_that_users_know_reads_every_sample(mini: Path) -> None:
    tars = sorted(str(path) for path in (mini / "release").glob("*/*.tar"))
    dataset = wds.WebDataset(tars, shardshuffle=False).to_tuple("img_content", "caption", "img_name")
    read: dict[str, str] = {}
    for content, caption, name in dataset:
        Image.open(io.BytesIO(content)).convert("RGB")
        read[name.decode("utf-8")] = caption.decode("utf-8")
    samples = pl.read_parquet(mini / "release/metafile/samples.parquet")
    assert read == dict(samples.select("img_name", "caption").iter_rows())


@UNCLOSED
def test_the_loader_decodes_with_its_own_decoders(mini: Path) -> None:
    """A handler by key decodes the images, as in the published loader: no decoder knows the suffix img_content."""

    def to_image(key: str, data: bytes) -> Image.Image | None:
        return Image.open(io.BytesIO(data)).convert("RGB") if key.endswith("img_content") else None

    def to_text(key: str, data: bytes) -> str | None:
        return data.decode("utf-8") if key.endswith(("caption", "img_name")) else None

    tar = str(max((mini / "release/train").glob("*.tar"), key=lambda path: path.stat().st_size))
    image, caption = next(
        iter(wds.WebDataset(tar, shardshuffle=False).decode(to_image, to_text).to_tuple("img_content", "caption"))
    )
    assert image.mode == "RGB"
    assert isinstance(caption, str)
    assert caption


def test_members_stand_three_by_three_in_order_of_id_with_fixed_headers(mini: Path) -> None:
    for path in (mini / "release").glob("*/*.tar"):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        keys = [member.name.split(".")[0] for member in members]
        assert keys == sorted(keys)
        suffixes = [member.name.split(".")[1] for member in members]
        assert suffixes == ["img_name", "img_content", "caption"] * (len(members) // 3)
        headers = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members}
        assert headers <= {(0, 0, 0, "", "", 0o644)}


def test_sizes_and_checksums_are_true(mini: Path) -> None:
    release = mini / "release"
    for split in ("train", "val"):
        sizes = json.loads((release / split / "sizes.json").read_text())
        assert sorted(sizes) == [f"{subset}-{split}-{n:04d}.tar" for subset in ("pub11", "rs3") for n in (0, 1)]
        for name, count in sizes.items():
            with tarfile.open(release / split / name) as tar:
                assert len(tar.getmembers()) == 3 * count
    lines = (release / "checksums.sha256").read_text().splitlines()
    listed = dict(line.split("  ")[::-1] for line in lines)
    files = {p.relative_to(release).as_posix(): p for p in release.rglob("*") if p.is_file()}
    assert set(listed) == set(files) - {"checksums.sha256"}
    for name, sha256 in listed.items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == sha256


def test_column_0_of_a_metafile_is_the_image_name_and_column_1_the_caption(mini: Path) -> None:
    samples = pl.read_parquet(mini / "release/metafile/samples.parquet")
    read: dict[str, str] = {}
    for split in ("train", "val"):
        for subset in ("pub11", "rs3"):
            path = mini / f"release/metafile/{subset}_{split}_intermediate.csv"
            with path.open(encoding="utf-8", newline="") as file:
                read |= {row[0]: row[1] for row in list(csv.reader(file))[1:]}
    assert read == dict(samples.select("img_name", "caption").iter_rows())


def test_at_least_three_hundred_pictures_are_released(mini: Path) -> None:
    truth = pl.read_parquet(mini / "world/truth.parquet")
    tiles = truth.filter(pl.col("kind") == "tile")["image"].n_unique()
    others = truth.filter(pl.col("kind").is_not_null() & (pl.col("kind") != "tile"))["image"].n_unique()
    assert tiles >= 300
    assert others >= 25
    released = pl.read_parquet(mini / "release/metafile/samples.parquet")
    assert released.height >= 300
    assert dict(released.group_by("subset", "split").len().select("split", "len").iter_rows()).keys() == {
        "train",
        "val",
    }
    assert released.group_by("subset", "split").len().height == 4


def test_every_image_of_an_archive_has_its_captions_and_a_meta_caption_where_there_are_facts(mini: Path) -> None:
    released = pl.read_parquet(mini / "release/metafile/samples.parquet")
    archives = released.filter(pl.col("subset") == "rs3")
    assert archives.select("top", "ssl", "chosen").null_count().row(0) == (0, 0, 0)
    assert archives.filter(~pl.col("chosen").is_in(pl.concat_list("top", "ssl"))).is_empty()
    told = archives.filter(pl.col("source").is_in(["fmow", "ben"]))
    assert told["meta"].null_count() <= 1
    assert told.filter(pl.col("caption") != pl.col("meta") + " " + pl.col("chosen")).is_empty()
    assert archives.filter(pl.col("source") == "millionaid")["meta"].null_count() == 24
    web = released.filter(pl.col("subset") == "pub11")
    assert web["chosen"].null_count() == web.height
    assert web.select("vlm", "detector").null_count().row(0) == (0, 0)


def test_the_geometa_tables_have_the_published_heads(mini: Path) -> None:
    heads = {path.name: path.read_text("utf-8").splitlines()[0] for path in (mini / "release/geometa").iterdir()}
    fmow = "img_name,geometa_cap,country,month,latitude,longitude,utm"
    assert heads["fmow_geometa_train_coord.csv"].replace('"', "") == fmow
    assert heads["ben_geometa_train_coord.csv"].replace('"', "") == "img_name,geometa_cap,country,month,utm"
    assert heads["RS5M_pub11_geolocation.csv"].replace('"', "") == "img_name,text,entity"

import json
import re
from pathlib import Path

import imagehash
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.world.draft import SOURCES, TABLES
from pipeline.world.notice import notice

# Written apart from the project's matcher: the paper's list, left boundary, names as whole words.
_KEYWORDS = re.compile(
    r"(?i)(?<!\w)(?:remote sensing|earth observ"
    r"|aerial (?:imag|photo|map|pic|view|scan|satellite)"
    r"|satellite (?:imag|photo|map|pic|view|scan|data|surveillance)"
    r"|(?:space|spaceborne|space-borne) (?:photo|imag|view)|space surveillance"
    r"|(?:google earth|freesound|sentinel-1|sentinel-2|gaofen|usgs|naip|modis|eosdis|worldview|planet dove|arcgis"
    r"|maxar|landsat|geographic information system)(?!\w))"
)


@pytest.fixture(scope="module")
def mini(mini_workdir) -> Path:
    return mini_workdir / "world"


@pytest.fixture(scope="module")
def truth(mini) -> pl.DataFrame:
    return pl.read_parquet(mini / "truth.parquet")


@pytest.fixture(scope="module")
def routes(mini) -> dict[str, dict]:
    return json.loads((mini / "routes.json").read_text())


def _phash(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return imagehash.phash(image.convert("RGB")).hash.flatten()


def _served(routes: dict[str, dict], url: str) -> str:
    """The file that a url yields, redirects followed."""
    url = re.sub(r"(?<=://)[^/]+", lambda host: host[0].lower(), url.partition("#")[0])
    route = routes[url]
    return _served(routes, route["location"]) if route["behaviour"] == "redirect" else route["file"]


def test_it_has_the_rows_and_pictures_it_promises(truth):
    assert 3100 <= truth.height <= 3400
    assert 2000 <= (truth["expected"] == "filter.no_keyword").sum() <= 2150
    pictures = truth.drop_nulls("image").group_by("image").agg(pl.col("kind").first())
    kinds = dict(pictures.group_by("kind").len().iter_rows())
    assert kinds == {"tile": 315, "photo": 6, "print": 2, "drawn": 16, "synthetic": 16}


def test_classes_of_tiles_come_out_as_planned(truth):
    groups = truth.filter(pl.col("kind") == "tile").group_by("group").agg(pl.col("image").n_unique())
    assert dict(groups.iter_rows()) == {
        "world:yell2": 90, "world:yell1": 20, "world:osbs": 1, "world:soap_031": 1, "world:soap_061": 1,
        "world:awpe": 16, "world:slc_rgb": 36, "world:sfbay": 51, "world:bahamas": 6, "world:bmng": 91, "world:rmnp": 2,
    }  # fmt: skip


def test_texts_carry_a_keyword_exactly_where_the_truth_says_so(truth):
    for texts, keyword in truth.select("text", "keyword").iter_rows():
        assert bool(_KEYWORDS.search(". ".join(texts))) == keyword, texts


def test_metadata_files_say_what_the_truth_says(mini, truth):
    web = truth.filter(pl.col("source").is_in(TABLES))
    for (file,), rows in web.partition_by("file", as_dict=True).items():
        if file.endswith(".parquet"):
            table = pl.read_parquet(mini / file)
            url = next(name for name in table.columns if name.lower() == "url")
            assert table[url].to_list() == rows["url"].to_list()
            text = (
                "top_caption"
                if "top_caption" in table.columns
                else next(c for c in table.columns if c.lower() == "text")
            )
            assert table[text].to_list() == [texts[0] if texts else None for texts in rows["text"].to_list()]
            continue
        lines = (mini / file).read_bytes().removesuffix(b"\n").split(b"\n")
        assert len(lines) == rows.height
        for line, url, texts, expected in zip(
            lines, *(rows[name].to_list() for name in ("url", "text", "expected")), strict=True
        ):
            if expected != "filter.bad_row":
                fields = (texts[0], url) if "cc3m" in file else (url, texts[0])
                assert line.decode().split("\t")[:2] == list(fields)


def test_parquet_is_snappy_with_several_row_groups(mini):
    for file in sorted((mini / "metadata").glob("laion2b/*.parquet")):
        metadata = pq.ParquetFile(file).metadata
        assert metadata.num_row_groups >= 2
        assert metadata.row_group(0).column(0).compression == "SNAPPY"


def test_near_copies_are_near_and_strangers_far(mini, truth, routes):
    web = truth.filter(pl.col("source").is_in(SOURCES))
    arrived = web.filter(pl.col("expected").is_in(["cluster", "released", "outlier"]))
    first, near = {}, []
    for url, image, proof in arrived.select("url", "image", "proof").iter_rows():
        phash = _phash(mini / _served(routes, url))
        near.append((image, phash)) if proof == "near" else first.setdefault(image, phash)
    originals = np.array(list(first.values()), dtype=np.int32)
    apart = (originals[:, None, :] != originals[None, :, :]).sum(axis=2)
    assert apart[~np.eye(len(originals), dtype=bool)].min() >= 8
    assert len(near) > 100
    names = list(first)
    for image, phash in near:
        distances = (originals != phash).sum(axis=1)
        assert distances[names.index(image)] <= 4
        assert np.delete(distances, names.index(image)).min() >= 6
    copies = np.array([phash for _, phash in near], dtype=np.int32)
    between = (copies[:, None, :] != copies[None, :, :]).sum(axis=2)
    owners = np.array([image for image, _ in near])
    assert between[owners[:, None] != owners[None, :]].min() >= 6


def test_clusters_hold_one_first_row_and_its_repeats(truth, mini, routes):
    bodies = {}
    for _, rows in truth.drop_nulls("cluster").group_by("cluster"):
        assert rows.height >= 2
        assert rows["image"].n_unique() == 1
        original = rows.filter(pl.col("proof").is_null()).row(0, named=True)
        assert rows["proof"].null_count() == 1
        body = bodies.setdefault(original["url"], (mini / _served(routes, original["url"])).read_bytes())
        for url, proof in rows.drop_nulls("proof").select("url", "proof").iter_rows():
            assert ((mini / _served(routes, url)).read_bytes() == body) == (proof != "near")
            assert (url.partition("#")[0].lower() == original["url"].lower()) == (proof == "url")


def test_the_second_of_two_equal_rows_is_the_repeated_one(truth):
    repeated = truth.filter(pl.col("expected") == "filter.repeated_row")
    assert sorted(repeated["source"]) == ["cc3m", "laion2b"]
    for row in repeated.iter_rows(named=True):
        same = truth.filter(
            (pl.col("file") == row["file"]) & (pl.col("url") == row["url"]) & (pl.col("row") < row["row"])
        )
        assert same.filter(pl.col("text") == row["text"]).height == 1


def test_plain_rows_are_never_served(truth, routes):
    assert not set(truth.filter(~pl.col("keyword"))["url"].drop_nulls()) & set(routes)


def test_every_url_with_an_image_has_attributes(mini, truth):
    attributes = pl.read_parquet(mini / "metadata/attributes.parquet")
    assert attributes["url"].is_unique().all()
    wanted = truth.drop_nulls("image").filter(pl.col("expected") != "filter.repeated_row")
    joined = wanted.join(attributes, on="url", how="left", suffix="_given")
    assert (joined["group"] == joined["group_given"]).all()
    assert joined["licence"].null_count() == 0


def test_drone_tiles_know_where_they_were_taken(mini):
    with Image.open(min((mini / "images").glob("awpe-*.jpg"))) as image:
        gps = image.getexif().get_ifd(0x8825)
    assert (gps[1], [float(part) for part in gps[2]]) == ("N", [45.0, 2.0, 16.77])


def test_notices_agree(mini):
    written = (mini / "NOTICE").read_text()
    assert written == notice("mini")
    assert (Path(__file__).parents[3] / "NOTICE").read_text().endswith(written)

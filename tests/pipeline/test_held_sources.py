"""Images that someone holds already, a source of one's own: planned, filtered, read from where they lie, reported."""

import pytest

from tests.pipeline.recipes_of_ones_own import build_of
from tests.stages.archive_making import jpeg
from tests.stages.held_making import img2dataset_sample, write_wds

HELD = """
[sources.{key}]
format = "{format}"
metadata = ["{metadata}"]
"""


@pytest.fixture
def own(tmp_path):
    sources = HELD.format(key="tars", format="webdataset", metadata="held/*.tar")
    own = build_of(tmp_path, sources + HELD.format(key="folder", format="imagefolder", metadata="pictures"))
    for number in range(2):
        keys = range(3 * number, 3 * number + 3)
        write_wds(own.workdir / f"held/{number}.tar", {f"{n:09d}": img2dataset_sample(n, f"view {n}") for n in keys})
    for number in range(4):
        picture = own.workdir / f"pictures/{number}.jpg"
        picture.parent.mkdir(exist_ok=True)
        picture.write_bytes(jpeg(100 + number))
    return own


def test_held_images_walk_the_line_of_the_web_and_are_read_not_fetched(own):
    done = own.call("run", "--until", "download")
    assert done.exit_code == 0, done.err
    assert [name.split("-")[0] for name in own.commits("filter.match")] == ["folder", "tars", "tars"]
    assert own.commits("download.fetch") == ["held-folder-0000", "held-tars-0000"]
    report = own.call("report", "--json").json
    rows = {row["source"]: row for row in report["funnel"]["pub11"]["rows"]}
    assert list(rows) == ["tars", "folder"]
    assert [(row["amount"], row["after_keyword"], row["download"]) for row in rows.values()] == [(6, 6, 6), (4, 4, 4)]
    assert report["funnel"]["rs3"]["rows"] == []
    assert all(law["ok"] for law in report["laws"])
    assert "nothing to do" in own.call("run", "--until", "download").err
    assert "nothing to do" in own.call("run", "--stage", "download", "--source", "tars").err
    listed = {source["source"]: source for source in own.call("sources", "--json").json["sources"]}
    assert [(listed[key]["files"], listed[key]["rows"]) for key in rows] == [(2, 6), (1, 4)]


def test_a_picture_more_makes_its_folder_anew_and_leaves_the_tars(own):
    assert own.call("run", "--until", "download").exit_code == 0
    (own.workdir / "pictures/new.jpg").write_bytes(jpeg(200))
    before = own.commits("filter.match")
    done = own.call("run", "--until", "download")
    assert done.exit_code == 0, done.err
    (new,) = set(own.commits("filter.match")) - set(before)
    assert new.startswith("folder-")
    report = own.call("report", "--json").json
    assert {row["source"]: row["download"] for row in report["funnel"]["pub11"]["rows"]} == {"tars": 6, "folder": 5}


def test_a_tar_listed_twice_is_refused(own):
    (own.workdir / "held/copy.tar").write_bytes((own.workdir / "held/0.tar").read_bytes())
    done = own.call("run", "--stage", "filter")
    assert done.exit_code == 2
    assert "sources.tars: held/0.tar and held/copy.tar are the same file" in done.err

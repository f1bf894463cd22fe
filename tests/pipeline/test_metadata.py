"""Which metadata files are read, how they are cut into partitions, and what is said when they cannot be."""

import json
import re
import shutil
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.recipe import Recipe, Source
from manifests.recipe_files import RecipeError
from manifests.source_specs import spec_of
from manifests.store import Store
from pipeline import metadata, metadata_files
from pipeline.metadata import metadata_slices
from stages.archives import archive_digest
from tests.stages.archive_making import fmow_members, pack, v1_members
from tests.stages.held_making import img2dataset_sample, write_wds


def _parquet(path: Path, rows: int, row_group_size: int = 1000, word: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"URL": [f"http://a.example/{word}{i}" for i in range(rows)], "TEXT": [word] * rows})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def _tsv(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _recipe(**sources: list[str] | Source) -> Recipe:
    named = {k: s if isinstance(s, Source) else Source(metadata=s) for k, s in sources.items()}
    return Recipe(name="test", sources=named)


@pytest.fixture
def store(tmp_path):
    (tmp_path / "work").mkdir()
    return Store(str(tmp_path / "work"))


def _uris(recipe: Recipe, store: Store) -> list[str]:
    return sorted(str(item.params["uri"]) for item in metadata_slices(recipe, store))


def test_relative_globs_are_below_the_workdir(store, tmp_path, monkeypatch):
    for number in (1, 2):
        _tsv(tmp_path / f"work/meta/{number}.tsv", f"a {number}\thttp://a.example/{number}\n")
    _tsv(tmp_path / "elsewhere/meta/3.tsv", "a\thttp://a.example/3\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert _uris(_recipe(cc3m=["meta/*.tsv"]), store) == ["meta/1.tsv", "meta/2.tsv"]
    assert _uris(_recipe(cc3m=["meta/2.tsv"]), store) == ["meta/2.tsv"]


def test_a_workdir_whose_name_looks_like_a_pattern(tmp_path):
    _tsv(tmp_path / "run [1]/meta/1.tsv", "a\thttp://a.example/1\n")
    assert _uris(_recipe(cc3m=["meta/*.tsv"]), Store(str(tmp_path / "run [1]"))) == ["meta/1.tsv"]


def test_absolute_paths_and_uris_are_taken_as_they_stand(store, tmp_path):
    one = _tsv(tmp_path / "far/1.tsv", "a\thttp://a.example/1\n")
    two = _tsv(tmp_path / "far/2.tsv", "b\thttp://a.example/2\n")
    assert _uris(_recipe(cc3m=[f"{tmp_path}/far/*.tsv"]), store) == [str(one), str(two)]
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/rs5m-test/3.tsv", b"c\thttp://a.example/3\n")
    try:
        assert _uris(_recipe(cc3m=["memory://rs5m-test/*.tsv"]), store) == ["memory:///rs5m-test/3.tsv"]
    finally:
        memory.rm("/rs5m-test", recursive=True)


def test_partition_names_tell_source_content_and_place_and_not_the_path(store, tmp_path):
    _parquet(tmp_path / "work/one/a.parquet", 5)
    here = metadata_slices(_recipe(laion2b=["one/*.parquet"]), store)
    shutil.move(tmp_path / "work/one", tmp_path / "work/two")
    there = metadata_slices(_recipe(laion2b=["two/*.parquet"]), store)
    assert [item.partition for item in here] == [item.partition for item in there]
    assert here[0].partition == f"laion2b-{here[0].digest[:12]}-0"


@pytest.mark.parametrize(
    ("rows", "group", "bound", "ranges"),
    [
        (10, 2, 4, [(0, 2), (2, 4), (4, 5)]),
        (10, 3, 4, [(0, 1), (1, 2), (2, 4)]),
        (10, 5, 100, [(0, 2)]),
        (10, 10, 4, [(0, 1)]),
        (0, 1, 4, [(0, 1)]),
    ],
)
def test_a_parquet_file_is_cut_at_row_groups(store, tmp_path, monkeypatch, rows, group, bound, ranges):
    monkeypatch.setattr(metadata, "PARTITION_ROWS", bound)
    path = _parquet(tmp_path / "work/a.parquet", rows, group)
    groups = pq.ParquetFile(path).metadata.num_row_groups
    found = metadata_slices(_recipe(laion2b=["a.parquet"]), store)
    cut = sorted((item.params["first_group"], item.params["end_group"]) for item in found)
    assert cut == ranges
    assert sorted(int(item.partition.rsplit("-", 1)[1]) for item in found) == [first for first, _ in cut]
    assert cut[-1][1] == groups


def test_digests_are_remembered_until_the_file_changes(store, tmp_path, monkeypatch):
    path = _tsv(tmp_path / "work/1.tsv", "a\thttp://a.example/1\n")
    recipe, read = _recipe(cc3m=["1.tsv"]), []
    original = metadata_files.file_digest
    monkeypatch.setattr(metadata_files, "file_digest", lambda file: read.append(1) or original(file))
    first = metadata_slices(recipe, store)
    assert (metadata_slices(recipe, store), len(read)) == (first, 1)
    path.write_text("b b\thttp://a.example/1\n")
    assert metadata_slices(recipe, store)[0].digest != first[0].digest
    assert len(read) == 2
    (tmp_path / "work/cache/metadata-files.json").write_text("[broken")
    metadata_slices(recipe, store)
    assert len(read) == 3


def test_looking_leaves_nothing_behind(store, tmp_path):
    _tsv(tmp_path / "work/1.tsv", "a\thttp://a.example/1\n")
    metadata_slices(_recipe(cc3m=["1.tsv"]), store, remember=False)
    assert not (tmp_path / "work/cache").exists()
    metadata_slices(_recipe(cc3m=["1.tsv"]), store)
    assert len(json.loads((tmp_path / "work/cache/metadata-files.json").read_text())) == 1


def test_attributes_are_part_of_a_slice(store, tmp_path):
    _tsv(tmp_path / "work/1.tsv", "a\thttp://a.example/1\n")
    _parquet(tmp_path / "work/who.parquet", 3)
    (bare,) = metadata_slices(_recipe(cc3m=["1.tsv"]), store)
    (told,) = metadata_slices(_recipe(cc3m=Source(metadata=["1.tsv"], attributes="who.parquet")), store)
    assert (bare.attributes_digest, bare.partition) == ("", told.partition)
    assert told.attributes_digest
    assert told.params["attributes_digest"] == told.attributes_digest


def test_equal_files_are_refused_and_both_are_named(store, tmp_path):
    _tsv(tmp_path / "work/1.tsv", "a\thttp://a.example/1\n")
    _tsv(tmp_path / "work/2.tsv", "a\thttp://a.example/1\n")
    with pytest.raises(RecipeError, match=r"cc3m: 1\.tsv and 2\.tsv are the same file"):
        metadata_slices(_recipe(cc3m=["*.tsv"]), store)
    assert len(metadata_slices(_recipe(cc3m=["1.tsv"], cc12m=["2.tsv"]), store)) == 2


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        ({}, "no source is enabled: set sources.NAME.metadata"),
        ({"laion5b": ["a"]}, r"sources\.laion5b: no such source; known are laion2b, "),
        ({"cc3m": []}, r"sources\.cc3m: no metadata is named; set sources\.cc3m\.metadata or enabled=false"),
        ({"cc3m": ["gone.tsv"]}, r"sources\.cc3m\.metadata: no file matches .*work/gone\.tsv"),
        ({"cc3m": ["gone/*.tsv"]}, r"sources\.cc3m\.metadata: no file matches .*work/gone/\*\.tsv"),
        ({"vg": ["region.json"]}, r"sources\.vg: region\.json needs the file of its images beside it, and no file is"),
        ({"mine": Source(metadata=["ok.tsv"])}, r"sources\.mine: no such source; .*mine\.format and sources\.mine"),
        ({"cc3m": ["folder"]}, "folder cannot be read: it is a folder; name its files"),
        (
            {"fmow": ["gone"]},
            r"fmow\.metadata: no folder or archive matches .*work/gone; it holds images in the layout tra",
        ),
        (
            {"fmow": ["folder"]},
            r"fmow\.metadata: folder: holds no image in the layout train/CLASS/CLASS_N/CLASS_N_I_rgb",
        ),
        ({"fmow": ["ok.tsv"]}, r"fmow\.metadata: ok\.tsv: is not a folder, or an archive .*; unpack it first"),
        ({"ben": ["set.tar.zst"]}, r"ben\.metadata: set\.tar\.zst: is not .*; unpack it first, and name the folder"),
        ({"millionaid": Source()}, r"sources\.millionaid: no metadata is named"),
        ({"cc3m": Source(metadata=["ok.tsv"], attributes="gone.parquet")}, r"gone\.parquet: cannot be read"),
        ({"cc3m": Source(enabled=False)}, "no source is enabled"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(store, tmp_path, sources, says):
    work = tmp_path / "work"
    (work / "folder").mkdir()
    _tsv(work / "ok.tsv", "a\thttp://a.example/1\n")
    (work / "set.tar.zst").write_bytes(b"x")
    _tsv(work / "region.json", "[]")
    with pytest.raises(RecipeError, match=says) as caught:
        metadata_slices(_recipe(**sources), store)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_a_partition_that_fails_and_the_others_stand(store, tmp_path):
    work = tmp_path / "work"
    (work / "bad.parquet").write_bytes(b"<html>not what was asked for</html>")
    whole = _parquet(tmp_path / "whole.parquet", 100).read_bytes()
    (work / "torn.parquet").write_bytes(whole[: len(whole) // 2])
    _parquet(work / "good.parquet", 10)
    for name in ("empty1.parquet", "empty2.parquet"):
        (work / name).touch()
    (work / "empty.tsv").touch()
    found = metadata_slices(_recipe(laion2b=["*.parquet"], cc3m=["empty.tsv"]), store)
    told = {str(item.params["uri"]): item.params.get("problem") for item in found}
    assert told == {
        "bad.parquet": told["bad.parquet"],
        "torn.parquet": told["torn.parquet"],
        "good.parquet": None,
        "empty1.parquet": "empty1.parquet, empty2.parquet: empty, 0 bytes; fetch it again, or leave it out",
        "empty.tsv": "empty.tsv: empty, 0 bytes; fetch it again, or leave it out",
    }
    for name in ("bad.parquet", "torn.parquet"):
        assert re.fullmatch(rf"{name}: not readable as Parquet \(.*\); fetch it again, or leave it out", told[name])
    assert len({item.partition for item in found}) == 5


def test_a_source_that_is_not_needed_may_lack_its_files_and_stays_undone(store, tmp_path):
    _tsv(tmp_path / "work/1.tsv", "a\thttp://a.example/1\n")
    recipe = _recipe(cc3m=["1.tsv"], wit=[], cc12m=["gone.tsv"])
    with pytest.raises(RecipeError, match=r"sources\.wit: no metadata is named"):
        metadata_slices(recipe, store)
    found = {item.partition: item.params.get("problem") for item in metadata_slices(recipe, store, needed=["cc3m"])}
    assert [name for name, problem in found.items() if problem] == ["cc12m-unknown", "wit-unknown"]
    assert "no file matches" in str(found["cc12m-unknown"])
    with pytest.raises(RecipeError, match="no file matches"):
        metadata_slices(recipe, store, needed=["cc12m"])


def test_a_source_of_ones_own_tells_the_step_how_it_is_read(store, tmp_path):
    _tsv(tmp_path / "work/1.csv", "u,c\nhttp://a.example/1,a\n")
    mine = Source(format="csv", columns={"url": "u", "text": "c"}, metadata=["1.csv"])
    found = metadata_slices(_recipe(mine=mine, cc3m=["1.csv"]), store)
    own = next(item for item in found if item.source == "mine")
    assert spec_of(own.params).columns.url == ("u",)
    assert (own.params["source"], own.partition) == ("mine", f"mine-{own.digest[:12]}-0")
    assert all("spec" not in item.params for item in found if item.source == "cc3m")


def test_companions_are_no_partitions_and_their_digests_are_inputs(store, tmp_path):
    for folder in ("one", "two"):
        _tsv(tmp_path / f"work/{folder}/region_descriptions.json", f"[{folder!r}]")
        _tsv(tmp_path / f"work/{folder}/image_data.json", f"[{folder!r}, {folder!r}]")
    recipe = _recipe(vg=["one/*.json", "two/*.json"])
    found = metadata_slices(recipe, store)
    assert [item.params["uri"] for item in sorted(found, key=lambda item: str(item.params["uri"]))] == [
        "one/region_descriptions.json", "two/region_descriptions.json",
    ]  # fmt: skip
    for item in found:
        images = item.params["beside"]["images"]
        assert images["uri"] == str(item.params["uri"]).replace("region_descriptions", "image_data")
        assert ("beside:images", "vg", images["digest"]) in item.inputs
    (tmp_path / "work/one/image_data.json").write_text("[0]")
    again = {item.partition: item.inputs for item in metadata_slices(recipe, store)}
    assert [name for name, was in ((i.partition, i.inputs) for i in found) if again[name] != was] == [
        item.partition for item in found if str(item.params["uri"]).startswith("one")
    ]


def test_files_that_are_known_are_not_opened_again(store, tmp_path, monkeypatch):
    for number in range(20):
        _parquet(tmp_path / f"work/{number}.parquet", 6, 2, word=f"w{number}")
    _tsv(tmp_path / "work/1.tsv", "a\thttp://a.example/1\n")
    recipe = _recipe(laion2b=["*.parquet"], cc3m=["1.tsv"])
    opened: list[str] = []
    original = metadata_files.open_uri
    monkeypatch.setattr(metadata_files, "open_uri", lambda store, uri: opened.append(uri) or original(store, uri))
    first = metadata_slices(recipe, store)
    assert len(opened) == 21
    assert metadata_slices(recipe, store) == first
    assert len(opened) == 21
    _parquet(tmp_path / "work/7.parquet", 8, 2, word="other")
    assert metadata_slices(recipe, store) != first
    assert opened[21:] == ["7.parquet"]


def test_every_folder_and_archive_of_images_is_one_partition(store, tmp_path):
    pack(tmp_path / "work/images", "a", "folder", fmow_members(1))
    pack(tmp_path / "work/images", "b", "tar", fmow_members(2))
    pack(tmp_path / "far", "c", "zip", fmow_members(3))
    pack(tmp_path / "work", "ben", "folder", v1_members())
    recipe = _recipe(fmow=["images/*", f"{tmp_path}/far/c.zip"], ben=["ben/"])
    found = metadata_slices(recipe, store)
    uris = ["images/a", "images/b.tar", f"{tmp_path}/far/c.zip"]
    assert sorted(str(item.params["uri"]) for item in found if item.source == "fmow") == sorted(uris)
    for item in found:
        assert item.digest == archive_digest(store, str(item.params["uri"]))
        assert item.partition == f"{item.source}-{item.digest[:12]}-0"
        assert item.params["source"] == item.source
    (folder,) = (item for item in found if item.params["uri"] == "images/a")
    (tmp_path / "work/images/a/train/fountain/fountain_0/fountain_0_0_rgb.jpg").write_bytes(b"longer" * 1000)
    assert folder.digest not in {item.digest for item in metadata_slices(recipe, store)}


def test_two_copies_of_a_folder_are_refused(store, tmp_path):
    for name in ("a", "b"):
        pack(tmp_path / "work", name, "folder", fmow_members(1))
    with pytest.raises(RecipeError, match="a and b are the same file"):
        metadata_slices(_recipe(fmow=["a", "b"]), store)


def test_a_folder_of_images_on_an_object_store(store, tmp_path):
    memory = fsspec.filesystem("memory")
    for path, body in fmow_members(1).items():
        memory.pipe_file(f"/rs5m-frames/{path}", body)
    try:
        (found,) = metadata_slices(_recipe(fmow=["memory://rs5m-frames"]), store)
        assert found.params["uri"] == "memory:///rs5m-frames"
    finally:
        memory.rm("/rs5m-frames", recursive=True)


def test_held_items_that_are_none_are_partitions_that_fail_and_the_others_stand(store, tmp_path):
    held = tmp_path / "work/held"
    write_wds(held / "good.tar", {"0": img2dataset_sample(0, "a view")})
    (held / "weird.bin").write_bytes(b"\x00\x01")
    (held / "folder").mkdir()
    for name in ("empty1", "empty2"):
        (tmp_path / "work/pictures" / name).mkdir(parents=True)
    pack(tmp_path / "work/pictures", "whole", "folder", {"a.jpg": b"x"})
    tars, pictures = (
        Source(format="webdataset", metadata=["held/*"]),
        Source(format="imagefolder", metadata=["pictures/*"]),
    )
    found = metadata_slices(_recipe(tars=tars, pictures=pictures), store)
    told = {str(item.params["uri"]): str(item.params.get("problem") or "") for item in found}
    assert sorted(told) == ["held/folder", "held/good.tar", "held/weird.bin", "pictures/empty1", "pictures/whole"]
    assert (told["held/good.tar"], told["pictures/whole"]) == ("", "")
    assert "held/weird.bin: is not a folder, or an archive .tar" in told["held/weird.bin"]
    assert told["held/folder"] == "held/folder is a folder; name its tars, e.g. held/folder/*.tar, or leave it out"
    assert "pictures/empty1: holds no image in the layout FOLDER/NAME.jpg (or .png" in told["pictures/empty1"]
    assert "pictures/empty2: holds no image" in told["pictures/empty1"]
    assert len({item.partition for item in found}) == 5


def test_tars_of_one_name_are_refused_still(store, tmp_path):
    for number in range(2):
        write_wds(tmp_path / f"work/{number}/0.tar", {"0": img2dataset_sample(number, "a view")})
    with pytest.raises(RecipeError, match="have one name"):
        metadata_slices(_recipe(tars=Source(format="webdataset", metadata=["*/0.tar"])), store)

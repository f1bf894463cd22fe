"""A sample's files are told by their names as the webdataset library tells them."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext, group_by_keys, tar_file_expander

from stages.held_images import find_samples

ENDINGS = st.sampled_from(["jpg", "JPG", "png", "txt", "json", "caption", "img_content", "cls", "mask.png", "a.b", ""])
NAMES = st.text("ab-_ 0\u00e9", min_size=1, max_size=4)
FOLDERS = st.sampled_from(["", "d/", "e.f/", "d/e.f/"])
PATHS = st.lists(st.builds("{}{}.{}".format, FOLDERS, NAMES, ENDINGS), unique=True)


@given(PATHS)
def test_keys_are_those_of_the_webdataset_library(paths):
    samples = find_samples("webdataset", paths)
    keys = {base_plus_ext(path)[0] for path in paths} - {None}
    assert {sample.key for sample in samples} <= keys
    assert [sample.key for sample in samples] == sorted({sample.key for sample in samples})
    for sample in samples:
        assert bool(sample.image) != bool(sample.problem)
        for ending, path in sample.beside.items():
            key, library_ending = base_plus_ext(path)
            assert (key, library_ending.lower()) == (sample.key, ending)


@given(PATHS)
def test_no_image_is_passed_over_in_silence(paths):
    found = find_samples("webdataset", paths)
    by_key = {sample.key: sample for sample in found}
    for path in paths:
        if path.lower().endswith((".jpg", ".img_content")):
            assert base_plus_ext(path)[0] in by_key
    folder = find_samples("imagefolder", paths)
    images = [path for path in paths if path.lower().endswith((".jpg", ".png"))]
    assert sorted(sample.image for sample in folder) == sorted(images)


@pytest.mark.parametrize(
    ("files", "image", "problem"),
    [
        (["k.jpg", "k.txt"], "k.jpg", ""),
        (["k.JPEG"], "k.JPEG", ""),
        (["k.jpg", "k.mask.png"], "k.jpg", ""),
        (["k.rgb.tif", "k.json"], "k.rgb.tif", ""),
        (["k.img_content", "k.img_name", "k.caption"], "k.img_content", ""),
        (["k.json"], "", "no image"),
        (["k.jpg", "k.png"], "", "2 images: jpg, png; leave one, or read it as an imagefolder"),
        (["k.1.jpg", "k.2.jpg", "k.txt"], "", "2 images: 1.jpg, 2.jpg; leave one, or read it as an imagefolder"),
    ],
)
def test_which_image_is_a_samples(files, image, problem):
    (sample,) = find_samples("webdataset", files)
    assert (sample.key, sample.image, sample.problem) == ("k", image, problem)


def test_what_is_no_sample():
    assert find_samples("webdataset", ["readme", "k.npy", "00000.parquet", "d.e/readme"]) == []
    assert find_samples("imagefolder", ["a.txt", "a.b/c", "d/00000.parquet", "jpg"]) == []


def test_images_of_one_name_share_what_stands_beside_them():
    one, other = find_samples("imagefolder", ["d/a.png", "d/a.jpg", "d/a.txt", "d/b.txt", "a.json"])
    assert (one.image, other.image) == ("d/a.jpg", "d/a.png")
    assert one.beside == other.beside == {"txt": "d/a.txt"}


def test_the_library_groups_the_same_samples(tmp_path):
    """What webdataset's own reader groups, over a tar with dots in names and folders."""
    names = ["a/x.jpg", "a/x.txt", "b.c/x.json", "b.c/x.png", "y.1.jpg", "y.txt"]
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"1"))
    with (tmp_path / "t.tar").open("rb") as stream:
        files = tar_file_expander([{"url": "t.tar", "stream": stream}])
        read = {sample["__key__"]: set(sample) for sample in group_by_keys(files)}
    mine = {sample.key: set(sample.beside) for sample in find_samples("webdataset", names)}
    assert set(read) == set(mine)
    assert all(endings <= read[key] for key, endings in mine.items())

"""The official place of an image is told by the last parts of its path, and by nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.layouts import file_of, find_frames, url_of

FOLDERS = st.lists(st.sampled_from(["data", "fmow-rgb", "x y", "2020", "full"]), max_size=3)
CLASSES = st.sampled_from(["airport", "car_dealership", "multi-unit_residential", "parking_lot_or_garage"])
PATCHES = st.builds(
    "S2{}_MSIL2A_2017{:02d}{:02d}T{}_{}_{}".format, st.sampled_from("AB"), st.integers(1, 12), st.integers(1, 28),
    st.sampled_from(["101031", "94033"]), st.integers(0, 99), st.integers(0, 99),
)  # fmt: skip


def only(layout, name, *paths):
    found = find_frames(layout, name, paths)
    assert len(found.frames) == 1
    return found.frames[0]


def official(layout, name, path):
    return only(layout, name, path).official


@given(FOLDERS, st.sampled_from(["train", "val", "test_gt"]), CLASSES, st.integers(0, 5000), st.integers(0, 40),
       st.sampled_from(["rgb", "msrgb"]))  # fmt: skip
def test_fmow_whatever_stands_before(before, split, label, number, frame, variant):
    location = f"{label}_{number}"
    wanted = f"{split}/{label}/{location}/{location}_{frame}_{variant}.jpg"
    found = only("fmow", "anything", "/".join([*before, wanted]))
    assert (found.official, found.group, found.label) == (wanted, f"{split}/{label}/{location}", label)
    assert found.key == f"{location}_{frame}_{variant}"
    assert url_of("fmow", found) == f"fmow:{wanted}"
    assert official("fmow", split, wanted.partition("/")[2]) == wanted
    if split == "train":
        assert official("fmow", "anything", wanted.partition("/")[2]) == wanted


@given(FOLDERS, PATCHES)
def test_bigearthnet_whatever_stands_before(before, patch):
    folder = "/".join([*before, patch])
    found = only("bigearthnet", "x", f"{folder}/{patch}_B01.tif", f"{folder}/{patch}_B8A.tif",
                 f"{folder}/{patch}_labels_metadata.json")  # fmt: skip
    assert (found.path, found.official, found.key) == (folder, f"BigEarthNet-v1.0/{patch}", patch)
    assert found.group == "_".join(patch.split("_")[:3])


def test_bigearthnet_v2_is_told_by_the_name():
    patch = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57"
    scene = patch.removesuffix("_26_57")
    found = only("bigearthnet", scene, f"{patch}/{patch}_B02.tif")
    assert (found.official, found.group) == (f"BigEarthNet-S2/{scene}/{patch}", scene)
    assert find_frames("bigearthnet", "x", ["BigEarthNet-S1/S1A_IW/p/S1A_IW_p_VV.tif", "m/p_reference_map.tif",
                                             "metadata.parquet", "README.md"]).others == 4  # fmt: skip
    assert not find_frames("bigearthnet", "x", ["metadata.parquet"]).any


def test_a_patch_that_is_the_folder_itself():
    patch = "S2A_MSIL2A_20170613T101031_87_48"
    found = only("bigearthnet", patch, f"{patch}_B01.tif", f"{patch}_B02.tif")
    assert (found.path, found.official) == ("", f"BigEarthNet-v1.0/{patch}")


@pytest.mark.parametrize(
    ("layout", "path", "wanted"),
    [
        ("fmow", "test/0011978/0011978_3_msrgb.jpg", "test/0011978/0011978_3_msrgb.jpg"),
        ("fmow", "0011978/0011978_3_msrgb.jpg", "test/0011978/0011978_3_msrgb.jpg"),
        ("fmow", "train/airport/airport_1/airport_2_0_rgb.jpg", ""),
        ("fmow", "train/hangar/airport_1/airport_1_0_rgb.jpg", ""),
        ("fmow", "airport_1_0_rgb.jpg", ""),
        ("fmow", "train/airport/airport_1/airport_1_0_overview.tif", ""),
        ("fmow", "train/airport/airport_1/overview.PNG", ""),
        ("millionaid", "P0173410.jpg", "test/P0173410.jpg"),
        ("millionaid", "MillionAID/test/P0173410.jpg", "test/P0173410.jpg"),
        ("millionaid", "x/train/Agriculture Land/Woodland/forest/P0000001.jpg",
         "train/Agriculture Land/Woodland/forest/P0000001.jpg"),
        ("millionaid", "train/P0000001.jpg", "train/P0000001.jpg"),
        ("millionaid", "test/holiday.jpg", ""),
        ("bigearthnet", "other/S2A_MSIL2A_20170613T101031_87_48_B01.tif", ""),
        ("bigearthnet", "quicklook.png", ""),
    ],
)  # fmt: skip
def test_places(layout, path, wanted):
    assert official(layout, "set", path) == wanted


def test_the_class_of_a_training_image_of_millionaid_is_its_folder():
    assert only("millionaid", "x", "train/a/b/dry_field/P0000001.jpg").label == "dry_field"
    assert only("millionaid", "x", "train/P0000001.jpg").label is None
    assert only("millionaid", "train", "a/dry_field/P0000001.jpg").label == "dry_field"


@given(st.sampled_from(["fmow", "bigearthnet", "millionaid"]),
       st.lists(st.text(st.characters(codec="utf-8"), max_size=20).filter(lambda part: "/" not in part), min_size=1,
                max_size=5))  # fmt: skip
def test_no_path_is_too_odd(layout, parts):
    path = "/".join(parts)
    found = find_frames(layout, "set", [path])
    assert len(found.frames) + found.others == 1
    for frame in found.frames:
        assert ".." not in frame.official.split("/")
        assert frame.official == "" or frame.key


@pytest.mark.parametrize("kind", ["ms", "pan", "rgb", "msrgb"])
def test_the_geotiffs_of_fmow_full_are_passed_over(kind):
    folder = "train/car_dealership/car_dealership_1"
    names = [f"{folder}/car_dealership_1_0_{kind}.{suffix}" for suffix in ("tif", "tiff", "json")]
    found = find_frames("fmow", "x", [*names, f"{folder}/car_dealership_1_0_rgb.jpg"])
    assert ([frame.path for frame in found.frames], found.others) == ([f"{folder}/car_dealership_1_0_rgb.jpg"], 3)
    assert not find_frames("fmow", "x", names).any


def test_a_file_of_a_patch_lies_in_its_folder_or_at_the_root():
    patch = "S2A_MSIL2A_20170613T101031_87_48"
    assert file_of(only("bigearthnet", patch, f"{patch}_B01.tif"), "B04.tif") == f"{patch}_B04.tif"
    assert file_of(only("bigearthnet", "x", f"a/{patch}/{patch}_B01.tif"), "B04.tif") == f"a/{patch}/{patch}_B04.tif"

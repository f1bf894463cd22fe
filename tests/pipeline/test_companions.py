"""Files that belong to files of rows: by name, alone or by folder; and what is said where one is missing."""

import pytest

from manifests.recipe_files import RecipeError
from manifests.sources import load_sources
from pipeline.companions import checked, tell_apart
from stages.uris import Named

SOURCES = load_sources()


def _told(source: str, *uris: str) -> dict[str, dict[str, str]]:
    files = [Named(uri, 1, "1") for uri in uris]
    return {
        file.uri: {role: other.uri for role, other in beside.items()}
        for file, beside in checked(SOURCES[source], files)
    }


@pytest.mark.parametrize(
    ("source", "uris", "told"),
    [
        ("cc3m", ["a.tsv", "b.tsv"], {"a.tsv": {}, "b.tsv": {}}),
        ("vg", ["x/region_descriptions.json", "y/Image_Data.json.gz"],
         {"x/region_descriptions.json": {"images": "y/Image_Data.json.gz"}}),
        ("yfcc14m", ["d/yfcc100m_dataset-0.bz2", "d/yfcc100m_dataset-1.bz2", "YFCC100M_subset_data.tsv"],
         {f"d/yfcc100m_dataset-{n}.bz2": {"ids": "YFCC100M_subset_data.tsv"} for n in (0, 1)}),
        ("sbu", ["sbu-captions-all.json"], {"sbu-captions-all.json": {}}),
        ("sbu", ["sbu-captions-all.json.gz"], {"sbu-captions-all.json.gz": {}}),
        ("sbu", ["s/SBU_urls.txt", "s/SBU_captions.txt"], {"s/SBU_urls.txt": {"captions": "s/SBU_captions.txt"}}),
        ("sbu", ["1/urls.txt", "1/captions.txt", "2/urls.txt", "2/captions.txt"],
         {"1/urls.txt": {"captions": "1/captions.txt"}, "2/urls.txt": {"captions": "2/captions.txt"}}),
    ],
)  # fmt: skip
def test_which_belongs_to_which(source, uris, told):
    assert _told(source, *uris) == told


@pytest.mark.parametrize(
    ("source", "uris", "says"),
    [
        ("vg", ["region.json"], "region.json needs the file of its images beside it, and .* like image_data"),
        ("yfcc14m", ["yfcc100m_dataset.bz2"], "the file of its ids beside it, .* like yfcc100m_subset_data"),
        ("sbu", ["SBU_urls.txt"], "SBU_urls.txt needs the file of its captions"),
        ("vg", ["image_data.json"], "only image_data.json is named, which goes with files of rows"),
        ("sbu", ["s/urls.txt", "s/a_captions.txt", "s/b_captions.txt"],
         "s/a_captions.txt and s/b_captions.txt are both files of captions in one folder"),
        ("vg", ["a/region.json", "b/image_data.json", "c/image_data.json"],
         "b/image_data.json and c/image_data.json lie in other folders"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(source, uris, says):
    with pytest.raises(RecipeError, match=says):
        _told(source, *uris)


def test_every_fault_is_told_once():
    told = tell_apart(SOURCES["vg"], [Named(f"{n}/region.json", 1, "") for n in range(2)])
    assert len(told.faults) == len(told.rows) == 2

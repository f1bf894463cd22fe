"""The table of formats: what a partition's files are handed to, and what is said where one of them is missing."""

import hashlib
import json
from typing import get_args

import pytest

from manifests.lexicon import load_lexicon
from manifests.sources import SourceSpec, TableFormat, load_sources
from manifests.store import Store
from stages.filter.formats import scan_metadata
from stages.filter.matcher import Matcher
from stages.filter.rows import MetadataError
from stages.uris import ChangedFileError

MATCHER = Matcher(load_lexicon("rs5m-1"), "stem")
SOURCES = load_sources()
YFCC = (
    "7\tu\tn\t2015-01-01 00:00:00.0\t1\td\tAerial+view\t\ta,b\t\t1.5\t2.5\t16\tp\thttp://a.org/x.jpg"
    "\tl\tlu\t1\t1\ts\tso\tjpg\t0"
)
WIT = (
    "language page_url image_url page_title section_title hierarchical_section_title caption_reference_description "
    "caption_attribution_description caption_alt_text_description mime_type original_height original_width "
    "is_main_image attribution_passes_lang_id page_changed_recently context_page_description "
    "context_section_description"
).split()
WIT_ROW = ["en", "p", "http://a.org/x.jpg", "", "", "", "Aerial view", *[""] * 10]
FILES = {
    "tsv": {"m": "http://a.org/x.jpg\tAerial view\n"},
    "csv": {"m": 'url,text\nhttp://a.org/x.jpg,"Aerial view"\n'},
    "jsonl": {"m": json.dumps({"url": "http://a.org/x.jpg", "text": "Aerial view"}) + "\n"},
    "redcaps": {"m": json.dumps({"annotations": [{"url": "http://a.org/x.jpg", "caption": "Aerial view"}]})},
    "sbu": {"m": json.dumps({"image_urls": ["http://a.org/x.jpg"], "captions": ["Aerial view"]})},
    "vg": {
        "m": json.dumps([{"id": 1, "regions": [{"phrase": "Aerial view"}]}]),
        "images": json.dumps([{"image_id": 1, "url": "http://a.org/x.jpg"}]),
    },
    "wit": {"m": "\t".join(WIT) + "\n" + "\t".join(WIT_ROW) + "\n"},
    "yfcc": {"m": YFCC + "\n", "ids": "1\t7\tabc\n"},
}


def source(kind):
    described = next((spec for spec in SOURCES.values() if spec.format == kind), None)
    return described or SourceSpec(key="mine", name="mine", format=kind, columns={"url": ["url"]}, text=["text"])


def params(store, files):
    told = {}
    for role, text in files.items():
        store.replace(role, text.encode())
        told[role] = {"uri": role, "digest": hashlib.sha256(text.encode()).hexdigest()}
    return {**told.pop("m"), "beside": told}


def scan(tmp_path, kind, files, **changed):
    store = Store(str(tmp_path / "work"))
    return list(scan_metadata(store, source(kind), params(store, files) | changed, MATCHER, tmp_path))


@pytest.mark.parametrize("kind", sorted(FILES))
def test_every_format_has_a_reader(tmp_path, kind):
    hits = [hit for one in scan(tmp_path, kind, FILES[kind]) for hit in one.hits.to_pylist()]
    assert [(hit["url"], hit["matched"]) for hit in hits] == [("http://a.org/x.jpg", ["aerial view"])]


def test_no_format_is_without_one():
    assert set(get_args(TableFormat)) == {*FILES, "parquet"}  # Parquet has row groups to be told: test_match


@pytest.mark.parametrize(("kind", "role"), [("vg", "images"), ("yfcc", "ids")])
def test_a_plan_without_the_file_beside_is_a_fault_of_the_plan(tmp_path, kind, role):
    with pytest.raises(ValueError, match=f"the plan names no file of {role}"):
        scan(tmp_path, kind, FILES[kind], beside={})


@pytest.mark.parametrize("kind", sorted(FILES))
def test_a_file_that_is_no_longer_the_planned_one_is_noticed(tmp_path, kind):
    with pytest.raises(ChangedFileError, match="changed while it was read, or since the run was planned"):
        scan(tmp_path, kind, FILES[kind], digest="0" * 64)


@pytest.mark.parametrize("kind", sorted(set(FILES) - {"yfcc"}))  # each line of its records may be a bad row
def test_a_file_of_another_format_is_refused(tmp_path, kind):
    with pytest.raises(MetadataError):
        scan(tmp_path, kind, FILES[kind] | {"m": "just\na\ttext\tfile\n"})

from pathlib import Path

import pytest
from pydantic import ValidationError

import manifests
from manifests.sources import PUB11, RS3, Published, SourceSpec, load_source, load_sources

FOLDER = Path(manifests.__file__).parent / "sources"
WEB = {key: spec for key, spec in load_sources().items() if key in PUB11}
MINIMAL = {"key": "mine", "name": "Mine", "format": "parquet", "columns": {"url": ["u"]}, "text": ["t"]}


def test_every_source_loads_in_the_published_order():
    sources = load_sources()
    assert tuple(sources) == (*PUB11, *RS3)
    assert [spec.key for spec in sources.values()] == [*PUB11, *RS3]
    assert [spec.name for spec in sources.values()] == [
        "LAION2B", "COYO700M", "LAIONCOCO", "LAION400M", "WIT", "YFCC15M", "CC12M", "RedCaps", "CC3M", "SBU", "VG",
        "FMoW", "BEN", "MillionAID",
    ]  # fmt: skip
    amounts = [spec.published.amount for spec in WEB.values()]
    assert amounts == sorted(amounts, reverse=True)
    for spec in sources.values():
        assert spec.subset == ("pub11" if spec.key in PUB11 else "rs3")
        assert spec.is_archive == (spec.key in RS3)
        assert spec.licence
        assert spec.credit
        assert spec.home
        assert spec.availability


def test_each_format_of_the_published_sources():
    assert {key: spec.format for key, spec in load_sources().items()} == {
        **dict.fromkeys(("laion2b", "coyo700m", "laioncoco", "laion400m"), "parquet"),
        "cc3m": "tsv", "cc12m": "tsv", "wit": "wit", "yfcc14m": "yfcc", "redcaps": "redcaps", "sbu": "sbu", "vg": "vg",
        "fmow": "fmow", "ben": "bigearthnet", "millionaid": "millionaid",
    }  # fmt: skip
    assert not any(spec.is_held for spec in load_sources().values())


def test_which_sources_have_files_beside_theirs():
    assert {key: tuple(spec.beside) for key, spec in load_sources().items() if spec.beside} == {
        "sbu": ("captions",), "vg": ("images",), "yfcc14m": ("ids",),
    }  # fmt: skip


@pytest.mark.parametrize("key", ["redcaps", "sbu", "vg"])
def test_the_json_sources_say_what_to_get_and_who_says_what_is_matched(key):
    spec = load_sources()[key]
    assert spec.get
    assert spec.matched_by.startswith("ours: the paper names no column")
    assert spec.text == {"redcaps": ("caption",), "sbu": ("captions",), "vg": ("phrases",)}[key]


def test_the_published_archives():
    """Amount, split and labels are published; nothing is filtered out, so the other columns follow."""
    told = {
        key: (spec.published.amount, spec.original_split, spec.has_class_label)
        for key, spec in load_sources().items()
        if key in RS3
    }
    assert told == {
        "fmow": (727_144, "train", True), "ben": (344_385, "train", True), "millionaid": (990_848, "test", False),
    }  # fmt: skip
    assert sum(amount for amount, _, _ in told.values()) == 2_062_377
    for key in RS3:
        row = load_sources()[key].published
        assert row.amount == row.after_keyword == row.download == row.remain
        assert row.invalid == row.duplicate == row.outlier == 0


def test_the_two_conceptual_captions_have_their_columns_the_other_way_round():
    sources = load_sources()
    assert sources["cc3m"].headers[0] == ("caption", "url")
    assert sources["cc12m"].headers == (("url", "caption"),)


@pytest.mark.parametrize("key", PUB11)
def test_each_published_row_adds_up(key):
    row = load_sources()[key].published
    assert row.remain == row.download - row.invalid - row.duplicate - row.outlier
    assert row.amount >= row.after_keyword >= row.download
    unit = {"B": 1_000_000_000, "M": 1_000_000}[row.amount_text[-1]]
    assert row.amount == round(float(row.amount_text[:-1]) * unit)


def test_the_published_rows_add_up_to_the_published_total():
    rows = [spec.published for spec in WEB.values()]
    totals = {name: sum(getattr(row, name) for row in rows) for name in Published.model_fields if name != "amount_text"}
    assert totals == {
        "amount": 4_201_400_000,
        "after_keyword": 6_121_583,
        "download": 5_244_251,
        "invalid": 236,
        "duplicate": 1_224_790,
        "outlier": 1_011_416,
        "remain": 3_007_809,
    }


def test_the_digest_sees_how_rows_are_read_and_nothing_else():
    spec = SourceSpec.model_validate(MINIMAL)
    assert SourceSpec.model_validate(MINIMAL | {"credit": "someone", "name": "Other"}).digest == spec.digest
    words = {"home": "h", "get": "g", "availability": "a", "successor": "s", "matched_by": "m"}
    assert SourceSpec.model_validate(MINIMAL | words).digest == spec.digest
    for change in ({"own": True}, {"instead": {"t": ["u"]}}):
        assert SourceSpec.model_validate(MINIMAL | change).digest != spec.digest
    for change in ({"text": ["t", "u"]}, {"keywords": "all"}, {"beside": {"ids": "*.tsv"}}, {"text_joiner": "; "}):
        assert SourceSpec.model_validate(MINIMAL | change).digest != spec.digest
    assert len({spec.digest for spec in load_sources().values()}) == len(PUB11) + len(RS3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "red"}, "Extra inputs"),
        ({"columns": {"url": ["u"], "sise": ["s"]}}, "Extra inputs"),
        ({"key": "no spaces"}, "pattern"),
        ({"columns": {}}, "name the url column"),
        ({"text": []}, "at least one text column"),
        ({"instead": {"T": ["u"]}}, "instead names T, which is no text column"),
        ({"headers": [["a"]]}, "not to parquet"),
        ({"format": "redcaps", "headers": [["u", "t"]]}, "not to redcaps"),
        ({"format": "tsv", "headers": [["u", "u"]]}, "twice"),
        ({"format": "tsv", "headers": [["u", "t"], ["t", "u"]]}, "same number of columns"),
        ({"format": "hdf5"}, "format"),
        ({"keywords": "some"}, "keywords"),
        ({"source_hash_kind": "md5"}, "source_hash"),
        ({"columns": {"url": ["u"], "source_hash": ["h"]}}, "source_hash_kind"),
        ({"text_joiner": " - "}, "punctuation"),
        ({"format": "fmow"}, "of subset rs3"),
        ({"subset": "rs3"}, "of subset rs3"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(change, words):
    with pytest.raises(ValidationError, match=words):
        SourceSpec.model_validate(MINIMAL | change)


def test_held_images_need_no_columns_and_are_of_the_web():
    for form in ("webdataset", "imagefolder"):
        spec = SourceSpec.model_validate({"key": "mine", "name": "Mine", "format": form})
        assert (spec.subset, spec.is_held, spec.is_archive) == ("pub11", True, True)
        with pytest.raises(ValidationError, match="subset rs3"):
            SourceSpec.model_validate({"key": "mine", "name": "Mine", "format": form, "subset": "rs3"})


def test_terms_of_an_archive_are_those_of_its_rows():
    spec = load_sources()["fmow"]
    assert spec.model_copy(update={"licence": "other"}).digest != spec.digest
    assert spec.model_copy(update={"home": "other", "original_split": "val"}).digest == spec.digest


def test_a_file_of_ones_own_loads_too(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('key = "mine"\nname = "Mine"\nformat = "parquet"\ntext = ["t"]\n[columns]\nurl = ["u"]\n')
    spec = load_source(path)
    assert spec.published is None
    assert spec == SourceSpec.model_validate(MINIMAL)

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.recipe import Recipe
from manifests.recipe_files import RecipeError
from manifests.source_specs import enabled_specs, spec_of, spec_params
from manifests.sources import PUB11, RS3, load_sources

OWN = {"format": "parquet", "columns": {"url": "link", "text": "caption"}}


def specs(**sources):
    return enabled_specs(Recipe.model_validate({"name": "r", "sources": sources}))


def refusal(**sources):
    with pytest.raises(RecipeError) as error:
        specs(**sources)
    told = str(error.value)
    assert "\n" not in told
    return told


def test_described_sources_come_first_in_published_order():
    names = ["vg", "mine", "fmow", "another", "laion2b"]
    found = specs(**{name: OWN if name in ("mine", "another") else {} for name in names}, cc3m={"enabled": False})
    assert list(found) == ["laion2b", "vg", "fmow", "mine", "another"]
    known = load_sources()
    assert all(found[key] is known[key] for key in ("laion2b", "vg", "fmow"))


def test_a_source_of_ones_own():
    columns = {"url": ["link", "URL"], "text": ["title", "body"], "width": "w", "licence": ["rights"]}
    told = {"format": "csv", "columns": columns, "header": ["title", "link"], "licence": "CC0", "credit": "me"}
    spec = specs(mine=told)["mine"]
    assert (spec.key, spec.name, spec.subset, spec.format) == ("mine", "mine", "pub11", "csv")
    assert (spec.columns.url, spec.text, spec.columns.width) == (("link", "URL"), ("title", "body"), ("w",))
    assert (spec.columns.licence, spec.headers) == (("rights",), (("title", "link"),))
    assert (spec.keywords, spec.licence, spec.credit, spec.matched_by) == ("match", "CC0", "me", "the recipe")
    assert spec.published is None
    assert spec.own
    assert not any(known.own for known in load_sources().values())
    plain = specs(mine=OWN)["mine"]
    assert (plain.columns.url, plain.text, plain.headers, plain.licence) == (("link",), ("caption",), (), "unknown")
    assert specs(mine=OWN | {"keywords": "all"})["mine"].keywords == "all"


@pytest.mark.parametrize("form", ["webdataset", "imagefolder"])
def test_held_images_need_no_columns_and_all_of_them_stay(form):
    spec = specs(mine={"format": form})["mine"]
    assert (spec.is_held, spec.keywords, spec.text) == (True, "all", ())
    assert specs(mine={"format": form, "keywords": "match"})["mine"].keywords == "match"


@pytest.mark.parametrize("key", ["redcaps", "laion2b", "sbu"])
def test_columns_of_a_described_source_can_be_renamed(key):
    known = load_sources()[key]
    renamed = specs(**{key: {"columns": {"text": "raw", "height": "h"}}})[key]
    assert (renamed.text, renamed.columns.height) == (("raw",), ("h",))
    assert (dict(renamed.instead), renamed.own) == ({}, False)
    assert (renamed.columns.url, renamed.headers, renamed.published) == (
        known.columns.url,
        known.headers,
        known.published,
    )
    assert renamed.digest != known.digest
    assert known.text != ("raw",)


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ({"mine": {}}, "sources.mine: no such source; known are laion2b"),
        ({"mine": {}}, 'columns = {url = "url", text = "caption"}'),
        ({"mine": {"columns": OWN["columns"]}}, "set sources.mine.format"),
        ({"mine": OWN | {"columns": {"url": "u", "text": "t", "wdith": "w"}}}, "no field 'wdith'; fields are text"),
        ({"coyo700m": {"columns": {"phrases": "p"}}}, "sources.coyo700m.columns: no field 'phrases'"),
        ({"vg": {"columns": {"url": "p"}}}, "sources.vg.columns: the layout of vg is fixed"),
        ({"yfcc14m": {"columns": {"text": "title"}}}, "sources.yfcc14m.columns: the layout of yfcc14m is fixed"),
        ({"fmow": {"columns": {"url": "u"}}}, "sources.fmow.columns: the layout of fmow is fixed"),
        ({"mine": {"format": "parquet"}}, "name the url column and at least one text column"),
        ({"mine": {"format": "jsonl", "columns": {"url": "u"}}}, "at least one text column"),
        ({"mine": {"format": "tsv", "columns": {"text": "t"}}}, "name the url column"),
        ({"mine": OWN | {"header": ["link", "caption"]}}, "headers belong to files without a header line"),
        ({"mine": OWN | {"format": "csv", "header": ["link", "link"]}}, "a header has a name twice"),
        ({"mine": OWN | {"columns": {**OWN["columns"], "source_hash": "md5"}}}, "source_hash needs source_hash_kind"),
        ({"vg": {"format": "parquet"}}, "sources.vg.format: vg is described already; only its columns can be renamed"),
        ({"vg": {"columns": {"url": "u"}, "licence": "CC0"}}, "sources.vg.licence: vg is described already"),
        ({"fmow": {"keywords": "all"}}, "sources.fmow.keywords"),
        ({"my_own": OWN}, "sources.my_own: key: String should match pattern"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_one_line(sources, words):
    assert words in refusal(**sources)


@pytest.mark.parametrize("key", [*PUB11, *RS3])
def test_a_task_is_told_the_key_of_a_described_source(key):
    spec = load_sources()[key]
    assert spec_params(spec) == {"source": key}
    assert spec_of(json.loads(json.dumps(spec_params(spec)))) == spec


NAMES = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=3, unique=True)


@given(
    st.sampled_from(["parquet", "jsonl", "csv", "tsv"]), NAMES, NAMES,
    st.dictionaries(st.sampled_from(["width", "nsfw", "tags", "language"]), NAMES),
    st.sampled_from(["", "match", "all"]),
)  # fmt: skip
def test_a_task_is_told_all_of_a_source_of_ones_own(form, url, text, others, keywords):
    header = ["link", "words"] if form in ("csv", "tsv") else []
    columns = {"url": url, "text": text, **others}
    spec = specs(mine={"format": form, "columns": columns, "keywords": keywords, "header": header, "credit": "\u00e9"})[
        "mine"
    ]
    told = json.loads(json.dumps(spec_params(spec)))
    assert told["source"] == "mine"
    assert spec_of(told) == spec
    assert spec_of(told).digest == spec.digest


def test_another_name_of_a_text_stays_with_it():
    spec = specs(laion2b={"columns": {"text": ["TEXT", "alt"], "nsfw": "unsafe"}})["laion2b"]
    assert (spec.text, dict(spec.instead)) == (("TEXT", "alt"), {"TEXT": ("caption",)})


def test_a_task_is_told_of_renamed_columns():
    spec = specs(redcaps={"columns": {"text": ["raw_caption", "caption"]}})["redcaps"]
    told = json.loads(json.dumps(spec_params(spec)))
    assert spec_of(told) == spec
    assert spec_of(told).text == ("raw_caption", "caption")

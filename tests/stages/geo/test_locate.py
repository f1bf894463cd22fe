import json
import os
from pathlib import Path

import pytest

from manifests.store import Store
from stages.geo.locate import Locate
from stages.geo.ner import Named
from stages.geo.nltk_ner import load_nltk
from stages.step import ModelMissingError
from tests.stages.handing import Handed, perform, rows_of, settings_of

DATA = os.environ.get("RS5M_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="RS5M_TEST_DATA is not set: no real sidecars to read")
FMOW = {
    "country_code": "CHE", "timestamp": "2012-04-02T10:32:22Z", "img_width": 977, "img_height": 663, "utm": "32T",
    "multi_resolution_dbl": 1.87378, "gsd": 0.468, "cloud_cover": 0, "scan_direction": "Reverse",
    "target_azimuth_dbl": 31.2, "off_nadir_angle_dbl": 21.9,
    "raw_location": "POLYGON ((8.58 47.44, 8.59 47.44, 8.59 47.46, 8.58 47.46, 8.58 47.44))",
    "bounding_boxes": [{"category": "fountain"}, {"category": "fountain", "box": [466, 299, 72, 60]}],
}  # fmt: skip


def locate(*rows, store=None, **changed):
    """Rows say what their candidate says; exif_* belong to the inspected row; source decides the lane."""
    rows = [{"sample_id": str(n), "source": "laion2b", "subset": "pub11"} | row for n, row in enumerate(rows)]
    for row in rows:
        row["subset"] = "rs3" if row["source"] in ("fmow", "ben", "millionaid") else "pub11"
        if isinstance(row.get("extra"), dict):
            row["extra"] = json.dumps(row["extra"])
    exif = ("exif_lon", "exif_lat")
    survivors = {
        lane: [{"sample_id": r["sample_id"], "source": r["source"]} for r in rows if r["subset"] == lane]
        for lane in ("pub11", "rs3")
    }
    tables = Handed(store or Store("memory://nothing"), {
        ("outlier.cut", "survivors"): rows_of("survivors", *survivors["pub11"]),
        ("caption.generate", "survivors"): rows_of("survivors", *survivors["rs3"]),
        ("filter.pool", "candidates"): rows_of(
            "candidates", {"sample_id": "gone"}, *({k: v for k, v in row.items() if k not in exif} for row in rows)
        ),
        ("dedup.inspect", "inspected"): rows_of(
            "inspected", *({"sample_id": row["sample_id"]} | {k: row[k] for k in exif if k in row} for row in rows)
        ),
    })  # fmt: skip
    return perform(Locate(), tables, {key if key == "seed" else f"geo.{key}": value for key, value in changed.items()})


def place(row, **changed):
    return locate(row, **changed).row("places", "0")


def test_a_caption_of_the_web():
    row = place({"text": "Aerial view of Paris, Texas", "taken_at": "2008-07-20 14:25:17.0"})
    assert [(e["name"], e["country"], e["backend"]) for e in row["entities"]] == [
        ("Paris", "United States", "gazetteer"), ("Texas", "United States", "gazetteer"),
    ]  # fmt: skip
    assert (row["lon"], row["lat"], row["coord_from"], row["utm"], row["country"]) == (None,) * 5  # never from names
    assert (row["month"], row["season"], row["meta"], row["template"]) == (7, None, None, None)


def test_a_frame_of_fmow():
    row = place({"source": "fmow", "extra": FMOW, "taken_at": FMOW["timestamp"], "tags": [{"name": "fountain"}]})
    assert (row["lon"], row["lat"]) == pytest.approx((8.585, 47.45))
    assert (row["coord_from"], row["utm"], row["country"], row["month"], row["season"]) == (
        "sidecar", "32T", "Switzerland", 4, "spring",
    )  # fmt: skip
    assert row["gsd_m"] == pytest.approx(0.468)
    assert "ountain" in row["meta"]
    assert ", Switzerland" in row["meta"]
    assert row["template"].startswith("fmow_complex/")
    assert row["entities"] == []
    assert place({"source": "fmow", "extra": FMOW}, point="first_vertex")["lon"] == 8.58


def test_an_unknown_country_code_and_missing_boxes():
    for code in ("XYZ", "-99", "99"):
        row = place({"source": "fmow", "extra": FMOW | {"country_code": code}})
        assert row["country"] is None
        assert "Switzerland" not in row["meta"]
    bare = {key: value for key, value in FMOW.items() if key not in ("bounding_boxes", "country_code", "utm")}
    row = place({"source": "fmow", "extra": bare, "tags": [{"name": "fountain"}]})
    assert (row["country"], row["utm"]) == ("Switzerland", "32T")
    assert "ountain" in row["meta"]
    row = place({"source": "fmow", "extra": "no json"})
    assert (row["country"], row["meta"], row["gsd_m"]) == (None, None, None)


def test_coordinates_of_the_source_come_first_and_bad_ones_are_none():
    both = {
        "lon": 151.2,
        "lat": -33.9,
        "exif_lon": 8.0,
        "exif_lat": 47.0,
        "taken_at": "2008-07-20",
        "source": "yfcc14m",
    }
    row = place(both)
    assert (row["lon"], row["lat"], row["coord_from"], row["utm"]) == (151.2, -33.9, "source", "56H")
    assert (row["country"], row["season"]) == ("Australia", "winter")
    assert row["template"].startswith("yfcc14m_country_timestamp/")
    assert place(both, season="northern")["season"] == "summer"
    for lon, lat in ((181.0, 5.0), (float("nan"), 5.0), (5.0, 91.0), (0.0, 0.0)):
        row = place(both | {"lon": lon, "lat": lat})
        assert (row["lon"], row["coord_from"]) == (8.0, "exif")
        row = place(both | {"lon": lon, "lat": lat, "exif_lon": None})
        assert (row["lon"], row["lat"], row["coord_from"], row["utm"]) == (None,) * 4
    pole = place({"lon": 10.0, "lat": 89.0})
    assert (pole["lat"], pole["utm"], pole["country"]) == (89.0, None, None)


def test_both_lanes_and_every_row_once():
    rows = [
        {"text": "London"},
        {"source": "fmow", "extra": FMOW},
        {"text": ""},
        {"source": "millionaid", "text": "London"},
    ]
    done = locate(*rows)
    assert done.table("places")["sample_id"].to_list() == ["0", "1", "2", "3"]
    assert [len(e) for e in done.table("places")["entities"].to_list()] == [1, 0, 0, 0]
    assert {source: (books.seen, books.kept) for source, books in done.books.items()} == {
        "laion2b": (2, 2), "fmow": (1, 1), "millionaid": (1, 1),
    }  # fmt: skip
    assert done.result.facts == {"rows_with_names": 1, "rows_with_coordinates": 1}
    assert locate().table("places").is_empty()


def test_the_draw_depends_on_seed_and_sample_alone():
    rows = [{"source": "fmow", "extra": FMOW} for _ in range(30)]
    first, again, other = locate(*rows), locate(*rows), locate(*rows, seed=1)
    assert first.table("places").equals(again.table("places"))
    drawn = first.table("places")["template"].to_list()
    assert len(set(drawn)) > 2
    assert drawn != other.table("places")["template"].to_list()


def test_captions_that_are_hard_to_read():
    rows = [
        {"text": text}
        for text in ("\u6771\u4eac\u306e\u885b\u661f\u753b\u50cf", "view " * 3000 + "of Paris", "\u0000\u202e", " ")
    ]
    assert [len(e) for e in locate(*rows).table("places")["entities"].to_list()] == [0, 1, 0, 0]


def test_a_template_file_of_the_user(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[fmow_complex]\ntemplates = ["{class_label} @ {country}"]\n', encoding="utf-8")
    row = place({"source": "fmow", "extra": FMOW}, templates=str(path))
    assert row["meta"].startswith("Fountain @ ")
    assert place({"source": "ben", "tags": [{"name": "Pastures"}]}, templates=str(path))["meta"] is None


def test_pins_and_profile():
    step = Locate()
    pins = step.pins(settings_of(step), {})
    assert set(pins) == {"gazetteer", "templates"}
    assert set(step.profile(settings_of(step))) == {"numpy", "scipy", "utm"}
    assert step.models(settings_of(step)) == {}
    with pytest.raises(ModelMissingError, match="no templates 'none'; known: ours-1"):
        step.pins(settings_of(step, {"geo.templates": "none"}), {})
    with pytest.raises(ModelMissingError, match="no gazetteer 'none'; known: geonames-1"):
        step.pins(settings_of(step, {"geo.gazetteer": "none"}), {})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"templates": "none"}, "no templates 'none'; known: ours-1"), ({"templates": "a\0b"}, "'a.x00b' is no path"),
        ({"gazetteer": "none"}, "no gazetteer 'none'; known: geonames-1"),
        ({"gazetteer": "none", "ner": ["nltk"]}, "no gazetteer 'none'; known: geonames-1"),
    ],
)  # fmt: skip
def test_what_a_recipe_names_and_is_not_there(settings, words):
    with pytest.raises(ModelMissingError, match=words) as raised:
        locate({}, **settings)
    assert "\n" not in str(raised.value)
    given = settings_of(Locate(), {f"geo.{key}": value for key, value in settings.items()})
    with pytest.raises(ModelMissingError, match=words):
        Locate().models(given) | Locate().pins(given, {})


def test_names_are_released_as_clean_lines(monkeypatch):
    found = [Named("New\nYork\u202e", 0, 9, "nltk"), Named("\u2066", 10, 11, "nltk")]
    monkeypatch.setattr("stages.geo.gazetteer_ner.GazetteerTagger.places", lambda *_: found)
    assert [entity["name"] for entity in place({"text": "New\nYork\u202e \u2066"})["entities"]] == ["New York"]


def test_a_date_alone_tells_no_hour():
    for written in ("20170101", "2017-01-01"):
        row = place({"source": "fmow", "extra": FMOW, "taken_at": written})
        assert "January 1, 2017" in row["meta"]
        assert "o'clock" not in row["meta"]


def test_a_tagger_without_its_data_is_told_before_any_work(monkeypatch, tmp_path):
    import nltk.data

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setenv("NLTK_DATA", "")
    load_nltk.cache_clear()
    with pytest.raises(ModelMissingError, match=r"nltk\.downloader"):
        Locate().models(settings_of(Locate(), {"geo.ner": ["gazetteer", "nltk"]}))


@needs_data
def test_two_taggers(monkeypatch):
    monkeypatch.setenv("NLTK_DATA", str(Path(DATA or "", "nltk_data")))
    load_nltk.cache_clear()
    row = place({"text": "A picture from Yellowstone, and one from paris france"}, ner=["gazetteer", "nltk"])
    assert {e["backend"] for e in row["entities"]} >= {"gazetteer"}
    assert [e["name"] for e in row["entities"]][-2:] == ["paris", "france"]
    models = Locate().models(settings_of(Locate(), {"geo.ner": ["nltk"]}))
    assert set(models) == {"nltk", "nltk_data"}
    load_nltk.cache_clear()


@needs_data
def test_real_bigearthnet_patches():
    countries = {"113321": "Ireland", "114349": "Ireland", "112501": "Portugal", "093029": "Serbia", "093039": "Serbia",
                 "94033": "Finland", "093019": "Finland", "93021": "Finland", "094019": "Lithuania"}  # fmt: skip
    rows, wanted = [], []
    for path in sorted(Path(DATA or "", "bigearthnet").glob("s2/*/*_labels_metadata.json")):
        said = json.loads(path.read_text("utf-8"))
        extra = {"labels": said["labels"], "corners": said["coordinates"], "projection": said["projection"]}
        rows.append({"source": "ben", "extra": extra, "taken_at": said["acquisition_date"].replace(" ", "T"),
                     "tags": [{"name": label} for label in said["labels"]]})  # fmt: skip
        wanted.append((countries[path.name.split("T")[1].split("_")[0]], said["tile_source"].split("_T")[1][:3]))
    table = locate(*rows).table("places").sort("sample_id")
    by_id = {row["sample_id"]: row for row in table.iter_rows(named=True)}
    wrong = []
    for number, (country, tile) in enumerate(wanted):
        row = by_id[str(number)]
        assert (row["utm"], row["gsd_m"], row["coord_from"]) == (f"{int(tile[:2])}{tile[2]}", 10.0, "sidecar")
        assert row["meta"]
        assert row["season"] in row["meta"]
        if row["country"] != country:
            wrong.append((country, row["country"]))
    # By the nearest city: near a border the town across it may be nearer (docs/geo.md says so).
    assert len(wanted) == 11
    assert wrong == [("Finland", "Russia"), ("Lithuania", "Latvia")]


def test_a_country_that_the_sidecar_names_is_taken_over():
    extra = {"corners": {"ulx": 622800, "uly": 7197000, "lrx": 624000, "lry": 7195800}, "epsg": 32635}
    assert place({"source": "ben", "extra": extra})["country"] == "Russia"
    assert place({"source": "ben", "extra": extra | {"country": "Finland"}})["country"] == "Finland"
    assert place({"source": "ben", "extra": extra | {"country": "Atlantis"}})["country"] == "Russia"


@needs_data
def test_a_real_fmow_sidecar():
    (path,) = Path(DATA or "", "fmow").glob("*.json")
    row = place({"source": "fmow", "extra": path.read_text("utf-8")})
    assert (row["country"], row["utm"], row["month"], row["season"]) == ("Switzerland", "32T", 4, "spring")
    assert "center" in row["meta"]
    assert "reverse" in row["meta"]

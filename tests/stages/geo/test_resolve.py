import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.gazetteer import load_gazetteer
from stages.geo.gazetteer_ner import GazetteerTagger
from stages.geo.ner import Named
from stages.geo.resolve import resolve

GAZETTEER = load_gazetteer()
TAGGER = GazetteerTagger(GAZETTEER)


def entities(text):
    return resolve(text, TAGGER.places(text), GAZETTEER)


def test_the_largest_of_a_name_and_how_sure_that_is():
    (paris,) = entities("aerial view of Paris")
    assert (paris.country, paris.geonameid) == ("France", 2988507)
    assert (paris.lon, paris.lat) == pytest.approx((2.3488, 48.8534))
    people = [place.population for place in GAZETTEER.named("Paris")]
    assert paris.ambiguity == pytest.approx(1 - people[0] / sum(people), abs=1e-4)
    assert 0 < paris.ambiguity < 0.05


@pytest.mark.parametrize("text", ["Paris, Texas", "Paris, TX", "Paris (Texas)", "Paris, Texas, USA", "Paris in Texas"])
def test_what_follows_narrows(text):
    paris = entities(f"aerial view of {text}")[0]
    assert paris.country == "United States"
    assert paris.lon == pytest.approx(-95.5555)
    assert paris.ambiguity == 0


def test_what_stands_elsewhere_does_not_narrow():
    london, ontario = entities("a plane from London goes to Ontario")
    assert (london.country, ontario.country) == ("United Kingdom", "Canada")


def test_a_country_that_does_not_hold_the_name_changes_nothing():
    london, france = entities("London, France: two aerial views")
    assert (london.country, france.country) == ("United Kingdom", "France")


def test_names_that_nobody_knows():
    (entity,) = resolve("Xyzzy", [Named("Xyzzy", 0, 5, "nltk")], GAZETTEER)
    assert (entity.geonameid, entity.country, entity.lon, entity.lat) == (None, None, None, None)
    assert (entity.ambiguity, entity.backend) == (1.0, "nltk")


def test_places_without_coordinates_or_id():
    assert entities("ice shelf in Antarctica")[0].lon is None
    scotland = entities("aerial view of Scotland")[0]
    assert (scotland.geonameid, scotland.country, scotland.ambiguity) == (None, "United Kingdom", 0)


@settings(deadline=None)
@given(st.text(max_size=60), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=6))
def test_any_names_are_resolved_one_to_one(text, spans):
    found = [Named(text[a : a + n], a, a + n, "x") for a, n in sorted(spans)]
    resolved = resolve(text, found, GAZETTEER)
    assert [entity.name for entity in resolved] == [named.name for named in found]
    assert all(0 <= entity.ambiguity <= 1 for entity in resolved)

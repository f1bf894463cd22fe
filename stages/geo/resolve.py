"""Names to places: candidates of the gazetteer, narrowed by the country or region that follows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from manifests.gazetteer import Gazetteer, Place
from stages.geo.ner import Named

_BETWEEN = re.compile(r"[\s,()]{1,4}(?:in\s)?")


@dataclass(frozen=True, slots=True)
class Entity:
    """A name with the place it most likely means; the fields of the column ``entities``.

    Attributes:
        name: As written.
        backend: The tagger that found it.
        geonameid: GeoNames id of the place; None if the gazetteer has no such name, or no id for it.
        country: English name of the country it lies in.
        lon: Degrees east, of the place and never of the image; None for unknown names.
        lat: Degrees north.
        ambiguity: 1 - the place's share of the people of all candidates: 0 where there is one candidate, towards 1
            where many alike compete; 1 for names that the gazetteer does not know.
    """

    name: str
    backend: str
    geonameid: int | None
    country: str | None
    lon: float | None
    lat: float | None
    ambiguity: float


def resolve(text: str, found: Sequence[Named], gazetteer: Gazetteer) -> list[Entity]:
    """Resolve the names found in a text, in their order.

    "Paris, Texas" leaves one candidate: a name that another follows, with a comma, a bracket or "in" between, keeps
    only candidates inside a candidate of the other, where there are any. Chains work from the right ("Paris, Texas,
    USA").
    """
    entities: list[Entity] = []
    outer: Sequence[Place] = ()
    begins = -1
    for named in reversed(found):
        candidates = gazetteer.named(named.name)
        if begins >= named.end and _BETWEEN.fullmatch(text, named.end, begins):
            candidates = tuple(p for p in candidates if any(p.lies_in(o) for o in outer)) or candidates
        entities.append(_entity(named, candidates, gazetteer))
        outer, begins = candidates, named.start
    return entities[::-1]


def _entity(named: Named, candidates: Sequence[Place], gazetteer: Gazetteer) -> Entity:
    if not candidates:
        return Entity(named.name, named.backend, None, None, None, None, 1.0)
    winner = candidates[0]
    people = [max(place.population, 1) for place in candidates]
    return Entity(
        name=named.name,
        backend=named.backend,
        geonameid=winner.geonameid,
        country=gazetteer.countries.get(winner.country),
        lon=winner.lon,
        lat=winner.lat,
        ambiguity=round(1.0 - people[0] / sum(people), 4),
    )

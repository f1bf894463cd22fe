"""The pinned gazetteer: places of the world with names, country, coordinates and population (GeoNames, CC BY 4.0).

`manifests/gazetteer/` holds the table, its pin, credits, and lists of our own: aliases, and names that are also words.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
import tomllib
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).with_name("gazetteer")
COLUMNS = ("kind", "geonameid", "name", "country", "admin1", "code", "population", "lon", "lat")
MAX_TABLE_BYTES = 16 << 20

_ASCII_WORDS = re.compile(r"(?:[A-Za-z]\.){2,}|[A-Za-z]+(?:'[A-Za-z]{2,})*")
# A letter with the accents that follow it as characters of their own; the two classes do not overlap: linear time.
_L = r"[^\W\d_][\u0300-\u036f]*"
_WORDS = re.compile(rf"(?:{_L}\.){{2,}}|(?:{_L})+(?:['\u2019](?:{_L}){{2,}})*")
_LETTERS = str.maketrans({"\u2019": "'", "\u00f8": "o", "\u0142": "l", "\u0111": "d", "\u0131": "i", "\u00e6": "ae",
                          "\u0153": "oe", "\u00f0": "d", "\u00fe": "th", ".": ""})  # fmt: skip
_SHORT = {"saint": "st", "ft": "fort", "mt": "mount"}

Kind = Literal["country", "region", "city"]


class GazetteerError(ValueError):
    """A gazetteer that is unknown, or whose files are not what the pin says."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a text: its folded form, and where it stands."""

    key: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Place:
    """One place.

    Attributes:
        kind: country, region (first level below a country) or city.
        name: As GeoNames writes it.
        country: ISO 3166 alpha-2.
        admin1: GeoNames code of its region within the country; empty for countries.
        population: People; of a region: of its cities in the table, an order of magnitude.
        lon: Degrees east; of countries and regions the mean of their cities weighted by population. None: no city.
        lat: Degrees north, present exactly where lon is.
        geonameid: None for the regions that the package does not list.
    """

    kind: Kind
    name: str
    country: str
    admin1: str
    population: int
    lon: float | None
    lat: float | None
    geonameid: int | None

    def lies_in(self, other: Place) -> bool:
        """Return whether this is inside ``other``, a country or a region."""
        if self is other or other.kind == "city" or self.country != other.country or self.kind == "country":
            return False
        return other.kind == "country" or (self.kind == "city" and self.admin1 == other.admin1)


@dataclass(frozen=True, slots=True, eq=False)
class Gazetteer:
    """The places by name.

    Attributes:
        id: Its name in recipes.
        digest: sha256 hex over the table and the lists: what fingerprints see.
        places: All places.
        names: Folded name to places, likeliest first; empty: a phrase that names no place.
        longest: First word of a name to the most words that a name beginning so has.
        common: Folded names that are also words.
        given: Folded names that people have too.
        first: First names.
        codes: Two-letter code to US state.
        countries: ISO alpha-2 to the country's name.
        alpha3: ISO alpha-3 to the country's name.
    """

    id: str
    digest: str
    places: tuple[Place, ...]
    names: Mapping[str, tuple[Place, ...]]
    longest: Mapping[str, int]
    common: frozenset[str]
    given: frozenset[str]
    first: frozenset[str]
    codes: Mapping[str, Place]
    countries: Mapping[str, str]
    alpha3: Mapping[str, str]

    def named(self, name: str) -> tuple[Place, ...]:
        """Return the places of a name, likeliest first, whatever case and accents; of two letters, the US state."""
        key = fold(name)
        return (self.codes[key],) if key in self.codes else self.names.get(key, ())


def words_of(text: str) -> list[Word]:
    """Return the words of a text in order. Linear in its length."""
    pattern = _ASCII_WORDS if text.isascii() else _WORDS
    return [Word(_folded(m.group()), m.start(), m.end()) for m in pattern.finditer(text)]


def fold(name: str) -> str:
    """Return the form in which names are compared: ``Sao Paulo`` and ``SAO-PAULO`` are one, ``St.`` is ``Saint``."""
    return " ".join(word.key for word in words_of(name))


def _folded(word: str) -> str:
    key = word.lower()
    if not key.isascii():
        decomposed = unicodedata.normalize("NFKD", word.casefold())
        key = "".join(c for c in decomposed if c.isalpha() or c in "'\u2019") or word
    key = key.translate(_LETTERS)
    return _SHORT.get(key, key)


@cache
def load_gazetteer(id_: str = "geonames-1") -> Gazetteer:
    """Read a gazetteer, once a process (about 0.5 s).

    Raises:
        GazetteerError: There is none of that name, or its table is not the pinned one.
    """
    table, lists = _files(id_)
    return build_gazetteer(id_, gazetteer_digest(id_), table.decode("utf-8"), tomllib.loads(lists.decode("utf-8")))


@cache
def gazetteer_digest(id_: str) -> str:
    """Return a gazetteer's digest without building its index (some 20 ms).

    Raises:
        GazetteerError: As `load_gazetteer`.
    """
    return hashlib.sha256(b"".join(_files(id_))).hexdigest()


def _files(id_: str) -> tuple[bytes, bytes]:
    pins: dict[str, Any] = tomllib.loads((FOLDER / "pins.toml").read_text("utf-8"))
    if id_ not in pins:
        raise GazetteerError(f"geo.gazetteer: no gazetteer {id_!r}; known: {', '.join(sorted(pins))}")
    return read_pinned(FOLDER / pins[id_]["file"], pins[id_]["sha256"]), (FOLDER / "names.toml").read_bytes()


def read_pinned(path: Path, sha256: str) -> bytes:
    """Return the unpacked table.

    Raises:
        GazetteerError: If it is missing, no gzip file, larger than a table can be, or differs from its pin.
    """
    try:
        unpack = zlib.decompressobj(wbits=31)
        table = unpack.decompress(path.read_bytes(), MAX_TABLE_BYTES)
    except (OSError, zlib.error) as error:
        raise GazetteerError(
            f"cannot read the gazetteer {path.name}: {error}; restore it from version control"
        ) from None
    if hashlib.sha256(table).hexdigest() != sha256:
        raise GazetteerError(f"the gazetteer {path.name} differs from its pin; restore it from version control")
    return table


def build_gazetteer(id_: str, digest: str, table: str, lists: Mapping[str, Any]) -> Gazetteer:
    """Build the index over a table (CSV, `COLUMNS`) and lists in the form of ``names.toml``."""
    rows = list(csv.DictReader(table.splitlines()))
    cities = [_city(row) for row in rows if row["kind"] == "city"]
    inside = _by_area(cities)
    regions = {row["code"]: _area("region", row, inside) for row in rows if row["kind"] == "region"}
    countries = {row["country"]: _area("country", row, inside) for row in rows if row["kind"] == "country"}
    extra = {name: _region(name, code, inside) for name, code in lists["regions"].items()}
    places = (*countries.values(), *regions.values(), *{id(p): p for p in extra.values()}.values(), *cities)
    names: dict[str, list[Place]] = {}
    for place in places:
        for spelling in _spellings(place.name):
            names.setdefault(spelling, []).append(place)
    for name, place in _aliases(lists, names, countries):
        names.setdefault(fold(name), []).append(place)
    index = {key: tuple(_ranked(dict.fromkeys(found))) for key, found in names.items()}
    # "the Netherlands" is found as "Netherlands"; "The Hague" has no other name.
    index = {k: v for k, v in index.items() if not (k.startswith("the ") and v[0] in index.get(k[4:], ()))}
    index |= {fold(phrase): () for phrase in lists["phrases"].split("|")}
    longest: dict[str, int] = {}
    for key in index:
        words = key.split(" ")
        longest[words[0]] = max(longest.get(words[0], 0), len(words))
    common = frozenset(lists["words"].split())
    return Gazetteer(
        id=id_,
        digest=digest,
        places=places,
        names=index,
        longest=longest,
        common=frozenset(key for key in index if all(w in common or w in ("the", "of") for w in key.split(" "))),
        given=frozenset(lists["given"].split()),
        first=frozenset(lists["first"].split()),
        codes={code.lower(): place for code, place in regions.items()},
        countries={place.country: place.name for place in countries.values()},
        alpha3={row["code"]: countries[row["country"]].name for row in rows if row["kind"] == "country"},
    )


def _ranked(found: Iterable[Place]) -> list[Place]:
    """Order the places of one name by people; a city comes before the region around it that has its name."""
    ranked = sorted(found, key=_rank)
    for region in [place for place in ranked if place.kind == "region"]:
        if city := next((place for place in ranked if place.lies_in(region)), None):
            ranked.remove(region)
            ranked.insert(ranked.index(city) + 1, region)
    return ranked


def _rank(place: Place) -> tuple[int, str, str, int]:
    return (-place.population, place.country, place.admin1, place.geonameid or 0)


def _spellings(name: str) -> Iterator[str]:
    """Yield the folded spellings: as it is, and the parts of ``Biel/Bienne``."""
    yield from filter(None, map(fold, dict.fromkeys([name, *name.split("/")])))


def _city(row: Mapping[str, str]) -> Place:
    lon, lat = float(row["lon"]), float(row["lat"])
    people, number = int(row["population"]), int(row["geonameid"])
    return Place("city", row["name"], row["country"], row["admin1"], people, lon, lat, number)


def _by_area(cities: Iterable[Place]) -> dict[tuple[str, str], list[Place]]:
    inside: dict[tuple[str, str], list[Place]] = {}
    for city in cities:
        inside.setdefault((city.country, ""), []).append(city)
        inside.setdefault((city.country, city.admin1), []).append(city)
    return inside


def _area(kind: Kind, row: Mapping[str, str], inside: Mapping[tuple[str, str], list[Place]]) -> Place:
    cities = inside.get((row["country"], row["admin1"]), [])
    people = int(row["population"]) or sum(city.population for city in cities)
    lon, lat = middle(cities)
    return Place(kind, row["name"], row["country"], row["admin1"], people, lon, lat, int(row["geonameid"]))


def _region(name: str, code: str, inside: Mapping[tuple[str, str], list[Place]]) -> Place:
    country, admin1 = code.split("-")
    cities = inside.get((country, admin1), [])
    lon, lat = middle(cities)
    people = sum(city.population for city in cities)
    return Place("region", name.title() if len(name) > 3 else name.upper(), country, admin1, people, lon, lat, None)


def middle(places: Iterable[Place]) -> tuple[float, float] | tuple[None, None]:
    """Return the mean longitude and latitude weighted by population, taken on the sphere (no seam at 180 degrees)."""
    x = y = z = 0.0
    for place in places:
        if place.lon is None or place.lat is None:
            continue
        lon, lat, weight = math.radians(place.lon), math.radians(place.lat), max(place.population, 1)
        x += weight * math.cos(lat) * math.cos(lon)
        y += weight * math.cos(lat) * math.sin(lon)
        z += weight * math.sin(lat)
    if x == y == z == 0.0:
        return None, None
    return round(math.degrees(math.atan2(y, x)), 2), round(math.degrees(math.atan2(z, math.hypot(x, y))), 2)


def _aliases(
    lists: Mapping[str, Any], names: Mapping[str, list[Place]], countries: Mapping[str, Place]
) -> Iterator[tuple[str, Place]]:
    for code, others in lists["countries"].items():
        yield from ((other, countries[code]) for other in others)
    for alias, target in lists["cities"].items():
        name, _, where = target.rpartition(", ")
        country, _, admin1 = where.partition("-")
        found = [
            p
            for p in names.get(fold(name), ())
            if p.country == country and p.kind == "city" and admin1 in ("", p.admin1)
        ]
        if not found:
            raise GazetteerError(f"names.toml: {alias!r} stands for {target!r}, which the table does not have")
        yield alias, min(found, key=_rank)

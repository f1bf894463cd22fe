"""geo.locate: places named in captions, coordinates, UTM zone, season, and the meta caption; one row per row in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import polars as pl

from manifests.canonical import JsonValue
from manifests.gazetteer import Gazetteer, Place, gazetteer_digest, load_gazetteer
from manifests.ledger import count_by_source
from manifests.recipe import Settings
from manifests.schemas import LEDGER, TABLES
from manifests.tables import empty_frame
from manifests.templates import Templates, load_templates
from stages.geo.coordinates import Extra, Point, grid_of, number, read_extra, sidecar_point, stated_point
from stages.geo.meta import Known, meta_caption
from stages.geo.nearest import Nearest, load_nearest
from stages.geo.ner import Tagger, load_tagger, tag
from stages.geo.resolve import resolve
from stages.geo.zones import grid_zone, moment, season, stated_zone, zone_of
from stages.step import Input, ModelMissingError, Output, Prior, Result, Step, Tables, Task
from stages.wording import clean_fact

BEN_GSD_M = 10.0
"""Sentinel-2's bands 2, 3 and 4, of which BigEarthNet's pictures are made, metres a pixel."""

_OF_CANDIDATES = "sample_id subset text lon lat taken_at tags extra".split()
_OF_INSPECTED = ["sample_id", "exif_lon", "exif_lat"]
_LIBRARIES = ("numpy", "scipy", "utm")


class Locate(Step):
    """Finds where and when an image is from. Coordinates that a source gave are never overwritten."""

    name = "geo.locate"
    kind = "map"
    VERSION = 2
    reads = ("seed", "geo.ner", "geo.gazetteer", "geo.templates", "geo.season", "geo.point")
    inputs = (
        Input("outlier.cut", "survivors", lane="pub11"),
        Input("caption.generate", "survivors", lane="rs3", rows=True),
        Input("filter.pool", "candidates"),
        Input("dedup.inspect", "inspected"),
    )
    outputs = ("places",)
    keeps = "places"

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Locate the partition's rows.

        Raises:
            ModelMissingError: If a tagger's model, the gazetteer or the templates are not at hand.
        """
        del prior
        survivors = pl.concat(
            [tables.frame(given.step, given.table, ["sample_id", "source"]) for given in self.rows_in]
        )
        candidates = tables.frame("filter.pool", "candidates", _OF_CANDIDATES)
        inspected = tables.frame("dedup.inspect", "inspected", _OF_INSPECTED)
        rows = survivors.join(candidates, on="sample_id", how="left").join(inspected, on="sample_id", how="left")
        locator = _locator(task.settings)
        located = [locator.located(row) for row in rows.sort("sample_id").iter_rows(named=True)]
        schema = empty_frame(TABLES["places"]).schema
        places = pl.DataFrame({name: [row[name] for row in located] for name in schema}, schema=schema)
        named = sum(bool(row["entities"]) for row in located)
        placed = sum(row["lon"] is not None for row in located)
        return Result(
            outputs=[Output("places", places)],
            ledger=empty_frame(LEDGER),
            seen=count_by_source(survivors),
            kept=count_by_source(places.join(survivors, on="sample_id")),
            facts={"rows_with_names": named, "rows_with_coordinates": placed},
        )

    def profile(self, settings: Settings) -> dict[str, str]:
        """Return the versions of the libraries that compute zones and distances."""
        del settings
        return {name: version(name) for name in _LIBRARIES}

    def models(self, settings: Settings) -> dict[str, str]:
        """Return the taggers' libraries and models. Raises ModelMissingError if one is not at hand."""
        found: dict[str, str] = {}
        if wanted := [name for name in settings.texts("geo.ner") if name != "gazetteer"]:
            gazetteer = _gazetteer(settings)
            for name in wanted:
                found |= load_tagger(name, gazetteer).versions()
        return found

    def pins(self, settings: Settings, params: Mapping[str, JsonValue]) -> dict[str, str]:
        """Return the digests of gazetteer and templates. Raises ModelMissingError for those that cannot be used."""
        del params
        try:
            digest = gazetteer_digest(settings.text("geo.gazetteer"))
        except ValueError as error:
            raise ModelMissingError(str(error)) from error
        return {"gazetteer": digest, "templates": _templates(settings).digest}


@dataclass(frozen=True, slots=True)
class _Locator:
    taggers: tuple[Tagger, ...]
    gazetteer: Gazetteer
    nearest: Nearest
    templates: Templates
    season_rule: str
    point_rule: str
    seed: int

    def located(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row of the table ``places`` for a joined row."""
        source, extra = str(row["source"]), read_extra(row["extra"])
        where, coord_from = _where(row, extra, self.point_rule)
        when = moment(row["taken_at"] or extra.get("timestamp") or extra.get("acquisition_date"))
        month = when.month if when else None
        city = self.nearest.city(where.lon, where.lat) if where else None
        country = self._country(extra, city)
        known = Known(
            place=self._place(country, city),
            utm=_zone(extra, where),
            season=season(month, where.lat if where else None, self.season_rule),
            when=when,
            gsd_m=_gsd_m(source, extra),
            tags=[(tag["name"], tag["prob"]) for tag in row["tags"] or ()],
            extra=extra,
        )
        written = meta_caption(source, known, self.templates, self.seed, str(row["sample_id"]))
        return {
            "sample_id": row["sample_id"],
            "lon": where.lon if where else None,
            "lat": where.lat if where else None,
            "coord_from": coord_from,
            "utm": known.utm,
            "country": country,
            "month": month,
            "season": known.season,
            "gsd_m": known.gsd_m,
            "entities": self._entities(row),
            "meta": written[0] if written else None,
            "template": written[1].name if written else None,
        }

    def _entities(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        text = row["text"] or ""
        if row["subset"] != "pub11" or not text.strip():
            return []
        found = resolve(text, tag(text, self.taggers), self.gazetteer)
        return [asdict(entity) | {"name": name} for entity in found if (name := clean_fact(entity.name))]

    def _country(self, extra: Extra, city: Place | None) -> str | None:
        """Return the country that a sidecar names, else the nearest city's; an unknown code (fMoW has some) is none."""
        code, name = extra.get("country_code"), extra.get("country")
        if isinstance(code, str) and code.strip():
            return self.gazetteer.alpha3.get(code.strip().upper())
        if isinstance(name, str):
            stated = [place.name for place in self.gazetteer.named(name) if place.kind == "country"]
            if stated:
                return stated[0]
        return self.gazetteer.countries.get(city.country) if city else None

    def _place(self, country: str | None, city: Place | None) -> str | None:
        """Return ``City, Country``; the country alone where the nearest city lies in another one."""
        if country is None or city is None or self.gazetteer.countries.get(city.country) != country:
            return country
        return f"{city.name}, {country}" if city.name != country else country


def _gazetteer(settings: Settings) -> Gazetteer:
    try:
        return load_gazetteer(settings.text("geo.gazetteer"))
    except ValueError as error:
        raise ModelMissingError(str(error)) from error


def _templates(settings: Settings) -> Templates:
    try:
        return load_templates(settings.text("geo.templates"))
    except ValueError as error:
        raise ModelMissingError(str(error)) from error


def _locator(settings: Settings) -> _Locator:
    gazetteer = _gazetteer(settings)
    return _Locator(
        taggers=tuple(load_tagger(name, gazetteer) for name in settings.texts("geo.ner")),
        gazetteer=gazetteer,
        nearest=load_nearest(gazetteer.id),
        templates=_templates(settings),
        season_rule=settings.text("geo.season"),
        point_rule=settings.text("geo.point"),
        seed=settings.integer("seed"),
    )


def _where(row: Mapping[str, Any], extra: Extra, rule: str) -> tuple[Point | None, str | None]:
    """Return the point and who gave it: source, sidecar or exif."""
    if found := stated_point(row["lon"], row["lat"]):
        return found, "source"
    if found := sidecar_point(extra, rule):
        return found, "sidecar"
    if found := stated_point(row["exif_lon"], row["exif_lat"]):
        return found, "exif"
    return None, None


def _zone(extra: Extra, where: Point | None) -> str | None:
    """Return the UTM zone: of the grid that the pixels lie in, as the sidecar states it, else that of the point."""
    grid = grid_of(extra)
    stated = grid_zone(grid, where) if grid else stated_zone(extra.get("utm"), where)
    return stated or (zone_of(where) if where else None)


def _gsd_m(source: str, extra: Extra) -> float | None:
    """Return metres a pixel: fMoW's ``gsd``, which is the frame's own, else its multispectral resolution."""
    for key in ("gsd", "multi_resolution_dbl"):
        read = number(extra.get(key))
        if read is not None and 0 < read < 1e6:
            return read
    return BEN_GSD_M if source == "ben" else None

"""The sources of a build: those described in `manifests/sources/`, and those a recipe describes itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pydantic import ValidationError

from manifests.canonical import JsonValue
from manifests.recipe import Recipe, Source
from manifests.recipe_files import RecipeError
from manifests.sources import Columns, SourceSpec, load_sources

_FIXED_LAYOUTS = ("vg", "yfcc")
_OWN_KEYS = ("format", "columns", "header", "keywords", "licence", "credit")


def enabled_specs(recipe: Recipe) -> dict[str, SourceSpec]:
    """Return what is known of every enabled source: the described ones in published order, then the recipe's own.

    Raises:
        RecipeError: A source is not known and has no format, or its description is at fault.
    """
    known, enabled = load_sources(), recipe.enabled_sources()
    ordered = [key for key in known if key in enabled] + [key for key in enabled if key not in known]
    return {key: _spec(key, enabled[key], known) for key in ordered}


def spec_params(spec: SourceSpec) -> dict[str, JsonValue]:
    """Return what a task is told of a source: its key, and its description where none ships with the project."""
    told: dict[str, JsonValue] = {"source": spec.key}
    if load_sources().get(spec.key) != spec:
        told["spec"] = cast("JsonValue", spec.model_dump(mode="json", exclude_defaults=True))
    return told


def spec_of(params: Mapping[str, JsonValue]) -> SourceSpec:
    """Return the source a task is told of (`spec_params`)."""
    if "spec" in params:
        return SourceSpec.model_validate(params["spec"])
    return load_sources()[str(params["source"])]


def _spec(key: str, source: Source, known: Mapping[str, SourceSpec]) -> SourceSpec:
    told = [name for name in _OWN_KEYS if getattr(source, name)]
    if key in known:
        if other := [name for name in told if name != "columns"]:
            raise RecipeError(f"sources.{key}.{other[0]}: {key} is described already; only its columns can be renamed")
        if told and (known[key].is_archive or known[key].format in _FIXED_LAYOUTS):
            raise RecipeError(
                f"sources.{key}.columns: the layout of {key} is fixed, its columns cannot be renamed. Take them out; a "
                "copy with another layout can be a source of your own, with a format and a name of its own"
            )
        return _renamed(known[key], source) if told else known[key]
    if not source.format:
        raise RecipeError(
            f"sources.{key}: no such source; known are {', '.join(known)}. For a source of your own set "
            f'sources.{key}.format and sources.{key}.columns, e.g. format = "parquet", '
            'columns = {url = "url", text = "caption"}'
        )
    held = source.format in ("webdataset", "imagefolder")
    return _checked(
        key,
        {
            "key": key,
            "name": key,
            "format": source.format,
            "own": True,
            **_columns(key, source),
            "headers": [source.header] if source.header else [],
            "keywords": source.keywords or ("all" if held else "match"),
            "licence": source.licence or "unknown",
            "credit": source.credit,
            "matched_by": "the recipe",
        },
    )


def _renamed(spec: SourceSpec, source: Source) -> SourceSpec:
    """Return a described source with the columns that the recipe names in place of its own."""
    named = _columns(spec.key, source)
    columns = {**spec.columns.model_dump(), **cast("dict[str, object]", named.pop("columns"))}
    texts = cast("list[str]", named.get("text") or spec.text)
    instead = {name: others for name, others in spec.instead.items() if name in texts}
    return _checked(spec.key, {**spec.model_dump(), **named, "columns": columns, "instead": instead})


def _columns(key: str, source: Source) -> dict[str, object]:
    columns = {field: [names] if isinstance(names, str) else names for field, names in source.columns.items()}
    text = columns.pop("text", None)
    unknown = sorted(set(columns) - set(Columns.model_fields))
    if unknown:
        fields = ", ".join(["text", *Columns.model_fields])
        raise RecipeError(f"sources.{key}.columns: no field {unknown[0]!r}; fields are {fields}")
    return {"columns": columns} | ({"text": text} if text else {})


def _checked(key: str, content: Mapping[str, object]) -> SourceSpec:
    try:
        return SourceSpec.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"][:1])
        raise RecipeError(f"sources.{key}: {where}{first['msg'].removeprefix('Value error, ')}") from error

"""Reads recipes: shipped by name or from a file, with ``extends`` and ``--set``; and writes the resolved one back.

A recipe file is TOML with a table ``[recipe]`` (name, extends, seed) and one table per concern; an unknown key is
refused with the nearest known one. ``[provenance]`` says of each key where its value comes from: paper, inferred, ours.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from manifests.recipe import Recipe, Source

_MAX_DEPTH = 8
_HEAD = ("name", "seed")


class RecipeError(Exception):
    """A recipe that cannot be used: one line that says what is wrong and what to do."""


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with the project."""
    return sorted(
        f.name.removesuffix(".toml") for f in resources.files("manifests.recipes").iterdir() if _is_toml(f.name)
    )


def load_recipe(name_or_file: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of that name or file, with ``KEY=VALUE`` overrides applied.

    Raises:
        RecipeError: If it is missing, unreadable, or has an unknown key or a value that does not fit.
    """
    document = _extended(name_or_file, 0)
    document.pop("provenance", None)
    for override in overrides:
        _override(document, override)
    return _validated(document, name_or_file)


def parse_recipe(text: str, origin: str) -> Recipe:
    """Return the recipe written by `dump_recipe`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{origin}: not readable as TOML: {error}") from error
    return _validated(document, origin)


def override_recipe(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return a resolved recipe with ``KEY=VALUE`` overrides applied. Raises RecipeError."""
    if not overrides:
        return recipe
    document = tomllib.loads(dump_recipe(recipe))
    for override in overrides:
        _override(document, override)
    return _validated(document, recipe.name)


def dump_recipe(recipe: Recipe) -> str:
    """Return the resolved recipe as TOML that `parse_recipe` reads back to an equal recipe."""
    document = recipe.model_dump(mode="json", exclude_none=True)
    head = {"name": document.pop("name"), "seed": document.pop("seed")}
    return tomli_w.dumps({"recipe": head, **document})


def provenance(name: str) -> dict[str, str]:
    """Return the [provenance] table of a shipped recipe: dotted key to paper, inferred or ours."""
    return {str(k): str(v) for k, v in _read(name).get("provenance", {}).items()}


def _is_toml(name: str) -> bool:
    return name.endswith(".toml")


def _read(name_or_file: str) -> dict[str, Any]:
    if name_or_file in shipped_recipes():
        text = resources.files("manifests.recipes").joinpath(f"{name_or_file}.toml").read_text("utf-8")
    else:
        try:
            text = Path(name_or_file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            known = ", ".join(shipped_recipes())
            raise RecipeError(f"recipe {name_or_file!r}: no such file, and the shipped recipes are {known}") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {name_or_file}: not readable as TOML: {error}") from error


def _extended(name_or_file: str, depth: int) -> dict[str, Any]:
    document = _read(name_or_file)
    head = document.get("recipe", {})
    if not isinstance(head, dict) or "name" not in head:
        raise RecipeError(f'recipe {name_or_file}: needs a table [recipe] with name = "..."')
    base = head.pop("extends", "")
    if not base:
        return document
    if depth >= _MAX_DEPTH:
        raise RecipeError(f"recipe {name_or_file}: extends more than {_MAX_DEPTH} recipes deep; is it a circle?")
    return _merged(_extended(base, depth + 1), document)


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _override(document: dict[str, Any], override: str) -> None:
    key, equals, raw = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise RecipeError(f"--set {override!r}: write it as KEY=VALUE, e.g. --set dedup.radius=6")
    if len(path) == 1 and path[0] not in _HEAD:
        raise RecipeError(f"--set {override!r}: " + _unknown(path[0], "is a table: set one of its keys"))
    table = document
    for part in path[:-1] if len(path) > 1 else ["recipe"]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {override!r}: {part} is a value, not a table")
    table[path[-1]] = _value(raw.strip())


def _value(raw: str) -> object:
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return raw


def _validated(document: dict[str, Any], origin: str) -> Recipe:
    body = {key: value for key, value in document.items() if key != "recipe"}
    odd = sorted(set(document.get("recipe", {})) - {*_HEAD, "extends"})
    if odd:
        raise RecipeError(f"recipe {origin}: [recipe] holds {', '.join(_HEAD)} and extends, not {odd[0]}")
    try:
        return Recipe.model_validate({**document.get("recipe", {}), **body})
    except ValidationError as error:
        raise RecipeError(f"recipe {origin}: " + "; ".join(_explained(e) for e in error.errors()[:4])) from error


def _explained(error: Any) -> str:  # noqa: ANN401  (pydantic's own dict of one error)
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg']}"
    return _unknown(where, "is no key")


def _unknown(key: str, if_known: str) -> str:
    if key in known_keys():
        return f"{key} {if_known}"
    near = difflib.get_close_matches(key, known_keys(), n=1, cutoff=0.5)
    return f"unknown key {key}" + (f" (did you mean {near[0]}?)" if near else "")


def known_keys() -> list[str]:
    """Return every dotted key a recipe may have, with ``NAME`` for a source's name."""
    return _keys("", Recipe) + [f"sources.NAME.{name}" for name in Source.model_fields]


def _keys(prefix: str, model: type[BaseModel]) -> list[str]:
    found: list[str] = []
    for name, info in model.model_fields.items():
        kinds = [info.annotation, *getattr(info.annotation, "__args__", ())]
        inner = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel) and name != "sources"), None)
        found += [f"{prefix}{name}", *(_keys(f"{prefix}{name}.", inner) if inner else [])]
    return found

"""The local folders that a recipe names, which a container must see."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from manifests.recipe import Recipe, benchmark_of

_MODEL_KEYS = (
    "outlier.encoder", "outlier.detector", "caption.model", "caption.lora", "caption.vocabulary", "caption.rank",
    "caption.rerank", "caption.rotate", "geo.gazetteer", "geo.templates", "filter.lexicon", "train.model",
)  # fmt: skip
_LOCAL_MODEL = "local-dir:"
_WILDCARD = re.compile(r"[*?\[{]")


def named_folders(recipe: Recipe) -> list[str]:
    """Return the folders of the absolute local paths that a recipe names, sorted, none within another.

    Of a pattern the folder before its first wildcard; of any other path the folder it lies in, because companions of
    a file lie beside it. Relative paths are below the workdir.
    """
    found = {_folder(path) for path in map(_local, _named(recipe)) if path.startswith("/")} - {"/"}
    return [str(place) for place in map(PurePosixPath, sorted(found)) if not found & set(map(str, place.parents))]


def _named(recipe: Recipe) -> Iterator[str]:
    for source in recipe.enabled_sources().values():
        yield from (*source.metadata, source.attributes)
    exclude = recipe.exclude
    yield from (exclude.ids, exclude.urls, exclude.hosts, exclude.sha256)
    yield from (benchmark_of(entry)[1] for entry in recipe.dedup.benchmarks)
    settings = recipe.flat()
    yield from (value for key in _MODEL_KEYS if isinstance(value := settings.get(key), str))


def _local(named: str) -> str:
    if named.startswith("file://"):
        return unquote(urlsplit(named).path)
    return named.removeprefix(_LOCAL_MODEL)


def _folder(path: str) -> str:
    before = _WILDCARD.split(path, maxsplit=1)[0]
    if before != path:
        return str(PurePosixPath(before.rpartition("/")[0] or "/"))
    whole = PurePosixPath(path)
    return str(whole if str(whole.parent) == "/" else whole.parent)

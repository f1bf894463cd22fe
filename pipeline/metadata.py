"""What the enabled sources are read from, cut into partitions.

A metadata file, a range of a Parquet file's row groups, or a folder or archive of images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from manifests.canonical import JsonValue
from manifests.identity import file_digest
from manifests.recipe import Recipe
from manifests.recipe_files import RecipeError
from manifests.sources import SourceSpec, load_sources
from manifests.store import Store
from stages.archives import folder_digest, kind_of, open_archive
from stages.filter.archive_scan import no_images
from stages.filter.parquet import row_groups
from stages.filter.rows import MetadataError
from stages.layouts import EXPECTED, find_frames
from stages.members import ArchiveError
from stages.uris import is_absolute, located, named, open_uri

PARTITION_ROWS = 4_000_000
"""Rows after which a Parquet file is cut, at a row group's end: seconds of work, and little lost by a crash."""

_CACHE = "cache/file-digests.json"


@dataclass(frozen=True, slots=True)
class Slice:
    """One partition of filter.match.

    Attributes:
        partition: ``<source>-<digest 12>-<first row group>``, 0 for what has no row groups.
        source: Source key.
        digest: The file digest, or a folder's (`stages.archives.archive_digest`), 64 hex digits.
        params: What the step is told.
        attributes_digest: File digest of the source's attributes file, empty without one.
    """

    partition: str
    source: str
    digest: str
    params: dict[str, JsonValue]
    attributes_digest: str


def metadata_slices(recipe: Recipe, store: Store, *, remember: bool = True) -> list[Slice]:
    """Return the partitions of filter.match, sorted by name.

    Args:
        recipe: Names the sources and their files.
        store: The workdir.
        remember: Whether digests of files read for the first time go to the workdir's cache.

    Raises:
        RecipeError: If a source is unknown, has no metadata or no reader, a file or folder is missing or unreadable,
            a folder holds no image of its source, or two files of one source have equal digests.
    """
    known, found = load_sources(), list[Slice]()
    if not recipe.enabled_sources():
        raise RecipeError('no source is enabled: set sources.NAME.metadata, e.g. sources.cc3m.metadata = ["cc3m.tsv"]')
    digests = _Digests(store)
    for key, source in recipe.enabled_sources().items():
        spec = known.get(key)
        if spec is None:
            raise RecipeError(f"sources.{key}: no such source; known are {', '.join(known)}")
        if not spec.readable:
            raise RecipeError(
                f"sources.{key}: its format ({spec.format}) has no reader yet; set sources.{key}.enabled=false"
            )
        if not source.metadata:
            raise RecipeError(f"sources.{key}: no metadata is named; set sources.{key}.metadata or enabled=false")
        found.extend(_of_source(spec, source.metadata, source.attributes, store, digests))
    if remember:
        digests.save()
    return sorted(found, key=lambda item: item.partition)


def _of_source(
    spec: SourceSpec, patterns: list[str], attributes: str, store: Store, digests: _Digests
) -> Iterator[Slice]:
    attributes_digest = digests.of(attributes) if attributes else ""
    by_digest: dict[str, str] = {}
    for uri in [uri for pattern in patterns for uri in _expand(pattern, store, spec)]:
        digest = _archive_digest(spec, uri, store, digests) if spec.is_archive else digests.of(uri)
        if digest in by_digest:
            raise RecipeError(f"sources.{spec.key}: {by_digest[digest]} and {uri} are the same file; name one of them")
        by_digest[digest] = uri
        if spec.is_archive:
            told: dict[str, JsonValue] = {"source": spec.key, "uri": uri, "digest": digest, "attributes": attributes}
            yield Slice(f"{spec.key}-{digest[:12]}-0", spec.key, digest, told, attributes_digest)
            continue
        for first, end, rows in _ranges(spec, uri, store):
            params: dict[str, JsonValue] = {
                "source": spec.key,
                "uri": uri,
                "digest": digest,
                "first_group": first,
                "end_group": end,
                "rows": rows,
                "attributes": attributes,
            }
            yield Slice(f"{spec.key}-{digest[:12]}-{first}", spec.key, digest, params, attributes_digest)


def _expand(pattern: str, store: Store, spec: SourceSpec) -> list[str]:
    """Return the files or folders a pattern names, sorted; relative patterns are below the workdir."""
    names = named(store, pattern)
    if not names:
        shown = pattern if is_absolute(pattern) else f"{store.uri}/{pattern}"
        if spec.is_archive:
            raise RecipeError(
                f"sources.{spec.key}.metadata: no folder or archive matches {shown}; it holds images in the layout "
                f"{EXPECTED[spec.format]}"
            )
        raise RecipeError(f"sources.{spec.key}.metadata: no file matches {shown}")
    return names


def _archive_digest(spec: SourceSpec, uri: str, store: Store, digests: _Digests) -> str:
    """Return the digest of a folder or archive; a folder is listed, and must hold an image of its source."""
    try:
        if kind_of(store, uri) != "folder":
            return digests.of(uri)
        with open_archive(store, uri) as folder:
            members = folder.members()
            if not find_frames(spec.format, folder.name, (member.path for member in members)).any:
                raise RecipeError(f"sources.{spec.key}.metadata: {no_images(uri, spec.format)}")
            return folder_digest(members)
    except (ArchiveError, OSError) as error:
        raise RecipeError(f"sources.{spec.key}.metadata: {error}") from error


def _ranges(spec: SourceSpec, uri: str, store: Store) -> list[tuple[int, int, int | None]]:
    """Return (first, end) row groups of each partition of a file and its rows, None where no footer tells."""
    if spec.format != "parquet":
        return [(0, 0, None)]
    try:
        with open_uri(store, uri) as file:
            groups = row_groups(file)
    except MetadataError as error:
        raise RecipeError(f"sources.{spec.key}: {uri}: {error}; fetch the file again or leave it out") from error
    cuts, rows = [0], 0
    for index, group_rows in enumerate(groups):
        if rows and rows + group_rows > PARTITION_ROWS:
            cuts.append(index)
            rows = 0
        rows += group_rows
    ends = [*cuts[1:], len(groups)]
    return [(first, end, sum(groups[first:end])) for first, end in zip(cuts, ends, strict=True)]


class _Digests:
    """File digests, remembered in the cache by size and time of change so that whole files are hashed once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._new: dict[str, str] = {}
        try:
            self._known: dict[str, str] = dict(json.loads(store.read(_CACHE)))
        except (OSError, ValueError, TypeError):
            self._known = {}

    def of(self, uri: str) -> str:
        fs, path = located(self._store, uri)
        try:
            key = f"{uri} {fs.ukey(path)}"
            if key not in self._known:
                with fs.open(path, "rb") as file:
                    self._known[key] = self._new[key] = file_digest(file)
        except (OSError, NotImplementedError) as error:
            raise RecipeError(f"{uri}: cannot be read: {error}") from error
        return self._known[key]

    def save(self) -> None:
        if self._new:
            self._store.replace(_CACHE, json.dumps(self._known, sort_keys=True).encode())

"""What is known of every source: what it is, what the recipe names of it, what was found there, what is missing.

Nothing is planned and no file is read whole: of Parquet files the footers tell the rows, of others the commits of
filter.match that read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from manifests.canonical import JsonValue
from manifests.commits import CommitStore, StepCommits
from manifests.manifest import FORMAT
from manifests.recipe import Recipe
from manifests.recipe_files import RecipeError
from manifests.source_specs import enabled_specs
from manifests.sources import SourceSpec, load_sources
from manifests.store import Store
from pipeline.companions import tell_apart
from pipeline.metadata_files import MetadataFiles
from stages.archives import archive_digest, kind_of
from stages.layouts import EXPECTED
from stages.members import ArchiveError
from stages.uris import Named, entry_of, is_absolute, listed

_MATCH = "filter.match"


@dataclass(slots=True)
class SourceState:
    """One source as the recipe has it.

    Attributes:
        spec: What it is.
        enabled: Whether the recipe reads it.
        files: Files, folders and archives found, companions among them.
        rows: Rows in them; None where that is not known before they are read.
        missing: What a run would lack, in words.
    """

    spec: SourceSpec
    enabled: bool
    files: int = 0
    rows: int | None = None
    missing: list[str] = field(default_factory=list)


def list_sources(recipe: Recipe, store: Store) -> list[SourceState]:
    """Return every described source in published order, then the recipe's own.

    Args:
        recipe: Names their files.
        store: The workdir; it need not be there.

    Raises:
        RecipeError: A source of the recipe is described wrongly.
    """
    own = enabled_specs(recipe)
    specs = {**load_sources(), **own}
    commits, files = CommitStore(store), MetadataFiles(store)
    done = commits.step(_MATCH)
    states = []
    for key, spec in specs.items():
        state = SourceState(spec, enabled=key in own)
        if key in own:
            _look(state, recipe, store, files, _Read(key, done, commits))
        else:
            state.missing.append(f"not in this recipe: {_how_to_name(spec)}")
        states.append(state)
    if store.size("workdir.json") is not None:
        files.save()
    return states


def sources_document(recipe: Recipe, states: Sequence[SourceState]) -> dict[str, JsonValue]:
    """Return the list as JSON."""
    return {
        "format": FORMAT,
        "recipe": recipe.name,
        "sources": [
            {
                "source": state.spec.key,
                "name": state.spec.name,
                "subset": state.spec.subset,
                "format": state.spec.format,
                "enabled": state.enabled,
                "metadata": list[JsonValue](recipe.sources[state.spec.key].metadata) if state.enabled else [],
                "files": state.files,
                "rows": state.rows,
                "published": state.spec.published.model_dump(mode="json") if state.spec.published else None,
                "keywords": state.spec.keywords,
                "licence": state.spec.licence,
                "credit": state.spec.credit,
                "home": state.spec.home,
                "get": state.spec.get,
                "availability": state.spec.availability,
                "successor": state.spec.successor,
                "missing": list[JsonValue](state.missing),
            }
            for state in states
        ],
    }


def _look(state: SourceState, recipe: Recipe, store: Store, files: MetadataFiles, read: _Read) -> None:
    spec, source = state.spec, recipe.sources[state.spec.key]
    found: list[Named] = []
    unbuilt = "world/" if recipe.world and store.size("world/world.json") is None else None
    for pattern in source.metadata:
        here = listed(store, pattern)
        found += here
        if not here and unbuilt and pattern.startswith(unbuilt):
            state.missing.append(f"{pattern} is not built yet: `rs5m-build run` builds the miniature world first")
        elif not here:
            shown = pattern if is_absolute(pattern) else f"{store.uri}/{pattern}"
            state.missing.append(f"nothing matches {shown}; get {_what(spec)}")
    if source.attributes and not state.missing and entry_of(store, source.attributes) is None:
        state.missing.append(f"its attributes, {source.attributes}, are not there")
    if not source.metadata:
        state.missing.append(f"no metadata is named: {_how_to_name(spec)}")
    state.files = len(found)
    if spec.is_archive:
        state.missing += _not_archives(found, store)
        state.rows = read([_archive_digest(files, file, store) for file in found])
        return
    told = tell_apart(spec, found)
    state.missing += told.faults
    state.missing += [f"{file.uri} is empty, 0 bytes: fetch it again" for file in found if file.bytes == 0]
    state.missing += [f"{file.uri} is a folder: name its files" for file in found if file.bytes is None]
    rows = [file for file, _ in told.rows if file.bytes]
    if spec.format != "parquet":
        state.rows = read([_known_digest(files, file) for file in rows])
        return
    try:
        looked = files.look(rows, parquet=True)
    except RecipeError as error:
        state.missing.append(str(error))
        return
    state.missing += [file.problem for file in looked if file.problem]
    state.rows = sum(sum(file.groups) for file in looked if file.groups is not None) if looked else None


class _Read:
    """Tells the rows of files by their digests, from the commits that read them."""

    def __init__(self, source: str, done: StepCommits, commits: CommitStore) -> None:
        self._source = source
        self._done = done
        self._commits = commits

    def __call__(self, digests: Sequence[str | None]) -> int | None:
        """Return the rows of all files; None unless every one was read."""
        counts = [self._rows(digest) if digest else None for digest in digests]
        known = [count for count in counts if count is not None]
        return sum(known) if known and len(known) == len(counts) else None

    def _rows(self, digest: str) -> int | None:
        by_fingerprint = self._done.names.get(f"{self._source}-{digest[:12]}-0", {})
        if not by_fingerprint:
            return None
        newest = max((passes[-1] for passes in by_fingerprint.values()), key=lambda name: (name.number, name.fp16))
        counts = self._commits.read(newest).rows.get(self._source)
        return counts.seen if counts else None


def _known_digest(files: MetadataFiles, file: Named) -> str | None:
    known = files.known(file)
    return known.digest if known else None


def _archive_digest(files: MetadataFiles, item: Named, store: Store) -> str | None:
    """Return a folder's digest, from its listing; of an archive only what is known, for it would be read whole."""
    return archive_digest(store, item.uri) if item.bytes is None else _known_digest(files, item)


def _not_archives(found: Sequence[Named], store: Store) -> list[str]:
    faults = []
    for item in found:
        try:
            kind_of(store, item.uri)
        except ArchiveError as error:
            faults.append(str(error))
    return faults


def _how_to_name(spec: SourceSpec) -> str:
    what = f"get {_what(spec)}, then " if spec.home or spec.get else ""
    return f"{what}--set 'sources.{spec.key}.metadata=GLOB'"


def _what(spec: SourceSpec) -> str:
    what = spec.get or (f"images in the layout {EXPECTED[spec.format]}" if spec.format in EXPECTED else "its metadata")
    return f"{what} ({spec.home})" if spec.home else what

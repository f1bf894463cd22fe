"""What the enabled sources are read from, cut into partitions.

A metadata file, a range of a Parquet file's row groups, or a folder or archive of images.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from manifests.canonical import JsonValue
from manifests.recipe import Recipe, Source
from manifests.recipe_files import RecipeError
from manifests.source_specs import enabled_specs, spec_params
from manifests.sources import SourceSpec
from manifests.store import Store
from pipeline.companions import checked
from pipeline.metadata_files import MetadataFile, MetadataFiles
from stages.archives import folder_digest, is_empty, kind_of, open_archive, own_name
from stages.filter.archive_scan import no_images
from stages.layouts import EXPECTED, find_frames
from stages.members import ArchiveError
from stages.uris import Named, entry_of, is_absolute, listed

PARTITION_ROWS = 1_500_000
"""Rows after which a Parquet file is cut, at a row group's end: seconds of work, and little lost by a crash."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One partition of filter.match.

    Attributes:
        partition: ``<source>-<digest 12>-<first row group>``, 0 for what has no row groups.
        source: Source key.
        digest: The file digest, or a folder's (`stages.archives.archive_digest`), 64 hex digits.
        params: What the step is told; ``problem`` if it is known already that nothing can be read, and why.
        attributes_digest: File digest of the source's attributes file, empty without one.
    """

    partition: str
    source: str
    digest: str
    params: dict[str, JsonValue]
    attributes_digest: str

    @property
    def inputs(self) -> list[tuple[str, str, str]]:
        """What its rows depend on, for its fingerprint: (kind, what, digest)."""
        first, end = self.params.get("first_group"), self.params.get("end_group")
        rows = f":{first}-{end}" if end is not None else ""
        found = [("metadata", self.partition, f"{self.digest}{rows}")]
        if self.attributes_digest:
            found.append(("attributes", self.source, self.attributes_digest))
        beside = self.params.get("beside")
        for role, file in beside.items() if isinstance(beside, dict) else ():
            found.append((f"beside:{role}", self.source, str(file["digest"]) if isinstance(file, dict) else ""))
        return found


def metadata_slices(
    recipe: Recipe, store: Store, *, remember: bool = True, needed: Collection[str] | None = None
) -> list[Slice]:
    """Return the partitions of filter.match, sorted by name.

    A file that is there and cannot be read is a partition that fails in its worker: the others go on.

    Args:
        recipe: Names the sources and their files.
        store: The workdir.
        remember: Whether what is found out of files goes to the workdir's cache.
        needed: Sources without which nothing can be done; None: all. Another one that names no file that is there is
            a partition that stays undone.

    Raises:
        RecipeError: If a source is unknown, has no metadata, a file or folder is missing, a folder holds no image of
            RS3, a companion is missing, or two files of one source have equal digests.
    """
    specs = enabled_specs(recipe)
    if not specs:
        raise RecipeError('no source is enabled: set sources.NAME.metadata, e.g. sources.cc3m.metadata = ["cc3m.tsv"]')
    files, found = MetadataFiles(store), list[Slice]()
    for key, spec in specs.items():
        try:
            found.extend(_of_source(spec, recipe.sources[key], store, files))
        except RecipeError as error:
            if needed is None or key in needed:
                raise
            told = {**spec_params(spec), "problem": str(error)}
            found.append(Slice(f"{key}-unknown", key, "", told, ""))
    if remember:
        files.save()
    return sorted(found, key=lambda item: item.partition)


def check_named(recipe: Recipe) -> None:
    """Check that every enabled source names metadata, which needs no workdir. Raises RecipeError."""
    for key in enabled_specs(recipe):
        _check_named(key, recipe.sources[key])


def _check_named(key: str, source: Source) -> None:
    if not source.metadata:
        raise RecipeError(
            f"sources.{key}: no metadata is named; set sources.{key}.metadata or enabled=false "
            "(`rs5m-build sources` says what to get)"
        )


def _of_source(spec: SourceSpec, source: Source, store: Store, files: MetadataFiles) -> list[Slice]:
    _check_named(spec.key, source)
    attributes = ""
    if source.attributes:
        file = entry_of(store, source.attributes)
        if file is None:
            raise RecipeError(f"sources.{spec.key}.attributes: {source.attributes}: cannot be read: it is not there")
        attributes = files.look([file])[0].digest
    named = [file for pattern in source.metadata for file in _expand(pattern, store, spec)]
    cut = _archives(spec, named, store, files) if spec.is_archive else _tables(spec, named, files)
    return [
        Slice(
            f"{spec.key}-{digest[:12]}-{told.get('first_group', 0)}",
            spec.key,
            digest,
            {**spec_params(spec), **told, "attributes": source.attributes, "attributes_digest": attributes},
            attributes,
        )
        for digest, told in cut
    ]


def _expand(pattern: str, store: Store, spec: SourceSpec) -> list[Named]:
    """Return the files or folders a pattern names, sorted; relative patterns are below the workdir."""
    found = listed(store, pattern)
    if not found:
        shown = pattern if is_absolute(pattern) else f"{store.uri}/{pattern}"
        if spec.format in EXPECTED:
            raise RecipeError(
                f"sources.{spec.key}.metadata: no folder or archive matches {shown}; it holds images in the layout "
                f"{EXPECTED[spec.format]}"
            )
        raise RecipeError(f"sources.{spec.key}.metadata: no file matches {shown}")
    return found


def _tables(
    spec: SourceSpec, named: Sequence[Named], files: MetadataFiles
) -> Iterator[tuple[str, dict[str, JsonValue]]]:
    """Yield (digest, what the step is told) of every partition of a source's files of rows."""
    parquet = spec.format == "parquet"
    for file in named:
        if file.bytes is None:
            raise RecipeError(f"sources.{spec.key}.metadata: {file.uri} cannot be read: it is a folder; name its files")
    rows = checked(spec, named)
    empty = [file.uri for file, _ in rows if file.bytes == 0]
    whole = [(file, beside) for file, beside in rows if file.bytes != 0]
    looked = files.look([file for file, _ in whole], parquet=parquet)
    beside = list({file.uri: file for _, found in whole for file in found.values()}.values())
    digests = {file.uri: said.digest for file, said in zip(beside, files.look(beside), strict=True)}
    _refuse_copies(spec, [(file.uri, said.digest) for (file, _), said in zip(whole, looked, strict=True)])
    for (file, companions), said in zip(whole, looked, strict=True):
        told: dict[str, JsonValue] = {
            "uri": file.uri,
            "digest": said.digest,
            "beside": {role: {"uri": f.uri, "digest": digests[f.uri]} for role, f in companions.items()},
        }
        if said.problem:
            yield said.digest, {**told, "first_group": 0, "end_group": 0, "rows": None, "problem": said.problem}
            continue
        for first, end, count in _ranges(said) if parquet else [(0, 0, None)]:
            yield said.digest, {**told, "first_group": first, "end_group": end, "rows": count}
    if empty:
        # All empty files are one file to a digest, and one partition that fails.
        digest = files.look([file for file, _ in rows if file.bytes == 0][:1])[0].digest
        problem = f"{', '.join(empty[:5])}{' ..' if len(empty) > 5 else ''}: empty, 0 bytes; fetch it again"
        told = {"uri": empty[0], "digest": digest, "beside": {}, "first_group": 0, "end_group": 0, "rows": None}
        yield digest, {**told, "problem": f"{problem}, or leave it out"}


def _refuse_copies(spec: SourceSpec, digests: Sequence[tuple[str, str]]) -> None:
    seen: dict[str, str] = {}
    for uri, digest in digests:
        if digest in seen:
            raise RecipeError(f"sources.{spec.key}: {seen[digest]} and {uri} are the same file; name one of them")
        seen[digest] = uri


def _ranges(file: MetadataFile) -> list[tuple[int, int, int]]:
    """Return (first, end) row groups of each partition of a Parquet file, and its rows."""
    groups = file.groups or ()
    cuts, rows = [0], 0
    for index, group_rows in enumerate(groups):
        if rows and rows + group_rows > PARTITION_ROWS:
            cuts.append(index)
            rows = 0
        rows += group_rows
    ends = [*cuts[1:], len(groups)]
    return [(first, end, sum(groups[first:end])) for first, end in zip(cuts, ends, strict=True)]


def _archives(
    spec: SourceSpec, named: Sequence[Named], store: Store, files: MetadataFiles
) -> Iterator[tuple[str, dict[str, JsonValue]]]:
    """Yield (digest, what the step is told) of every folder or archive of a source.

    Of images that someone holds, what is no archive or holds none is a partition that fails: the others go on.
    """
    faults: dict[str, str] = {}
    try:
        packed = [item for item in named if not _is_folder(spec, item, store, faults)]
        digests = {item.uri: said.digest for item, said in zip(packed, files.look(packed), strict=True)}
        folders = {i.uri: _folder_digest(spec, i, store, faults) for i in named if i.uri not in digests}
        digests |= {uri: digest for uri, (digest, _) in folders.items()}
        whole = [item for item in named if item.uri not in faults]
        if spec.is_held:
            whole = _distinct(spec, whole, digests, store)
    except ArchiveError as error:
        raise RecipeError(f"sources.{spec.key}.metadata: {error}") from error
    told: dict[str, list[str]] = {}
    for uri in faults:
        told.setdefault(digests[uri], []).append(uri)
    known = [(item.uri, digests[item.uri]) for item in whole]
    _refuse_copies(spec, [*known, *((uris[0], digest) for digest, uris in told.items())])
    for uri, digest in known:
        yield digest, {"uri": uri, "digest": digest, **({"members": folders[uri][1]} if uri in folders else {})}
    for digest, uris in told.items():  # equal ones, as folders without a file, are one partition
        problem = "; ".join(faults[uri] for uri in uris)
        yield digest, {"uri": uris[0], "digest": digest, "problem": f"{problem}, or leave it out"}


def _is_folder(spec: SourceSpec, item: Named, store: Store, faults: dict[str, str]) -> bool:
    """Tell whether a name stands for a folder; a file that is no archive goes to the faults of held images."""
    try:
        return kind_of(store, item.uri) == "folder"
    except ArchiveError as error:
        if not spec.is_held or item.bytes is None:
            raise
        faults[item.uri] = str(error)
        return False


def _distinct(spec: SourceSpec, named: Sequence[Named], digests: Mapping[str, str], store: Store) -> list[Named]:
    """Return the archives without all but one of those that hold nothing; their own names are in their rows' urls."""
    kept: list[Named] = []
    by_name: dict[str, str] = {}
    for item in named:
        again = any(digests[item.uri] == digests[other.uri] for other in kept)
        if again and is_empty(store, item.uri):
            continue
        other = by_name.setdefault(own_name(item.uri), item.uri)
        if other != item.uri and not again:
            raise RecipeError(
                f"sources.{spec.key}.metadata: {other} and {item.uri} have one name, which stands in the urls of their "
                "images; rename one, or make it a source of its own"
            )
        kept.append(item)
    return kept


def _folder_digest(spec: SourceSpec, item: Named, store: Store, faults: dict[str, str]) -> tuple[str, int]:
    """Return the digest of a folder, and its files: it is listed, and must hold an image of its source."""
    try:
        with open_archive(store, item.uri) as folder:
            members = folder.members()
            paths = (member.path for member in members)
            if spec.format == "webdataset":
                faults[item.uri] = f"{item.uri} is a folder; name its tars, e.g. {item.uri}/*.tar"
            elif spec.format in EXPECTED and not find_frames(spec.format, folder.name, paths).any:
                if not spec.is_held:
                    raise RecipeError(f"sources.{spec.key}.metadata: {no_images(item.uri, spec.format)}")
                faults[item.uri] = no_images(item.uri, spec.format)
            return folder_digest(members), len(members)
    except (ArchiveError, OSError) as error:
        raise RecipeError(f"sources.{spec.key}.metadata: {error}") from error

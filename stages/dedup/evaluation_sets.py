"""Evaluation sets that a recipe keeps out of a build: hash lists, or folders and archives of images that are hashed.

Where a set lies is no part of a result, what it holds is: `planned_benchmarks` looks at the sets before any work starts
and turns the setting into names and digests, the digests are inputs of the step that asks for them
(`benchmark_inputs`), and a worker that finds another content than was planned refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from manifests.canonical import JsonValue
from manifests.identity import file_digest
from manifests.recipe import Settings, benchmark_of
from manifests.recipe_files import RecipeError
from manifests.schemas import TABLES
from manifests.store import Store
from manifests.tables import read_table
from stages.archives import archive_digest, open_archive
from stages.dedup.hash_lists import HashKind, hash_images
from stages.held_images import find_samples
from stages.members import ArchiveError
from stages.step import ModelMissingError
from stages.uris import open_uri

KEY = "dedup.benchmarks"
TABLE = "benchmarks"
"""What the sets are called among the inputs of a step."""

_LIST = ".parquet"
_MAX_PIXELS = 178_956_970  # as much as Pillow opens: these images are the user's own
_MAX_BYTES = 1 << 30


class HashListError(ValueError):
    """A file is no hash list."""


class BenchmarkChangedError(ModelMissingError):
    """An evaluation set that is not the one that the run was planned with: the run ends with this one line."""


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """One set, hashed.

    Attributes:
        name: As the recipe calls it.
        items: Table `hash_list`.
        unread: Path and reason of images that could not be read, and of members passed over; empty for a hash list.
    """

    name: str
    items: pl.DataFrame
    unread: list[tuple[str, str]]


def planned_benchmarks(
    store: Store, settings: Mapping[str, JsonValue], *, reading: bool = False
) -> dict[str, JsonValue]:
    """Look at every evaluation set that a recipe names.

    Args:
        store: The workdir; relative names are below it.
        settings: The recipe, flat.
        reading: Whether a build is read alone: a set that is not at hand, and one that would have to be read whole, has
            no digest then.

    Returns:
        The setting, if it names any set: per set ``{"name": .., "uri": .., "digest": .., "kind": ..}``.

    Raises:
        RecipeError: If one is missing or unreadable, or if a list's hashes are not those that the recipe asks for.
    """
    named, kind = settings.get(KEY), str(settings["dedup.hash"])
    if not isinstance(named, list) or not named:
        return {}
    planned: list[JsonValue] = []
    for entry in named:
        name, uri = benchmark_of(str(entry))
        try:
            digest = "" if reading and not uri.endswith(_LIST) else _digest(store, uri, kind)
        except (ArchiveError, HashListError) as error:
            if not reading:
                raise RecipeError(f"{KEY}: {name}: {error}") from error
            digest = ""
        except (OSError, ImportError, ValueError) as error:  # the last two: fsspec's words about a protocol
            if not reading:
                raise RecipeError(f"{KEY}: {name}: {uri}: cannot be read: {error}") from error
            digest = ""
        planned.append({"name": name, "uri": uri, "digest": digest, "kind": kind})
    return {KEY: planned}


def alike_but_unseen(made: Iterable[tuple[str, str, str]], planned: Iterable[tuple[str, str, str]]) -> bool:
    """Tell whether a commit's inputs are the planned ones, whatever the evaluation sets that have no digest held."""
    unseen = {(table, name) for table, name, digest in planned if table == TABLE and not digest}
    of_made, of_planned = (
        sorted(item if item[:2] not in unseen else (*item[:2], "") for item in inputs) for inputs in (made, planned)
    )
    return of_made == of_planned


def benchmark_inputs(keys: Iterable[str], settings: Mapping[str, JsonValue]) -> list[tuple[str, str, str]]:
    """Return what the evaluation sets add to the inputs of a step that asks for them: (``benchmarks``, name, digest).

    Args:
        keys: The keys that the step asks for.
        settings: The settings, with the sets as `planned_benchmarks` returns them.
    """
    sets = settings[KEY] if KEY in keys else []
    return [
        (TABLE, str(told["name"]), str(told["digest"]))
        for told in (sets if isinstance(sets, list) else [])
        if isinstance(told, dict)
    ]


def planned_sets(settings: Settings, store: Store) -> list[EvaluationSet]:
    """Read the sets that a step's settings name, in order; what is no hash list is hashed.

    Args:
        settings: With the sets as `planned_benchmarks` returns them.
        store: The workdir.

    Raises:
        BenchmarkChangedError: If a set is not what it was when the run was planned, or is gone.
    """
    found = []
    named = settings.values[KEY]
    for told in named if isinstance(named, list) else []:
        if not isinstance(told, dict):
            raise TypeError(f"{KEY} is {told!r}, no set that was planned")
        name, uri, kind = (str(told[key]) for key in ("name", "uri", "kind"))
        where = f"{KEY}: {name}: {uri}"
        try:
            digest = _digest(store, uri, kind)
            if digest != told["digest"]:
                raise BenchmarkChangedError(f"{where} changed while the run went on: run again")
            found.append(read_set(store, name, uri, "fast" if kind == "fast" else "exact"))
        except (ArchiveError, HashListError) as error:
            raise BenchmarkChangedError(
                f"{where}: {error}; it was there when the run was planned: give all machines the set, or run again"
            ) from error
    return found


def _quiet(words: str) -> None:
    del words


def read_set(store: Store, name: str, uri: str, kind: HashKind, tell: Callable[[str], None] = _quiet) -> EvaluationSet:
    """Read one set.

    Args:
        store: The workdir, which relative names are below.
        name: What it is called.
        uri: A hash list, which ends in .parquet; or a folder or archive of images, which are hashed.
        kind: How they are hashed.
        tell: Told in words how far it is.

    Raises:
        ArchiveError: The folder or archive cannot be read.
        HashListError: The file is no hash list, or not there.
    """
    if not uri.endswith(_LIST):
        return read_images_of(store, name, uri, kind, tell)
    items = _read_list(store, uri)
    if items.is_empty():
        raise HashListError(f"{uri} is an empty list")
    return EvaluationSet(name, items, [])


def read_images_of(store: Store, name: str, uri: str, kind: HashKind, tell: Callable[[str], None]) -> EvaluationSet:
    """Hash the images of a folder or archive; arguments and errors as of `read_set`."""
    with open_archive(store, uri) as archive:
        hashed = hash_images(
            archive, kind, _MAX_PIXELS, _MAX_BYTES, lambda done, of: tell(f"{name}: {done:,} of {of:,} images hashed")
        )
        passed_over = archive.ignored
    if hashed.frame.is_empty():
        raise ArchiveError(f"{uri}: no image that can be read in it; name the folder or archive that holds the images")
    more = [(uri, f"{passed_over} members passed over: links, hidden files, or names that lead out of it")]
    return EvaluationSet(name, hashed.frame, hashed.unread + (more if passed_over else []))


def _digest(store: Store, uri: str, kind: str) -> str:
    """Return the digest of a set, after checking that a list's hashes are of the kind."""
    if not uri.endswith(_LIST):
        with open_archive(store, uri) as archive:
            if not find_samples("imagefolder", [member.path for member in archive.members()]):
                raise ArchiveError(f"{uri}: no image in it; name the folder or archive that holds the images")
        return archive_digest(store, uri)
    kinds = set(_read_list(store, uri, ["hash_kind"])["hash_kind"])
    if odd := sorted(kinds - {f"phash64-{kind}"}):
        raise HashListError(
            f"{uri} holds {odd[0]} hashes and dedup.hash is {kind!r}: make the list with `hash-images --hash {kind}`"
        )
    with open_uri(store, uri) as file:
        return file_digest(file)


def _read_list(store: Store, uri: str, columns: list[str] | None = None) -> pl.DataFrame:
    try:
        with open_uri(store, uri) as file:
            return read_table(TABLES["hash_list"], file, columns)
    except FileNotFoundError as error:
        raise HashListError(f"{uri} is not there; a relative name is looked for below the workdir") from error
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise HashListError(f"{uri} is no hash list; make one with `rs5m-build hash-images`") from error

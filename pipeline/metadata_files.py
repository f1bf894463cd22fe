"""What planning knows of metadata files: digests and row groups, remembered so that no file is opened twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from manifests.identity import file_digest
from manifests.recipe_files import RecipeError
from manifests.store import Store
from stages.filter.parquet import row_groups
from stages.filter.rows import MetadataError
from stages.uris import Named, open_uri

CACHE = "cache/metadata-files.json"
_READERS = 16


@dataclass(frozen=True, slots=True)
class MetadataFile:
    """One file.

    Attributes:
        digest: Its file digest, 64 hex digits.
        groups: Rows of each row group of a Parquet file; None where no footer was asked for, or none can be read.
        problem: Why its footer cannot be read.
    """

    digest: str
    groups: tuple[int, ...] | None = None
    problem: str = ""


class MetadataFiles:
    """Opens metadata files, once each: by name, size and time of change they are known again.

    Args:
        store: The workdir; what is known lies in its cache, and goes there by `save`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._new = False
        self._known = _read_cache(store)

    def look(self, files: Sequence[Named], *, parquet: bool = False) -> list[MetadataFile]:
        """Return what is known of files, in their order; those not known yet are opened, several at a time.

        Args:
            files: The files.
            parquet: Whether they are to be Parquet files: then their footers are read too.

        Raises:
            RecipeError: One cannot be read at all.
        """
        unknown = [file for file in files if self.known(file, parquet=parquet) is None]
        if unknown:
            with ThreadPoolExecutor(min(_READERS, len(unknown))) as pool:
                found = list(pool.map(lambda file: self._look(file, parquet=parquet), unknown))
            self._known |= {
                file.uri: {"stamp": file.stamp, "parquet": parquet, **asdict(said)}
                for file, said in zip(unknown, found, strict=True)
            }
            self._new = True
        return [_metadata_file(self._known[file.uri]) for file in files]

    def known(self, file: Named, *, parquet: bool = False) -> MetadataFile | None:
        """Return what is known of a file that did not change since, without opening it."""
        entry = self._known.get(file.uri)
        if entry is None or not file.stamp or entry.get("stamp") != file.stamp or (parquet and not entry["parquet"]):
            return None
        return _metadata_file(entry)

    def save(self) -> None:
        """Write what was found out to the workdir's cache."""
        if self._new:
            self._store.replace(CACHE, json.dumps(self._known, sort_keys=True, separators=(",", ":")).encode())
            self._new = False

    def _look(self, file: Named, *, parquet: bool) -> MetadataFile:
        try:
            with open_uri(self._store, file.uri) as opened:
                digest = file_digest(opened)
                if not parquet:
                    return MetadataFile(digest)
                opened.seek(0)
                try:
                    return MetadataFile(digest, tuple(row_groups(opened)))
                except MetadataError as error:
                    return MetadataFile(digest, None, f"{file.uri}: {_without_name(str(error))}, or leave it out")
        except (OSError, NotImplementedError) as error:
            raise RecipeError(f"{file.uri}: cannot be read: {error}") from error


def _without_name(said: str) -> str:
    """Return what was said of a file without the name it was opened by: the recipe has another for it."""
    return said[said.find("not readable") :] if "not readable" in said else said


def _metadata_file(entry: dict[str, Any]) -> MetadataFile:
    groups = entry["groups"]
    return MetadataFile(str(entry["digest"]), None if groups is None else tuple(groups), str(entry["problem"]))


def _read_cache(store: Store) -> dict[str, dict[str, Any]]:
    try:
        known = json.loads(store.read(CACHE))
        return {str(uri): entry for uri, entry in known.items() if len(entry["stamp"]) and _metadata_file(entry).digest}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}  # a cache: what it does not tell is found out again

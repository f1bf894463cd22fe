"""Lists of what must not be in a build: by id, url, host or the sha256 of the bytes.

Where a list lies is no part of a result, what it says is: `planned_lists` reads the lists before any work starts and
turns each setting into a name and a digest, the digests are inputs of the steps that ask for the list (`list_inputs`),
and a worker that reads other entries than were planned refuses.

=====================  =================================================================================================
``exclude.ids``        sample ids, or names of released images (``SOURCE_NAME.SUFFIX``, whatever the suffix)
``exclude.urls``       whole urls, character by character; ``*`` stands for itself. The url as published, and, where it
                       is known, the one that it led to
``exclude.hosts``      hosts with all their subdomains, whatever the case; Unicode and ``xn--`` spellings are one
``exclude.sha256``     digests of bytes as fetched or rendered
=====================  =================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from manifests.canonical import JsonValue
from manifests.recipe import Settings
from manifests.recipe_files import RecipeError
from manifests.store import Store
from stages.exclusion_lists import digest_of, plain_host, read_list
from stages.image_names import name_without_suffix
from stages.places import host_of
from stages.step import ModelMissingError

KINDS = ("ids", "urls", "hosts", "sha256")
"""The lists; of a row that several name, the first is told."""


class ListChangedError(ModelMissingError):
    """A list whose entries are not those that the run was planned with: the run ends with this one line."""


def planned_lists(store: Store, settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Read and check every list that a recipe names.

    Args:
        store: The workdir; relative names are below it.
        settings: The recipe, flat.

    Returns:
        Per list that is named, by its key: ``{"uri": .., "digest": ..}``; the digest is empty where the list is.

    Raises:
        RecipeError: As `stages.exclusion_lists.read_list`.
    """
    named = {f"exclude.{kind}": (kind, str(settings.get(f"exclude.{kind}") or "")) for kind in KINDS}
    return {
        key: {"uri": uri, "digest": digest_of(read_list(store, kind, uri))} for key, (kind, uri) in named.items() if uri
    }


def list_inputs(keys: Iterable[str], settings: Mapping[str, JsonValue]) -> list[tuple[str, str, str]]:
    """Return what the lists that a step asks for add to its inputs: (``exclude``, kind, digest).

    They are inputs and no pins, as a source's attributes are: which rows stay depends on them, and not how a row comes
    out. So earlier rows are taken over under other lists, and a list that is empty changes nothing.

    Args:
        keys: The keys that the step asks for.
        settings: The settings, with the lists as `planned_lists` returns them.
    """
    lists = ((key.partition("."), settings[key]) for key in keys if key.startswith("exclude."))
    return [
        (table, kind, str(told["digest"]))
        for (table, _, kind), told in lists
        if isinstance(told, dict) and told["digest"]
    ]


@dataclass(frozen=True, slots=True)
class Exclusions:
    """The entries of the lists that a step asks for, by kind; kinds without an entry are left out."""

    entries: Mapping[str, pl.Series]

    @classmethod
    def planned(cls, settings: Settings, store: Store) -> Exclusions:
        """Read the lists that a step's settings name.

        Raises:
            ListChangedError: If a list holds other entries than when the run was planned, or is gone.
            RecipeError: If it cannot be read.
            TypeError: If a setting is no list that was planned.
        """
        found: dict[str, pl.Series] = {}
        for kind in KINDS:
            key = f"exclude.{kind}"
            if key not in settings.values or settings.values[key] == "":
                continue
            told = settings.mapping(key)
            try:
                entries = read_list(store, kind, told["uri"])
            except RecipeError as error:
                if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
                    raise  # a store that does not answer may do so at the next attempt
                raise ListChangedError(
                    f"{error}; it was read when the run was planned: give all machines the list, or run again"
                ) from error
            if digest_of(entries) != told["digest"]:
                raise ListChangedError(f"{key}: {told['uri']} changed while the run went on: run again")
            if entries.len():
                found[kind] = entries
        return cls(found)

    def __bool__(self) -> bool:
        return bool(self.entries)

    @property
    def bodies(self) -> frozenset[str]:
        """The digests of bytes, in lower-case hex."""
        return frozenset(self.entries.get("sha256", ()))

    def naming(self, rows: pl.DataFrame) -> pl.Series:
        """Return, row by row, what excludes it; null for the rows that stay.

        Args:
            rows: Columns sample_id, source, subset, url; final_url where it is known; sha256 for its list.

        Returns:
            Strings fit for a ledger's detail: ``exclude.ids``, ``exclude.urls``, ``exclude.hosts: HOST`` with the host
            as listed, ``exclude.sha256``.
        """
        found = {kind: self._named(kind, rows) for kind in KINDS if kind in self.entries}
        if not found or not rows.height:
            return pl.repeat(None, rows.height, dtype=pl.String, eager=True)
        return pl.DataFrame(found).select(pl.coalesce(pl.all())).to_series()

    def _named(self, kind: str, rows: pl.DataFrame) -> pl.Series:
        listed = self.entries[kind].implode()
        urls = [name for name in ("url", "final_url") if name in rows.columns]
        if kind == "hosts":
            hosts = frozenset(self.entries[kind])
            frame = pl.DataFrame({name: _hosts_named(rows[name], hosts) for name in urls})
            return frame.select(pl.coalesce(pl.all())).to_series()
        if kind == "ids":
            named = pl.any_horizontal(pl.col("sample_id").is_in(listed), name_without_suffix().is_in(listed))
        elif kind == "urls":
            named = pl.any_horizontal(pl.col(name).str.strip_chars().is_in(listed) for name in urls)
        else:
            named = pl.col("sha256").is_in(listed)
        return rows.select(pl.when(named).then(pl.lit(f"exclude.{kind}"))).to_series()


def _hosts_named(urls: pl.Series, listed: frozenset[str]) -> pl.Series:
    """Return, url by url, ``exclude.hosts: HOST`` of the listed host that it is at; null where there is none."""
    # A url's beginning up to its path tells its host; there are far fewer of them than urls.
    trimmed = pl.col("url").str.strip_chars()
    starts = (
        pl.DataFrame({"url": urls})
        .select(pl.coalesce(trimmed.str.extract(r"^([A-Za-z][A-Za-z0-9+.-]*://[^/?#]*)"), trimmed))
        .to_series()
    )
    told: dict[str, str] = {}
    for start in starts.drop_nulls().unique():
        domain = next((domain for domain in _domains(plain_host(host_of(start))) if domain in listed), None)
        if domain is not None:
            told[start] = f"exclude.hosts: {domain}"
    return starts.replace_strict(told, default=None, return_dtype=pl.String)


def _domains(host: str) -> Iterator[str]:
    """Yield a host and the domains above it, nearest first."""
    while host:
        yield host
        host = host.partition(".")[2]

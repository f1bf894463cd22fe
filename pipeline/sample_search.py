"""Finds sample ids by any name a sample has: its id, a url, the sha256 of its bytes, its image name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from manifests.manifest import Manifest
from manifests.schemas import LEDGER
from manifests.store import Store
from pipeline.table_scan import scan, spec_of
from stages.dedup.urls import normalise
from stages.step import Step

Commits = Sequence[tuple[Step, Manifest]]

_ID = re.compile(r"[0-9a-f]{32}", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)
_IMG_NAME = re.compile(r"(?:.*/)?[a-z0-9]+_([0-9a-f]{32})\.[a-z]+")
_HOST = re.compile(r"//([^/?#]*)")

_WITH_URL = {("filter.match", "candidates")}
_WITH_SHA256 = {("download.fetch", "fetched"): "sha256", ("shard.pack", "packed"): "released_sha256"}


@dataclass(frozen=True, slots=True)
class Match:
    """What a query may stand for.

    Attributes:
        by: The kind of name: sample_id, url, sha256 or img_name.
        ids: Sample ids, sorted.
        searched: What was searched, in words.
    """

    by: str
    ids: list[str]
    searched: str


def find(store: Store, commits: Commits, query: str) -> Match:
    """Return the sample ids that a query stands for.

    32 hex digits are an id, 64 a sha256, ``<source>_<id>.<ext>`` an image name, and so is whatever a released image is
    called; everything else is taken for a url, which stands for every row whose url is equal after normalisation.

    Raises:
        CorruptFileError: If a table cannot be read.
    """
    if _ID.fullmatch(query):
        return Match("sample_id", [query.lower()], "looked for this sample id")
    if named := _IMG_NAME.fullmatch(query):
        return Match("img_name", [named[1]], f"looked for the sample id {named[1]} in this image name")
    if _SHA256.fullmatch(query):
        ids = _unique(_by_sha256(store, commits, query.lower()))
        return Match("sha256", ids, "looked for images with this sha256, as fetched and as released")
    if ids := _unique(_by_name(store, commits, query)):
        return Match("img_name", ids, "looked for a released image of this name")
    ids = _unique(_by_url(store, commits, query))
    return Match("url", ids, "looked for this url, as published and normalised")


def _by_sha256(store: Store, commits: Commits, sha256: str) -> Iterator[list[str]]:
    for step, manifest in commits:
        for output in manifest.outputs:
            spec, column = spec_of(step.name, output), _WITH_SHA256.get((step.name, output.name))
            if spec and column and output.rows:
                yield _ids(scan(store, spec, output.path, pl.col(column) == sha256, ["sample_id"]))
        if step.name == "dedup.inspect" and manifest.ledger.rows:
            yield _ids(scan(store, LEDGER, manifest.ledger.path, pl.col("sha256") == sha256, ["sample_id"]))


def _by_name(store: Store, commits: Commits, query: str) -> Iterator[list[str]]:
    """Yield the ids of planned samples whose image is called so: archives keep the official names."""
    name = query.rpartition("/")[2]
    for step, manifest in commits:
        for output in manifest.outputs if step.name == "shard.plan" else ():
            spec = spec_of(step.name, output)
            if output.name == "plan" and output.rows and spec:
                yield _ids(scan(store, spec, output.path, pl.col("img_name") == name, ["sample_id"]))


def _by_url(store: Store, commits: Commits, url: str) -> Iterator[list[str]]:
    """Yield the ids of rows whose url, as published or normalised, is this one: of filter.match, kept or not."""
    same, names = normalise(url), ["sample_id", "url"]
    wanted = _may_be(url, same)
    for step, manifest in commits:
        if step.name != "filter.match":
            continue
        frames = [
            scan(store, spec, output.path, wanted, names)
            for output in manifest.outputs
            if (step.name, output.name) in _WITH_URL and output.rows and (spec := spec_of(step.name, output))
        ]
        if manifest.ledger.rows:
            frames.append(scan(store, LEDGER, manifest.ledger.path, wanted, names))
        for frame in frames:
            yield [i for i, found in frame.iter_rows() if found == url or normalise(found) == same]


def _may_be(url: str, same: str) -> pl.Expr:
    """Return a condition, cheap to check, that holds for every url that normalises to the same."""
    host = _HOST.match(same)
    if host is None:
        return pl.col("url") == url
    return pl.col("url").str.to_lowercase().str.contains(host[1].rpartition("@")[2], literal=True)


def _ids(frame: pl.DataFrame) -> list[str]:
    return [str(identity) for identity in frame["sample_id"].to_list()]


def _unique(found: Iterable[list[str]]) -> list[str]:
    """Return the ids sorted, once each; a row that could not be read has none."""
    return sorted({identity for ids in found for identity in ids if identity})

"""What a page shows of samples: where each came from, what was written beside it, and where its image lies."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from manifests.manifest import Manifest
from manifests.schemas import TABLES
from manifests.store import Store
from pipeline.books import committed
from pipeline.line import step_named
from pipeline.planner import Planner
from pipeline.table_scan import scan
from stages.images import Place

_TEXT = ["sample_id", "source", "url", "text"]
_PLACE = ["sample_id", "tar", "offset", "length", "sha256"]
_LOOK = ["sample_id", "width", "height", "texture"]


@dataclass(frozen=True, slots=True)
class Card:
    """One sample.

    Attributes:
        sample_id: Its id.
        source: Key of its source; empty if it is not known.
        url: As published.
        text: The caption as published; archives have none.
        place: Where its bytes lie; None if that is not known.
        width: Pixels; 0 if it is not known.
        height: Pixels; 0 if it is not known.
        texture: Grey levels; 0 if it is not known.
    """

    sample_id: str
    source: str = ""
    url: str = ""
    text: str = ""
    place: Place | None = None
    width: int = 0
    height: int = 0
    texture: float = 0.0


def cards(store: Store, planner: Planner, ids: Collection[str]) -> dict[str, Card]:
    """Return what is known of some samples, by id.

    Raises:
        CorruptFileError: If a table cannot be read.
    """
    texts = {row["sample_id"]: row for row in _rows(store, planner, "filter.pool", "candidates", _TEXT, ids)}
    places = {row["sample_id"]: row for row in _rows(store, planner, "download.fetch", "fetched", _PLACE, ids)}
    looks = {row["sample_id"]: row for row in _rows(store, planner, "dedup.inspect", "inspected", _LOOK, ids)}
    return {
        identity: Card(
            identity,
            **_without_id(texts.get(identity, {})),
            **_without_id(looks.get(identity, {})),
            place=Place(**_without_id(places[identity])) if identity in places else None,
        )
        for identity in ids
    }


def commits_of(planner: Planner, step: str) -> list[Manifest]:
    """Return the commits of a step that count."""
    return committed(planner.plan(step_named(step)))


def _rows(
    store: Store, planner: Planner, step: str, table: str, columns: Sequence[str], ids: Collection[str]
) -> Iterator[dict[str, Any]]:
    wanted = pl.col("sample_id").is_in(list(ids))
    for manifest in commits_of(planner, step) if ids else ():
        for receipt in manifest.outputs:
            if receipt.name == table and receipt.rows:
                yield from scan(store, TABLES[table], receipt.path, wanted, columns).iter_rows(named=True)


def _without_id(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "sample_id"}

"""Recorded answers: which of them still stand under today's settings, and which urls must be asked again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from manifests.recipe import Settings
from stages.download.answers import EMPTY
from stages.download.asking import CONSENT, NATIVE, consent_of
from stages.download.consent import heeded
from stages.step import Prior

EXCLUDED = "download.excluded"
HASH_DIFFERS = "download.hash_differs"


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one url.

    Attributes:
        reason: None where a body was taken, else why not.
        row: Columns of `fetched`, or the ledger's evidence.
    """

    reason: str | None
    row: dict[str, Any]


def recorded(
    prior: Prior,
    urls: frozenset[str],
    now: Settings,
    renderer: str | None = None,
    excluded: frozenset[str] = frozenset(),
) -> dict[str, Record]:
    """Return the records that stand, by url; what is absent must be fetched.

    Commits are read one by one until every url is known: the first that knows a url decides, a body before a refusal.

    Args:
        prior: Earlier commits.
        urls: The urls.
        now: Today's settings.
        excluded: sha256 of bodies that a list excludes.
        renderer: What renders images out of their archive today; images that another rendered are rendered anew.
    """
    known: dict[str, Record] = {}
    for commit in prior.commits(urls):
        unknown = urls - known.keys()
        if not unknown:
            break
        for row in _of(commit.frame("fetched"), unknown):
            record = _judge_taken(row, commit.settings, now) if row["rendered"] == renderer else None
            if record and row["sha256"] in excluded:
                record = Record(EXCLUDED, {"sha256": row["sha256"], "status": row["http_status"]})
            if record:
                known[row["url"]] = record
        for row in _of(commit.ledger(), unknown):
            if row["sha256"] in excluded if row["reason"] == EXCLUDED else _refusal_stands(row, commit.settings, now):
                known.setdefault(row["url"], Record(row["reason"], {**row, "cut": _cut(row, now)}))
    return known


def _of(frame: pl.DataFrame, urls: frozenset[str]) -> list[dict[str, Any]]:
    wanted = frame.filter(pl.col("url").is_in(list(urls))) if frame.height else frame
    return wanted.unique("url", keep="first", maintain_order=True).to_dicts()


def _judge_taken(row: dict[str, Any], then: Settings, now: Settings) -> Record | None:
    """Judge a stored body anew; None where the record cannot decide."""
    key = "download.max_redirects"
    if row["final_url"] is not None and now.integer(key) < then.integer(key):
        return None
    if then.flag("download.allow_private") and not now.flag("download.allow_private"):
        return None
    if _asked_less(then, now):
        return None
    max_bytes, media = now.integer("download.max_bytes"), row["media_type"]
    evidence = {"url": row["url"], "status": row["http_status"], "sha256": None}
    if row["length"] > max_bytes:
        return Record("download.too_large", {**evidence, "value": float(row["length"]), "cut": float(max_bytes)})
    if media != EMPTY and media not in now.texts("download.media"):
        return Record("download.not_image", {**evidence, "detail": f"{media} is not taken"})
    return Record(None, row)


def _refusal_stands(row: dict[str, Any], then: Settings, now: Settings) -> bool:
    match row["reason"]:
        case "download.too_large":
            return now.integer("download.max_bytes") <= then.integer("download.max_bytes")
        case "download.not_image":
            return set(now.texts("download.media")) <= set(then.texts("download.media"))
        case "download.too_many_redirects":
            return now.integer("download.max_redirects") <= then.integer("download.max_redirects")
        case "download.private_address":
            return not now.flag("download.allow_private") or then.flag("download.allow_private")
        case "download.opt_out":
            return heeded(row["detail"], consent_of(now))
        case "download.hash_differs":
            return False  # the bytes lie in a tar that no row names: they are judged when they are there again
        case _:
            return True


def _asked_less(then: Settings, now: Settings) -> bool:
    """Whether less was heeded when the body was taken, so that the record cannot say what its owner says."""
    if then.text("download.engine") != now.text("download.engine") == NATIVE:
        return True
    return any(now.flag(key) and not then.flag(key) for key in (f"download.consent.{name}" for name in CONSENT))


def _cut(row: dict[str, Any], now: Settings) -> float | None:
    """Return the cut that decides today: a stored one may be an older, larger bound."""
    key = {"download.too_large": "download.max_bytes", "download.too_many_redirects": "download.max_redirects"}
    name = key.get(row["reason"])
    return float(now.integer(name)) if name else row["cut"]

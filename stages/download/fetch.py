"""download.fetch: asks the web for each distinct url once and records what it answered; archives are read instead."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import polars as pl

from manifests.canonical import JsonValue, canonical_digest
from manifests.ledger import Departures, count_by_source
from manifests.recipe import Settings
from manifests.schemas import TABLES
from manifests.source_specs import spec_of
from manifests.store import Store
from manifests.tables import empty_frame, file_sha256
from stages.download.answers import Answer, Limits, Network
from stages.download.client import fetch_all
from stages.download.record import EXCLUDED, Record, recorded
from stages.download.render import renderer_of, take_from_archives
from stages.exclusions import Exclusions
from stages.images import EXTENSIONS, Spool
from stages.step import Input, Output, Prior, Result, Step, Tables, Task

_USER_AGENT = "rs5m-build/0.1"
_NETWORK = "connections per_host connect_s read_s total_s attempts backoff_s resolve".split()
_KEPT = "url tar offset length sha256 media_type http_status final_url content_type etag rendered".split()


# A partition that runs into its deadline is killed and loses what it fetched: asking ends before that.
_DEADLINE_SHARE = 0.8
_NOT_ASKED = Record("download.timeout", {"detail": "not asked: the partition's time was up"})


class Fetch(Step):
    """Fetches the urls of one partition; rows that were recorded before are re-judged, not fetched.

    Of a part of an archive the planner hands source and archives in ``params``: its images are read from there, and
    BigEarthNet's are rendered (`render`). So are web images that someone already holds: the web is not asked for them.
    What that gave is recorded as an answer of the web is.

    New bodies go into one tar, sorted by digest, each distinct body once. Several rows may point at one body, and
    rows taken over keep pointing into their older tar.
    """

    name = "download.fetch"
    kind = "map"
    VERSION = 1
    reads = ("download.max_bytes", "download.media", "download.max_redirects", "download.allow_private")
    asks = (
        "exclude.sha256",
        "run.partition_deadline_s",
        "download.contact",
        *(f"download.network.{name}" for name in _NETWORK),
    )
    inputs = (Input("filter.pool", "candidates"),)
    outputs = ("fetched", "images")
    keeps = "fetched"
    carries = True
    recording = True

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Fetch the partition. Never raises for what a server does."""
        candidates = tables.frame("filter.pool", "candidates")
        urls = frozenset(candidates["url"].to_list())
        renderer = _renderer(task.params)
        bodies = Exclusions.planned(task.settings, tables.store).bodies
        records = recorded(prior, urls, task.settings, renderer, bodies)
        wanted = sorted(urls - records.keys())
        spool = Spool(task.scratch)
        try:
            answers = _answers(task, tables.store, wanted, spool, bodies)
            images = _store_images(task, spool)
        finally:
            spool.close()
        records |= {url: _record(answer, images, renderer) for url, answer in answers.items()}
        not_asked = dict.fromkeys(urls - records.keys(), _NOT_ASKED)
        final = task.final and not not_asked  # what was never asked has not failed: the partition stays open
        fetched, departures = _rows(candidates, records | not_asked, Departures(task.step, final=final))
        taken_over = sorted(set(fetched["tar"].to_list()) - {images.path})
        return Result(
            outputs=[Output("fetched", fetched), *images.outputs],
            ledger=departures.frame(),
            seen=count_by_source(candidates),
            kept=count_by_source(fetched.join(candidates.select("sample_id", "source"), on="sample_id")),
            facts={"fetched_urls": len(answers), "recorded_urls": len(urls) - len(wanted)},
            pointed=taken_over,
        )

    def pins(self, settings: Settings, params: Mapping[str, JsonValue]) -> dict[str, str]:
        """Return what renders the partition's images, if anything does, and what its archives hold.

        Archives that changed are read anew: what they gave before, refusals included, is no answer of these.
        """
        del settings
        renderer, digests = _renderer(params), params.get("archive_digests")
        pins = {"renderer": renderer} if renderer else {}
        return pins | ({f"archives {params['source']}": canonical_digest(digests)} if digests else {})


class _Images:
    """The tar of this pass's new bodies, if there are any."""

    def __init__(self, path: str, offsets: dict[str, int], outputs: list[Output]) -> None:
        self.path = path
        self.offsets = offsets
        self.outputs = outputs


def _renderer(params: Mapping[str, JsonValue]) -> str | None:
    return renderer_of(spec_of(params).format) if "archives" in params else None


def _answers(
    task: Task, store: Store, urls: list[str], spool: Spool, bodies: frozenset[str]
) -> dict[str, tuple[Answer, str, int]]:
    """Ask for ``urls`` and return, for each, the answer without its body, the body's sha256 and its length."""
    answers: dict[str, tuple[Answer, str, int]] = {}

    def deliver(answer: Answer) -> None:
        if bodies and answer.reason is None and (digest := hashlib.sha256(answer.body).hexdigest()) in bodies:
            answers[answer.url] = (_refused(answer, EXCLUDED), digest, 0)  # and its bytes are not kept
            return
        sha256 = spool.add(answer.body, EXTENSIONS[answer.media_type]) if answer.reason is None else ""
        answers[answer.url] = (_without_body(answer), sha256, len(answer.body))

    budget_s = task.settings.number("run.partition_deadline_s") * _DEADLINE_SHARE
    limits = _limits(task.settings)
    if urls and "archives" in task.params:
        archives = [str(uri) for uri in cast("list[JsonValue]", task.params["archives"])]
        source = spec_of(task.params)
        for answer in take_from_archives(store, source, archives, urls, limits, budget_s):
            deliver(answer)
    elif urls:
        asyncio.run(_fetch_within(urls, limits, _network(task.settings), deliver, budget_s))
    return answers


async def _fetch_within(
    urls: list[str], limits: Limits, network: Network, deliver: Callable[[Answer], None], budget_s: float
) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(budget_s):
            await fetch_all(urls, limits, network, deliver)


def _refused(answer: Answer, reason: str) -> Answer:
    return Answer(answer.url, reason, http_status=answer.http_status)


def _without_body(answer: Answer) -> Answer:
    fields = {name: getattr(answer, name) for name in Answer.__slots__ if name != "body"}
    return Answer(**fields)


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_bytes=settings.integer("download.max_bytes"),
        media=frozenset(settings.texts("download.media")),
        max_redirects=settings.integer("download.max_redirects"),
        allow_private=settings.flag("download.allow_private"),
    )


def _network(settings: Settings) -> Network:
    contact = settings.text("download.contact")
    return Network(
        connections=settings.integer("download.network.connections"),
        per_host=settings.integer("download.network.per_host"),
        connect_s=settings.number("download.network.connect_s"),
        read_s=settings.number("download.network.read_s"),
        total_s=settings.number("download.network.total_s"),
        attempts=settings.integer("download.network.attempts"),
        backoff_s=settings.number("download.network.backoff_s"),
        resolve=settings.mapping("download.network.resolve"),
        user_agent=f"{_USER_AGENT} (+{contact})" if contact else _USER_AGENT,
    )


def _store_images(task: Task, spool: Spool) -> _Images:
    if not len(spool):
        return _Images("", {}, [])
    file = Path(task.scratch, "images.tar")
    offsets = spool.write_tar(file)
    path = task.data_path("images", file_sha256(file), "tar")
    return _Images(path, offsets, [Output("images", file=file, path=path, rows=len(spool))])


def _record(answered: tuple[Answer, str, int], images: _Images, renderer: str | None) -> Record:
    answer, sha256, length = answered
    if answer.reason is not None:
        evidence = {"status": answer.http_status, "value": answer.value, "cut": answer.cut, "detail": answer.detail}
        evidence["sha256"] = sha256 or None
        return Record(answer.reason, evidence)
    row = {name: getattr(answer, name, None) for name in _KEPT} | {"rendered": renderer}
    return Record(
        None, {**row, "tar": images.path, "offset": images.offsets[sha256], "length": length, "sha256": sha256}
    )


def _rows(
    candidates: pl.DataFrame, records: dict[str, Record], departures: Departures
) -> tuple[pl.DataFrame, Departures]:
    kept: list[dict[str, Any]] = []
    for row in candidates.select("sample_id", "source", "url", "source_hash", "source_hash_kind").iter_rows(named=True):
        record = records[row["url"]]
        if record.reason is None:
            verdict = hash_verdict(row["source_hash_kind"], row["source_hash"], record.row)
            kept.append(
                {**{name: record.row[name] for name in _KEPT}, "sample_id": row["sample_id"], "hash_verdict": verdict}
            )
        else:
            evidence = {name: record.row.get(name) for name in ("status", "value", "cut", "detail", "sha256")}
            departures.add(row["source"], row["sample_id"], record.reason, url=row["url"], **evidence)
    schema = empty_frame(TABLES["fetched"]).schema
    columns = {name: [row.get(name) for row in kept] for name in schema}
    return pl.DataFrame(columns, schema=schema), departures


def hash_verdict(kind: str | None, published: str | None, row: dict[str, Any]) -> str:
    """Return how a body's digest stands to the one its source published: match, differs or unknown.

    Only sha256 can be told from the record; md5 and perceptual hashes need the bytes or a decode.
    """
    if kind == "sha256" and published:
        return "match" if published.lower() == row["sha256"] else "differs"
    return "unknown"

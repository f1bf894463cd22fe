"""download.fetch: asks the web for each distinct url once and records what it answered; archives are read instead."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from manifests.canonical import JsonValue, canonical_digest
from manifests.ledger import Departures, count_by_source
from manifests.recipe import Settings
from manifests.schemas import TABLES
from manifests.source_specs import spec_of
from manifests.store import Store
from manifests.tables import empty_frame, file_sha256
from stages.download.answers import Answer
from stages.download.asking import CONSENT, NATIVE, NETWORK, ask
from stages.download.hashes import DIFFERS, Published, hash_verdicts, suspicions, tally
from stages.download.placeholders import placeholders
from stages.download.record import EXCLUDED, HASH_DIFFERS, Record, recorded
from stages.download.render import renderer_of
from stages.exclusions import Exclusions
from stages.images import EXTENSIONS, Place, Spool, read_images
from stages.step import Input, Output, Prior, Result, Step, Tables, Task

_OF_CANDIDATES = ["sample_id", "source", "url", "text", "source_hash", "source_hash_kind"]
_KEPT = "url tar offset length sha256 media_type http_status final_url content_type etag rendered".split()
_EVIDENCE = ("status", "value", "cut", "detail", "sha256")
_NOT_ASKED = Record("download.timeout", {"detail": "not asked: the partition's time was up"})
# A picture with more pixels is not decoded to compare its perceptual hash: the verdict is unknown.
_MOST_HASHED_PIXELS = 100_000_000

Body = Callable[[str], bytes]
"""From a sha256 to the body."""


class Fetch(Step):
    """Fetches the urls of one partition; rows that were recorded before are re-judged, not fetched.

    Of a part of an archive the planner hands source and archives in ``params``: its images are read from there, and
    BigEarthNet's are rendered (`render`). So are web images that someone already holds: the web is not asked for them.
    What that gave is recorded as an answer of the web is.

    New bodies go into one tar, sorted by digest, each distinct body once. Several rows may point at one body, and
    rows taken over keep pointing into their older tar. What sources publish of an image's hash is compared, and the
    verdict stored; `download.on_hash_differs` decides whether rows leave for it.
    """

    name = "download.fetch"
    kind = "map"
    VERSION = 2
    reads = (
        "download.engine",
        "download.max_bytes",
        "download.media",
        "download.max_redirects",
        "download.allow_private",
        "download.on_hash_differs",
        *(f"download.consent.{name}" for name in CONSENT),
    )
    asks = (
        "exclude.sha256",
        "run.partition_deadline_s",
        "download.contact",
        *(f"download.network.{name}" for name in NETWORK),
    )
    inputs = (Input("filter.pool", "candidates"),)
    outputs = ("fetched", "images")
    keeps = "fetched"
    carries = True
    recording = True

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Fetch the partition. Never raises for what a server does."""
        candidates = tables.frame("filter.pool", "candidates", _OF_CANDIDATES)
        urls = frozenset(candidates["url"].to_list())
        renderer = _renderer(task.params)
        excluded = Exclusions.planned(task.settings, tables.store).bodies
        records = recorded(prior, urls, task.settings, renderer, excluded)
        wanted = sorted(urls - records.keys())
        spool = Spool(task.scratch)
        try:
            answers = _answers(task, tables.store, wanted, spool, excluded)
            images = _store_images(task, spool)
            records |= {url: _record(answer, images, renderer) for url, answer in answers.items()}
            not_asked = dict.fromkeys(urls - records.keys(), _NOT_ASKED)
            final = task.final and not not_asked  # what was never asked has not failed: the partition stays open
            rows = _Rows(candidates, records | not_asked, Departures(task.step, final=final))
            facts = rows.judge_hashes(_bodies(tables.store, spool, images, records), task.settings)
        finally:
            spool.close()
        fetched = rows.frame()
        texts = fetched.select("sample_id", "sha256", "url").join(
            candidates.select("sample_id", "text"), on="sample_id"
        )
        if listed := placeholders(texts):
            facts["placeholders"] = list[JsonValue](listed)
        if task.settings.text("download.engine") != NATIVE and answers:
            facts["engine"] = task.settings.text("download.engine")
        return Result(
            outputs=[Output("fetched", fetched), *images.outputs],
            ledger=rows.departures.frame(),
            seen=count_by_source(candidates),
            kept=count_by_source(fetched.join(candidates.select("sample_id", "source"), on="sample_id")),
            facts={"fetched_urls": len(answers), "recorded_urls": len(urls) - len(wanted)} | facts,
            pointed=sorted(set(fetched["tar"].to_list()) - {images.path}),
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

    ask(task, store, urls, deliver)
    return answers


def _refused(answer: Answer, reason: str) -> Answer:
    return Answer(answer.url, reason, http_status=answer.http_status)


def _without_body(answer: Answer) -> Answer:
    fields = {name: getattr(answer, name) for name in Answer.__slots__ if name != "body"}
    return Answer(**fields)


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


def _bodies(store: Store, spool: Spool, images: _Images, records: Mapping[str, Record]) -> Body:
    """Return what reads a body: those of this pass lie in the spool, earlier ones in the store."""
    places = {r.row["sha256"]: r.row for r in records.values() if r.reason is None}

    def body(sha256: str) -> bytes:
        if sha256 in images.offsets:
            return spool.read(sha256)
        row = places[sha256]
        place = Place(row["tar"], row["offset"], row["length"], sha256)
        return next(body for _, body in read_images(store, [place]))

    return body


class _Rows:
    """The rows of the partition, as records answer them: kept, or left."""

    def __init__(self, candidates: pl.DataFrame, records: Mapping[str, Record], departures: Departures) -> None:
        self.departures = departures
        self._kept: list[dict[str, Any]] = []
        self._published: list[Published] = []
        for row in candidates.drop("text").iter_rows(named=True):
            record = records[row["url"]]
            if record.reason is not None:
                self._leave(row, record.reason, record.row)
                continue
            kept = {name: record.row[name] for name in _KEPT}
            self._kept.append({**kept, "sample_id": row["sample_id"], "source": row["source"]})
            if row["source_hash"] is not None:
                hash_ = row["source_hash_kind"], row["source_hash"]
                self._published.append(Published(row["sample_id"], row["source"], *hash_, kept["sha256"]))

    def judge_hashes(self, body: Body, settings: Settings) -> dict[str, JsonValue]:
        """Compare published hashes, let rows leave if that is asked for, and return what reports say of it."""
        verdicts = hash_verdicts(self._published, body, _MOST_HASHED_PIXELS)
        counts = tally(self._published, verdicts)
        dropping = settings.text("download.on_hash_differs") == "drop"
        for row in self._kept:
            row["hash_verdict"] = verdicts.get(row["sample_id"], "unknown")
        if dropping:
            for row in self._kept:
                if row["hash_verdict"] == DIFFERS:
                    self._leave(row, HASH_DIFFERS, {"status": row["http_status"], "sha256": row["sha256"]})
            self._kept = [row for row in self._kept if row["hash_verdict"] != DIFFERS]
        facts: dict[str, JsonValue] = {}
        if counts:
            facts["hash_verdicts"] = {source: dict[str, JsonValue](found) for source, found in counts.items()}
        kinds = {row.source: str(row.kind) for row in self._published}
        if lines := suspicions(counts, kinds):
            facts["suspicions"] = list[JsonValue](lines)
        return facts

    def frame(self) -> pl.DataFrame:
        """Return the rows kept."""
        schema = empty_frame(TABLES["fetched"]).schema
        columns = {name: [row.get(name) for row in self._kept] for name in schema}
        return pl.DataFrame(columns, schema=schema)

    def _leave(self, row: Mapping[str, Any], reason: str, evidence: Mapping[str, Any]) -> None:
        known = {name: evidence.get(name) for name in _EVIDENCE}
        self.departures.add(row["source"], row["sample_id"], reason, url=row["url"], **known)

"""download.fetch: asks the web for each distinct url once and records what it answered; archives are read instead."""

from __future__ import annotations

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
from manifests.tables import empty_frame
from stages.download.asking import CONSENT, NATIVE, NETWORK, ask
from stages.download.hashes import DIFFERS, UNKNOWN, Published, hash_verdicts, suspicions, tally
from stages.download.img2dataset_engine import engine_facts
from stages.download.intake import Intake
from stages.download.placeholders import placeholders
from stages.download.record import HASH_DIFFERS, Record, recorded
from stages.download.render import renderer_of
from stages.exclusions import Exclusions
from stages.images import Place, read_images
from stages.step import Input, Output, Prior, Result, Step, Tables, Task

_OF_CANDIDATES = ["sample_id", "source", "url", "text", "source_hash", "source_hash_kind"]
_KEPT = "url tar offset length sha256 media_type http_status final_url content_type etag rendered".split()
_EVIDENCE = ("status", "value", "cut", "detail", "sha256")
_TAR = "images.tar"
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

    New bodies go into one tar as they come, each distinct body once. Several rows may point at one body, and rows
    taken over keep pointing into their older tar. What sources publish of an image's hash is compared, and the
    verdict stored; `download.on_hash_differs` decides whether rows leave for it.
    """

    name = "download.fetch"
    kind = "map"
    VERSION = 3
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
        tar = Path(task.scratch, _TAR)
        with Intake(tar, excluded, renderer) as intake:
            ask(task, tables.store, wanted, intake.take)
        images = _images(task, tar, intake)
        answered = _placed(intake.records, images)
        not_asked = dict.fromkeys(urls - records.keys() - answered.keys(), _NOT_ASKED)
        final = task.final and not not_asked  # what was never asked has not failed: the partition stays open
        records |= answered | not_asked
        rows = _Rows(candidates, records, Departures(task.step, final=final))
        facts = rows.look(_bodies(tables.store, task.scratch, images, records), task.settings)
        fetched = rows.frame()
        if answered and "archives" not in task.params and task.settings.text("download.engine") != NATIVE:
            facts["engine"] = engine_facts()
        return Result(
            outputs=[Output("fetched", fetched), *([images] if images else [])],
            ledger=rows.departures.frame(),
            seen=count_by_source(candidates),
            kept=count_by_source(fetched),
            facts={"fetched_urls": len(answered), "recorded_urls": len(urls) - len(wanted)} | facts,
            pointed=sorted(set(fetched["tar"].to_list()) - ({images.path} if images else set())),
        )

    def pins(self, settings: Settings, params: Mapping[str, JsonValue]) -> dict[str, str]:
        """Return what renders the partition's images, if anything does, and what its archives hold.

        Archives that changed are read anew: what they gave before, refusals included, is no answer of these.
        """
        del settings
        renderer, digests = _renderer(params), params.get("archive_digests")
        pins = {"renderer": renderer} if renderer else {}
        return pins | ({f"archives {params['source']}": canonical_digest(digests)} if digests else {})


def _renderer(params: Mapping[str, JsonValue]) -> str | None:
    return renderer_of(spec_of(params).format) if "archives" in params else None


def _images(task: Task, tar: Path, intake: Intake) -> Output | None:
    """Return the tar of this pass's new bodies, if there are any."""
    if not intake.offsets:
        return None
    path = task.data_path("images", intake.sha256, "tar")
    return Output("images", file=tar, path=path, rows=len(intake.offsets), sha256=intake.sha256)


def _placed(records: dict[str, Record], images: Output | None) -> dict[str, Record]:
    """Say in the rows of bodies which tar they are in."""
    for record in records.values():
        if record.reason is None and images is not None:
            record.row["tar"] = images.path
    return records


def _bodies(store: Store, scratch: Path, images: Output | None, records: Mapping[str, Record]) -> Body:
    """Return what reads a body: those of this pass still lie in scratch, earlier ones in the store."""
    rows = {r.row["sha256"]: r.row for r in records.values() if r.reason is None}
    here = Store(str(scratch))

    def body(sha256: str) -> bytes:
        tar, offset, length = (rows[sha256][name] for name in ("tar", "offset", "length"))
        new = images is not None and tar == images.path
        place = Place(_TAR if new else tar, offset, length, sha256)
        return next(body for _, body in read_images(here if new else store, [place]))

    return body


class _Rows:
    """The rows of the partition, as records answer them: kept, or left."""

    def __init__(self, candidates: pl.DataFrame, records: Mapping[str, Record], departures: Departures) -> None:
        self.departures = departures
        taken = [record.row for record in records.values() if record.reason is None]
        schema = empty_frame(TABLES["fetched"]).schema
        columns = {name: pl.Series(name, [row[name] for row in taken], schema[name]) for name in _KEPT}
        self._kept = candidates.join(pl.DataFrame(columns), on="url")
        for row in candidates.drop("text").join(pl.DataFrame(columns), on="url", how="anti").iter_rows(named=True):
            record = records[row["url"]]
            self._leave(row, str(record.reason), record.row)

    def look(self, body: Body, settings: Settings) -> dict[str, JsonValue]:
        """Compare published hashes, let rows leave if that is asked for, and return what reports say of the rows."""
        told = self._kept.filter(pl.col("source_hash").is_not_null())
        published = [
            Published(*row)
            for row in told.select("sample_id", "source", "source_hash_kind", "source_hash", "sha256").iter_rows()
        ]
        verdicts = hash_verdicts(published, body, _MOST_HASHED_PIXELS)
        verdict = pl.col("sample_id").replace_strict(verdicts, default=UNKNOWN, return_dtype=pl.String)
        self._kept = self._kept.with_columns(hash_verdict=verdict if verdicts else pl.lit(UNKNOWN))
        if settings.text("download.on_hash_differs") == "drop":
            differs = pl.col("hash_verdict") == DIFFERS
            for row in self._kept.filter(differs).iter_rows(named=True):
                self._leave(row, HASH_DIFFERS, {"status": row["http_status"], "sha256": row["sha256"]})
            self._kept = self._kept.filter(~differs)
        counts = tally(published, verdicts)
        facts: dict[str, JsonValue] = {}
        if counts:
            facts["hash_verdicts"] = {source: dict[str, JsonValue](found) for source, found in counts.items()}
        kinds = {row.source: str(row.kind) for row in published}
        if lines := suspicions(counts, kinds):
            facts["suspicions"] = list[JsonValue](lines)
        if listed := placeholders(self._kept.select("sha256", "url", "text")):
            facts["placeholders"] = list[JsonValue](listed)
        return facts

    def frame(self) -> pl.DataFrame:
        """Return the rows kept, with their source beside what `fetched` holds."""
        return self._kept.select("source", *TABLES["fetched"].schema.names)

    def _leave(self, row: Mapping[str, Any], reason: str, evidence: Mapping[str, Any]) -> None:
        known = {name: evidence.get(name) for name in _EVIDENCE}
        self.departures.add(row["source"], row["sample_id"], reason, url=row["url"], **known)

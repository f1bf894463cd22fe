"""Explains samples: what each step did with them, on what evidence, read from the commits that count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from manifests.canonical import JsonValue
from manifests.manifest import Manifest
from manifests.schemas import LEDGER
from manifests.store import Store
from pipeline.books import committed
from pipeline.cluster_evidence import cluster_evidence, leak_evidence
from pipeline.line import LINE
from pipeline.planner import Planner
from pipeline.sample_search import Match, find
from pipeline.table_scan import scan, spec_of
from stages.step import Step

Verdict = Literal["kept", "dropped", "failed", "deferred"]
State = Literal["released", "dropped", "failed", "deferred", "in_progress"]

_MOST = 100
_SHOWN = {
    "filter.match": """locator url text matched source_key group width height lon lat taken_at similarity nsfw
        nsfw_label watermark licence credit""",
    "filter.pool": "",
    "download.fetch": "media_type length http_status final_url content_type hash_verdict sha256 tar offset",
    "dedup.inspect": "width height mode frames exif_orientation hash_kind phash texture",
    "dedup.cluster": "split_group",
    "outlier.embed": "vlm detector",
    "outlier.cut": "",
    "caption.generate": "",
    "caption.choose": "top ssl chosen rule",
    "geo.locate": "lon lat coord_from utm country month season gsd_m entities meta template",
    "shard.plan": "img_name caption tar position",
    "shard.pack": "tar offset length released_sha256",
    "shard.index": "split tar img_name",
}
_NO_EVIDENCE = {"step", "source", "sample_id", "reason", "class"}


@dataclass(frozen=True, slots=True)
class Entry:
    """What one step did with one row.

    Attributes:
        step: ``<stage>.<step>``.
        partition: Of the step.
        commit: First 16 digits of the commit's fingerprint.
        verdict: What became of the row.
        reason: Why it left, None where it was kept.
        evidence: What the verdict rests on.
        values: What the step found out.
    """

    step: str
    partition: str
    commit: str
    verdict: Verdict
    reason: str | None
    evidence: dict[str, JsonValue]
    values: dict[str, JsonValue]


@dataclass(slots=True)
class Sample:
    """One sample's history, in the order of the line."""

    sample_id: str
    source: str = ""
    history: list[Entry] = field(default_factory=list)

    @property
    def last(self) -> Entry:
        """The entry that decides: of the last step that saw the sample, the row that was kept if one was."""
        at_last = [entry for entry in self.history if entry.step == self.history[-1].step]
        return next((entry for entry in at_last if entry.verdict == "kept"), at_last[-1])

    @property
    def state(self) -> State:
        """Where the sample stands now."""
        if self.last.verdict != "kept":
            return self.last.verdict
        return "released" if self.last.step == LINE[-1].name else "in_progress"


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer to a query; ``note`` says what was searched where nothing was found, or what was left out."""

    query: str
    matched_by: str | None
    samples: list[Sample]
    note: str | None


def explain(store: Store, planner: Planner, query: str) -> Explanation:
    """Return the history of every sample that a sample id, url, sha256 or image name stands for.

    Raises:
        CorruptFileError: If a table cannot be read.
    """
    commits = [(step, manifest) for step in LINE for manifest in committed(planner.plan(step))]
    match = find(store, commits, query.strip())
    ids = match.ids[:_MOST]
    samples = {identity: Sample(identity) for identity in ids}
    inspected = [manifest for step, manifest in commits if step.name == "dedup.inspect"]
    for step, manifest in commits if ids else []:
        for identity, source, entry in _entries(store, step, manifest, ids, inspected):
            samples[identity].history.append(entry)
            samples[identity].source = samples[identity].source or source
    found = [sample for sample in samples.values() if sample.history]
    return Explanation(query, match.by if found else None, found, _note(match, len(found), len(commits)))


def _note(match: Match, found: int, commits: int) -> str | None:
    if not found:
        return (
            f"nothing found: {match.searched} in {commits} commits; "
            "rows that match no keyword are counted per source, not listed"
        )
    return f"the first {_MOST} of {len(match.ids)} samples are shown" if len(match.ids) > _MOST else None


def _entries(
    store: Store, step: Step, manifest: Manifest, ids: list[str], inspected: list[Manifest]
) -> Iterator[tuple[str, str, Entry]]:
    """Yield (sample id, source, entry) of one commit: rows that left, then rows kept."""
    mine = pl.col("sample_id").is_in(ids)
    copies = _copies(store, step, manifest, ids, inspected)
    for row in scan(store, LEDGER, manifest.ledger.path, mine).iter_rows(named=True) if manifest.ledger.rows else ():
        evidence = {name: _json(name, value) for name, value in row.items() if name not in _NO_EVIDENCE}
        evidence = {**_known(evidence), **copies.get(row["sample_id"], {})}
        yield row["sample_id"], row["source"], _entry(manifest, row["class"], row["reason"], evidence, {})
    for output in manifest.outputs:
        spec = spec_of(step.name, output)
        if output.name != step.keeps or not output.rows or spec is None:
            continue
        names = [name for name in _SHOWN.get(step.name, "").split() if name in spec.schema.names]
        source = ["source"] if "source" in spec.schema.names else []
        for row in scan(store, spec, output.path, mine, ["sample_id", *source, *names]).iter_rows(named=True):
            values = _known({name: _json(name, row[name]) for name in names})
            entry = _entry(manifest, "kept", None, copies.get(row["sample_id"], {}), values, output.partition)
            yield row["sample_id"], row.get("source", ""), entry


def _entry(
    manifest: Manifest,
    verdict: Verdict,
    reason: str | None,
    evidence: dict[str, JsonValue],
    values: dict[str, JsonValue],
    partition: str | None = None,
) -> Entry:
    if partition:
        values = {**values, "partition": partition}
    return Entry(manifest.step, manifest.partition, manifest.fingerprint[:16], verdict, reason, evidence, values)


def _copies(
    store: Store, step: Step, manifest: Manifest, ids: list[str], inspected: list[Manifest]
) -> dict[str, dict[str, JsonValue]]:
    """Return the evidence of clusters and of evaluation sets, by sample (`pipeline.cluster_evidence`)."""
    if step.name != "dedup.cluster":
        return {}
    found = cluster_evidence(store, manifest, ids, inspected)
    for identity, evidence in leak_evidence(store, manifest, ids).items():
        found[identity] = {**found.get(identity, {}), **evidence}
    return found


def _known(values: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in values.items() if value is not None}


def _json(name: str, value: JsonValue) -> JsonValue:
    if name == "entities" and isinstance(value, list):
        return [_place(entity) for entity in value if isinstance(entity, dict)]
    return f"{value:016x}" if name == "phash" and isinstance(value, int) else value


def _place(entity: dict[str, JsonValue]) -> JsonValue:
    """Return a named place in words: its name, and what it was resolved to."""
    where = f" = {entity['country']} {entity['lat']}, {entity['lon']}" if entity["geonameid"] is not None else ""
    return f"{entity['name']} ({entity['backend']}){where}"

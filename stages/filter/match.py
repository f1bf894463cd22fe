"""filter.match: scans one metadata file, or a range of its row groups, for rows whose text names remote sensing.

Sources of the lane rs3 are folders and archives of images without a text: there every image is a row that passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import ClassVar

import polars as pl

from manifests.canonical import JsonValue, canonical_digest
from manifests.ledger import count_by_source
from manifests.lexicon import Lexicon, load_lexicon
from manifests.recipe import Settings
from manifests.source_specs import spec_of
from manifests.sources import SourceSpec
from stages.filter.archive_scan import scan_archive
from stages.filter.attributes import with_attributes
from stages.filter.formats import scan_metadata
from stages.filter.held import scan_held
from stages.filter.matched_rows import MatchedRows, keyword_counts, own_terms
from stages.filter.matcher import Matcher, Mode
from stages.step import Output, Prior, Result, Step, Tables, Task


class Match(Step):
    """Keeps the rows that match the lexicon, and every image of an archive; everything else is counted or listed.

    A partition is a file, a range of a Parquet file's row groups, or a folder or archive of images; the planner hands
    source, uri, digest, first_group, end_group and the source's attributes file with its digest in ``params``.
    """

    name = "filter.match"
    kind = "map"
    VERSION = 2
    reads = ("filter.lexicon", "filter.mode", "filter.max_text_bytes", "filter.english_only")
    outputs = ("candidates",)
    keeps = "candidates"
    schemas: ClassVar[Mapping[str, str]] = {"candidates": "matched"}

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Scan the partition's rows. Raises MetadataError for a file that is not what its source publishes."""
        del prior
        source = spec_of(task.params)
        if source.subset == "rs3":
            return _match_archive(task, tables, source, None)
        lexicon = load_lexicon(task.settings.text("filter.lexicon"))
        matcher = _matcher(lexicon, _mode(task.settings), source.keywords == "all")
        if source.is_held:
            return _match_archive(task, tables, source, matcher)
        rows = MatchedRows(source, str(task.params["digest"]), task.settings)
        for scan in scan_metadata(tables.store, source, task.params, matcher, task.scratch):
            rows.add(scan)
        frame = _attributed(rows.frame(), task, tables)
        rows.check(task.params.get("rows"))
        return Result(
            outputs=[Output("candidates", frame)],
            ledger=rows.departures.frame(),
            seen={source.key: rows.seen},
            kept=count_by_source(frame),
            counted={source.key: {"filter.no_keyword": rows.unmatched}},
            facts={"keywords": keyword_counts([frame])},
        )

    def pins(self, settings: Settings, params: Mapping[str, JsonValue]) -> dict[str, str]:
        """Return the digests of the lexicon and of the source's description."""
        source = spec_of(params)
        pins = {f"source {source.key}": source.digest}
        if terms := {} if source.is_archive else own_terms(source):  # they stand in its rows
            pins[f"terms {source.key}"] = canonical_digest(terms)
        if source.subset != "rs3":
            lexicon = settings.text("filter.lexicon")
            pins[f"lexicon {lexicon}"] = load_lexicon(lexicon).digest
        return pins


def _match_archive(task: Task, tables: Tables, source: SourceSpec, matcher: Matcher | None) -> Result:
    """Take the images of a folder or archive: every one where there is no text to match."""
    uri, digest = str(task.params["uri"]), str(task.params["digest"])
    if matcher is None:
        scan = scan_archive(tables.store, source, uri, digest)
    else:
        max_text_bytes = task.settings.integer("filter.max_text_bytes")
        scan = scan_held(tables.store, source, uri, digest, matcher, max_text_bytes)
    frame = _attributed(scan.frame, task, tables)
    return Result(
        outputs=[Output("candidates", frame)],
        ledger=scan.departures.frame(),
        seen={source.key: scan.seen},
        kept=count_by_source(frame),
        counted={source.key: {"filter.no_keyword": scan.unmatched}} if scan.unmatched else {},
        facts={"keywords": keyword_counts([frame]), "ignored_members": scan.ignored},
    )


@cache
def _matcher(lexicon: Lexicon, mode: Mode, takes_all: bool) -> Matcher:
    """Return a matcher, made once a process: its engine's tables take longer than a small file."""
    return Matcher(lexicon, mode, takes_all=takes_all)


def _mode(settings: Settings) -> Mode:
    return "substring" if settings.text("filter.mode") == "substring" else "stem"


def _attributed(frame: pl.DataFrame, task: Task, tables: Tables) -> pl.DataFrame:
    told = (str(task.params.get(name) or "") for name in ("attributes", "attributes_digest"))
    return with_attributes(frame, tables.store, *told)

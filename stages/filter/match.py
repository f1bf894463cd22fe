"""filter.match: scans one metadata file, or a range of its row groups, for rows whose text names remote sensing.

Sources of the lane rs3 are folders and archives of images without a text: there every image is a row that passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import BinaryIO, ClassVar, Literal, cast
from urllib.parse import urlsplit

import polars as pl
import pyarrow.parquet as pq

from manifests.canonical import JsonValue
from manifests.identity import locator, sample_id
from manifests.ledger import Departures, count_by_source
from manifests.lexicon import load_lexicon
from manifests.recipe import Settings
from manifests.schemas import TABLES
from manifests.source_specs import spec_of
from manifests.sources import SourceSpec
from manifests.store import Store
from manifests.tables import empty_frame, to_frame
from stages.filter.archive_scan import scan_archive
from stages.filter.matcher import Matcher
from stages.filter.parquet import scan_parquet
from stages.filter.rows import MetadataError, Scan
from stages.filter.tsv import scan_tsv
from stages.filter.values import detail
from stages.step import Output, Prior, Result, Step, Tables, Task
from stages.uris import open_uri

_CARRIED = """matched source_key width height lon lat taken_at source_hash source_hash_kind similarity nsfw nsfw_label
    watermark licence extra""".split()

_ENGLISH = ("", "en", "eng", "english")


class Match(Step):
    """Keeps the rows that match the lexicon, and every image of an archive; everything else is counted or listed.

    A partition is a file, a range of a Parquet file's row groups, or a folder or archive of images; the planner hands
    source, uri, digest, first_group, end_group and the source's attributes file in ``params``.
    """

    name = "filter.match"
    kind = "map"
    VERSION = 1
    reads = ("filter.lexicon", "filter.mode", "filter.max_text_bytes", "filter.english_only")
    outputs = ("candidates",)
    keeps = "candidates"
    schemas: ClassVar[Mapping[str, str]] = {"candidates": "matched"}

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Scan the partition's rows. Raises MetadataError for a file that is not what its source publishes."""
        del prior
        source = spec_of(task.params)
        if source.is_archive:
            return _match_archive(task, tables, source)
        rows = _Rows(source, str(task.params["digest"]), task.settings)
        lexicon = load_lexicon(task.settings.text("filter.lexicon"))
        matcher = Matcher(lexicon, _mode(task.settings), takes_all=source.keywords == "all")
        with open_uri(tables.store, str(task.params["uri"])) as file:
            for scan in _scans(file, source, task.params, matcher):
                rows.add(scan)
        frame = _with_attributes(rows.frame(), tables.store, str(task.params.get("attributes") or ""))
        rows.check(task.params.get("rows"))
        return Result(
            outputs=[Output("candidates", frame)],
            ledger=rows.departures.frame(),
            seen={source.key: rows.seen},
            kept=count_by_source(frame),
            counted={source.key: {"filter.no_keyword": rows.unmatched}},
            facts={"keywords": rows.keywords()},
        )

    def pins(self, settings: Settings, params: Mapping[str, JsonValue]) -> dict[str, str]:
        """Return the digests of the lexicon and of the source's description."""
        source = spec_of(params)
        pins = {f"source {source.key}": source.digest}
        if not source.is_archive:
            lexicon = settings.text("filter.lexicon")
            pins[f"lexicon {lexicon}"] = load_lexicon(lexicon).digest
        return pins


def _match_archive(task: Task, tables: Tables, source: SourceSpec) -> Result:
    """Take every image of a folder or archive: there is no text to match."""
    scan = scan_archive(tables.store, source, str(task.params["uri"]), str(task.params["digest"]))
    frame = _with_attributes(scan.frame, tables.store, str(task.params.get("attributes") or ""))
    return Result(
        outputs=[Output("candidates", frame)],
        ledger=scan.departures.frame(),
        seen={source.key: scan.seen},
        kept=count_by_source(frame),
        facts={"keywords": {}, "ignored_members": scan.ignored},
    )


def _mode(settings: Settings) -> Literal["stem", "substring"]:
    return "substring" if settings.text("filter.mode") == "substring" else "stem"


def _scans(file: BinaryIO, source: SourceSpec, params: Mapping[str, JsonValue], matcher: Matcher) -> Iterator[Scan]:
    if source.format == "parquet":
        return scan_parquet(file, source, cast("int", params["first_group"]), cast("int", params["end_group"]), matcher)
    return scan_tsv(file, source, matcher)


class _Rows:
    """The matched rows of one partition and the ledger rows beside them."""

    def __init__(self, source: SourceSpec, digest: str, settings: Settings) -> None:
        self._source = source
        self._digest = digest
        self._max_text_bytes = settings.integer("filter.max_text_bytes")
        self._english_only = settings.flag("filter.english_only")
        self._kept: list[dict[str, object]] = []
        self.seen = 0
        self.unmatched = 0
        self.departures = Departures("filter.match")

    def add(self, scan: Scan) -> None:
        self.seen += scan.rows_seen
        self.unmatched += scan.rows_seen - scan.hits.num_rows - len(scan.bad)
        for row, why in scan.bad:
            self._leave("", row, "filter.bad_row", detail=why)
        for hit in scan.hits.to_pylist():
            self._hit(hit)

    def _hit(self, hit: dict[str, object]) -> None:
        url, texts = cast("str | None", hit["url"]) or "", cast("list[str]", hit["texts"])
        key, row = cast("str | None", hit["source_key"]), cast("int", hit["row"])
        identity = sample_id(self._source.key, key, url, texts)
        text_bytes = len(cast("str", hit["text"]).encode("utf-8"))
        if not url.strip():
            self._leave(identity, row, "filter.no_url")
        elif not _is_url(url):
            self._leave(identity, row, "filter.bad_url", url=url)
        elif text_bytes > self._max_text_bytes:
            self._leave(identity, row, "filter.text_too_long", url=url, value=text_bytes, cut=self._max_text_bytes)
        elif self._english_only and not _is_english(language := cast("str | None", hit["language"])):
            self._leave(identity, row, "filter.not_english", url=url, detail=detail(str(language)))
        else:
            named = {"sample_id": identity, "locator": locator(self._digest, row), "url": url, "text": hit["text"]}
            self._kept.append({**named, **{name: hit[name] for name in _CARRIED}})

    def _leave(self, identity: str, row: int, reason: str, **evidence: str | float | None) -> None:
        self.departures.add(self._source.key, identity, reason, locator=locator(self._digest, row), **evidence)

    def check(self, rows: object) -> None:
        """Compare the rows scanned with those the file's footer declares, where there is one."""
        if rows is not None and rows != self.seen:
            raise MetadataError(f"{self._source.key}: {self.seen} rows were read, the file declares {rows}")

    def frame(self) -> pl.DataFrame:
        schema = empty_frame(TABLES["matched"]).schema
        constant = {"source": self._source.key, "subset": self._source.subset}
        columns = {name: [constant.get(name, row.get(name)) for row in self._kept] for name in schema}
        return pl.DataFrame(columns, schema=schema)

    def keywords(self) -> dict[str, JsonValue]:
        """Return how many kept rows each keyword matched."""
        counts: dict[str, int] = {}
        for row in self._kept:
            for keyword in cast("list[str]", row["matched"]):
                counts[keyword] = counts.get(keyword, 0) + 1
        return dict(sorted(counts.items()))


def _is_english(language: str | None) -> bool:
    """Tell whether a row's language is English; a row that names none is."""
    return language is None or language.strip().lower().replace("_", "-").split("-")[0] in _ENGLISH


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.scheme and parts.hostname)
    except ValueError:
        return False


def _with_attributes(frame: pl.DataFrame, store: Store, uri: str) -> pl.DataFrame:
    """Fill licence, credit and group from the source's attributes file, keyed by url; the first row of a url counts."""
    if not uri or not frame.height:
        return frame
    with open_uri(store, uri) as file:
        table = pq.read_table(file)
    names = [name for name in ("licence", "credit", "group") if name in table.column_names]
    known = to_frame(table.select(["url", *names])).unique("url", keep="first", maintain_order=True)
    joined = frame.join(known, on="url", how="left", suffix="_given", maintain_order="left")
    filled = [pl.coalesce(f"{name}_given", name).alias(name) for name in names]
    return joined.with_columns(filled).select(frame.columns)

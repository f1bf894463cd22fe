"""The rows of one partition that matched: those that stay, with their ids, and the ledger of those that leave."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from urllib.parse import urlsplit

import polars as pl

from manifests.canonical import JsonValue
from manifests.identity import locator, sample_id
from manifests.ledger import Departures
from manifests.recipe import Settings
from manifests.schemas import TABLES
from manifests.sources import SourceSpec
from manifests.tables import empty_frame, to_frame
from stages.filter.rows import MetadataError, Scan
from stages.filter.values import detail

# What nearly all urls look like; any other is parsed.
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.-]*[A-Za-z0-9][A-Za-z0-9.-]*(?:/|$)")
_MANY_BAD_ROWS = 1_000
_ENGLISH = ("", "en", "eng", "english")


class MatchedRows:
    """Collects the scans of a partition.

    Args:
        source: The source they are of.
        digest: The file's.
        settings: ``filter.max_text_bytes`` and ``filter.english_only``.

    Attributes:
        seen: Rows of the file.
        unmatched: Those without a keyword.
        departures: The rows that matched and leave, and those that cannot be read.
    """

    def __init__(self, source: SourceSpec, digest: str, settings: Settings) -> None:
        self._source = source
        self._digest = digest
        self._max_text_bytes = settings.integer("filter.max_text_bytes")
        self._english_only = settings.flag("filter.english_only")
        self._kept: list[pl.DataFrame] = []
        self._terms = own_terms(source)
        self._bad = 0
        self.seen = 0
        self.unmatched = 0
        self.departures = Departures("filter.match")

    def add(self, scan: Scan) -> None:
        """Add a piece of the file.

        Raises:
            MetadataError: Most rows cannot be read, and they are many: the file is another one than its source's.
        """
        self.seen += scan.rows_seen
        self._bad += len(scan.bad)
        if self._bad > _MANY_BAD_ROWS and 2 * self._bad > self.seen:
            why = scan.bad[-1][1] if scan.bad else "see those before"
            raise MetadataError(
                f"{self._source.key}: {self._bad} of the first {self.seen} rows cannot be read, the last: {why}; "
                "check that the file belongs to this source, or fetch it again"
            )
        self.unmatched += scan.rows_seen - scan.hits.num_rows - len(scan.bad)
        for row, why in scan.bad:
            self.departures.add(self._source.key, "", "filter.bad_row", locator=locator(self._digest, row), detail=why)
        if scan.hits.num_rows:
            self._kept.append(self._stay(to_frame(scan.hits)))

    def _stay(self, hits: pl.DataFrame) -> pl.DataFrame:
        """Return the rows that stay, in the shape of table ``matched``; the others go to the ledger."""
        ids, places, stay = [], [], []
        said = hits.select(
            "row", "source_key", pl.col("url").fill_null(""), "texts", pl.col("text").str.len_bytes(), "language"
        )
        for row, key, url, texts, text_bytes, language in said.iter_rows():
            ids.append(sample_id(self._source.key, key, url, texts))
            places.append(locator(self._digest, row))
            stay.append(self._stays(ids[-1], places[-1], url, text_bytes, language))
        constants = {"source": self._source.key, "subset": self._source.subset}
        found = hits.with_columns(
            pl.Series("sample_id", ids, pl.String),
            pl.Series("locator", places, pl.String),
            **{name: pl.lit(value) for name, value in constants.items()},
            **{name: pl.col(name).fill_null(pl.lit(value)) for name, value in self._terms.items()},
        )
        wanted = empty_frame(TABLES["matched"]).schema
        return found.filter(pl.Series(stay, dtype=pl.Boolean)).select(
            pl.col(name).cast(kind) if name in found.columns else pl.lit(None, kind).alias(name)
            for name, kind in wanted.items()
        )

    def _stays(self, identity: str, place: str, url: str, text_bytes: int, language: str | None) -> bool:
        """Say whether a row stays; one that leaves goes to the ledger."""
        evidence: dict[str, str | float | None] = {"url": url}
        if not url.strip():
            reason, evidence = "filter.no_url", {}
        elif not is_url(url):
            reason = "filter.bad_url"
        elif text_bytes > self._max_text_bytes:
            reason, evidence = "filter.text_too_long", {"url": url, "value": text_bytes, "cut": self._max_text_bytes}
        elif self._english_only and not is_english(language):
            reason, evidence = "filter.not_english", {"url": url, "detail": detail(str(language))}
        else:
            return True
        self.departures.add(self._source.key, identity, reason, locator=place, **evidence)
        return False

    def check(self, rows: object) -> None:
        """Compare the rows scanned with those the file's footer declares, where there is one.

        Raises:
            MetadataError: They differ.
        """
        if rows is not None and rows != self.seen:
            raise MetadataError(f"{self._source.key}: {self.seen} rows were read, the file declares {rows}")

    def frame(self) -> pl.DataFrame:
        """Return the rows that stay."""
        return pl.concat([empty_frame(TABLES["matched"]), *self._kept])


def own_terms(source: SourceSpec) -> dict[str, str]:
    """Return licence and credit that a recipe names for a source of its own: they are those of all its rows.

    Those of a source that the project describes are of its metadata, and say nothing of an image.
    """
    if not source.own:
        return {}
    licence = "" if source.licence == "unknown" else source.licence
    return {name: said for name, said in (("licence", licence), ("credit", source.credit)) if said}


def keyword_counts(frames: Iterable[pl.DataFrame]) -> dict[str, JsonValue]:
    """Return how many rows each keyword matched, of tables with a column ``matched``."""
    counts = Counter(keyword for frame in frames for keyword in frame["matched"].explode().drop_nulls())
    return dict[str, JsonValue](sorted(counts.items()))


def is_english(language: str | None) -> bool:
    """Tell whether a row's language is English; a row that names none is."""
    return language is None or language.strip().lower().replace("_", "-").split("-")[0] in _ENGLISH


def is_url(url: str) -> bool:
    """Tell whether a url can be asked for: http or https, and a host."""
    if _PLAIN_URL.match(url):
        return True
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False

"""The same bytes from many unrelated urls: the picture that sites serve in place of one that is gone.

Duplicate removal keeps one of equal pictures, whatever they show; that one of them is "image removed" can only be told
where all rows that got it stand side by side.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import cast

import polars as pl

from manifests.canonical import JsonValue

LEAST = 10
"""Distinct urls, and distinct captions, over all partitions, from which a report calls a body a placeholder."""

LEAST_LISTED = 3
"""Distinct urls, and distinct captions, from which one partition speaks of a body.

A host's rows are mostly in one partition, so what falls below here is rare elsewhere too.
"""

MOST_LISTED = 100
"""Bodies that one partition lists."""

_NOTHING = hashlib.sha256(b"").hexdigest()


def placeholders(rows: pl.DataFrame) -> list[dict[str, JsonValue]]:
    """List bodies that came for many unrelated rows of a partition.

    Rows are unrelated where both url and caption are others. Scheme, query and fragment of a url do not count (one
    picture is linked with many of them), nor the case of its host. A syndicated picture stands at many urls as well,
    but it keeps its caption, while what stands in for other pictures meets the caption of each: hence both counts.
    Captions that differ in case and white space alone are one, and blank ones none. An empty body is no picture.

    Args:
        rows: sha256 string (of the body), url string, text string; one a row that got a body.

    Returns:
        At most `MOST_LISTED` of sha256, urls (distinct), texts (distinct), both at least `LEAST_LISTED`; most urls
        first, then by sha256.
    """
    bare = pl.col("url").str.replace("^[A-Za-z][A-Za-z0-9+.-]*://", "").str.replace("(?s)[?#].*$", "")
    host = bare.str.extract("^([^/]*)").str.to_lowercase()
    caption = pl.col("text").str.replace_all(r"\s+", " ").str.strip_chars().str.to_lowercase()
    found = (
        rows.filter(pl.col("sha256") != _NOTHING)
        .select("sha256", url=host + bare.str.replace("^[^/]*", ""), text=caption)
        .group_by("sha256")
        .agg(urls=pl.col("url").n_unique(), texts=pl.col("text").filter(pl.col("text") != "").n_unique())
        .filter(pl.col("urls") >= LEAST_LISTED, pl.col("texts") >= LEAST_LISTED)
        .sort("urls", "sha256", descending=[True, False])
        .head(MOST_LISTED)
    )
    return cast("list[dict[str, JsonValue]]", found.to_dicts())


def merged(lists: Iterable[Iterable[Mapping[str, JsonValue]]]) -> list[dict[str, JsonValue]]:
    """Sum the lists of all partitions.

    A url is in one partition only, but for another query of it on a host that is spread; a caption may be in several
    and then counts once in each.

    Args:
        lists: What `placeholders` returned for each partition.

    Returns:
        Those with at least `LEAST` urls and `LEAST` captions; most urls first, then by sha256.
    """
    urls: Counter[str] = Counter()
    texts: Counter[str] = Counter()
    for listed in lists:
        for one in listed:
            sha256 = str(one["sha256"])
            urls[sha256] += cast("int", one["urls"])
            texts[sha256] += cast("int", one["texts"])
    called = [sha256 for sha256, count in urls.items() if min(count, texts[sha256]) >= LEAST]
    return [
        {"sha256": sha256, "urls": urls[sha256], "texts": texts[sha256]}
        for sha256 in sorted(called, key=lambda sha256: (-urls[sha256], sha256))
    ]

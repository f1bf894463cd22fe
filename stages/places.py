"""Which partition a row belongs to: a web row by its host, a row of an archive by its place in the archive.

All that concerns a host happens in one process; parts of an archive hold neighbours, which are read together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal
from urllib.parse import urlsplit

from manifests.identity import bucket

Lane = Literal["pub11", "rs3"]

_WEB = "web"
_HELD = "held-"


def host_of(url: str) -> str:
    """Return the host of a url in lower case; empty if it has none."""
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def bucket_of(url: str, host: str, buckets: int, spread: frozenset[str]) -> int:
    """Return the bucket of a row: of its host, or of its url where the host is too large for one bucket.

    Args:
        url: The url.
        host: Its host, as `host_of` gives it.
        buckets: How many there are.
        spread: Hosts whose rows are spread by url.
    """
    return bucket(url, buckets) if host in spread else bucket(host, buckets)


def web_partition(number: int) -> str:
    """Return the name of a bucket's partition."""
    return f"{_WEB}-{number:04d}"


def archive_partition(source: str, number: int, subset: str = "rs3") -> str:
    """Return the name of a part of a source's archives, counted from 0 in the order of its rows' urls.

    Args:
        source: The source.
        number: Which part.
        subset: The subset that its images belong to. Those of pub11 are web images that someone already holds: they
            walk the lane of the web, which the name says.
    """
    return f"{'' if subset == 'rs3' else _HELD}{source}-{number:04d}"


def archive_source(partition: str) -> str | None:
    """Return the source whose archives a pooled partition is a part of; None for every other partition."""
    source, _, number = partition.rpartition("-")
    if not number.isdigit() or source == _WEB:
        return None
    source = source.removeprefix(_HELD)
    return source if source.isidentifier() else None


def is_archive(partition: str) -> bool:
    """Tell whether a pooled partition is a part of an archive: its images are read, not fetched."""
    return archive_source(partition) is not None


def lane(partition: str) -> Lane:
    """Return the lane that a pooled partition walks."""
    return "rs3" if is_archive(partition) and not partition.startswith(_HELD) else "pub11"


def partitions_of(urls: Iterable[str], buckets: int, spread: frozenset[str]) -> set[str]:
    """Return the partitions that hold web ``urls`` under a layout of ``buckets`` and ``spread`` hosts."""
    return {web_partition(bucket_of(url, host_of(url), buckets, spread)) for url in urls}

"""Which partition a web row belongs to: by its host, so that all that concerns a host happens in one process."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from manifests.identity import bucket


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
    return f"web-{number:04d}"


def partitions_of(urls: Iterable[str], buckets: int, spread: frozenset[str]) -> set[str]:
    """Return the partitions that hold ``urls`` under a layout of ``buckets`` and ``spread`` hosts."""
    return {web_partition(bucket_of(url, host_of(url), buckets, spread)) for url in urls}

"""What the downloader is told, and what it says about one url."""

from collections.abc import Mapping
from dataclasses import dataclass

TRANSIENT = frozenset(
    "download." + name
    for name in ("timeout", "refused", "reset", "dns_temporary", "http_429", "http_5xx", "short_body")
)
"""Reasons worth another attempt: the same url may well answer a moment later."""

ROBOT = "rs5m-build"
"""The product token: what robots.txt and X-Robots-Tag call us, and how the User-Agent begins (RFC 9309, 2.2.1)."""

EMPTY = "empty"
"""Media type of a 2xx answer without a body: downloaded, as the paper counts it, and then invalid."""

DETAIL_BYTES = 200


@dataclass(frozen=True, slots=True)
class Consent:
    """Which refusals of site owners are heeded.

    Attributes:
        robots: robots.txt of every host that is asked, redirect targets included (RFC 9309).
        headers: ``X-Robots-Tag`` of the answer and of the redirects that led to it.
        tdm: ``tdm-reservation`` of these (TDM Reservation Protocol).
    """

    robots: bool
    headers: bool
    tdm: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """What is taken: these settings decide about rows, so they belong to the fingerprint.

    Attributes:
        max_bytes: Largest body taken, counted after any content encoding is undone.
        media: Media types taken, from jpeg, png, webp, gif, bmp, tiff.
        max_redirects: How many redirects of one url are followed.
        allow_private: Whether addresses that are not public may be dialled; for worlds on loopback only.
        consent: Whose refusals are heeded.
    """

    max_bytes: int
    media: frozenset[str]
    max_redirects: int
    allow_private: bool
    consent: Consent = Consent(robots=True, headers=True, tdm=True)


@dataclass(frozen=True, slots=True)
class Network:
    """How the web is asked: speed and patience, never part of a result.

    Attributes:
        connections: Requests under way at a time.
        per_host: Requests under way at a time to one host.
        connect_s: Longest wait for a name to resolve, and again for a connection including TLS.
        read_s: Longest wait for the next bytes.
        total_s: Longest time one attempt at an image may hold a connection, redirects included.
        attempts: How often a url is tried before a transient failure stands.
        backoff_s: Pause before the second attempt; it doubles with each further one.
        resolve: Host name, or suffix with a leading dot, to `address`, `address:port`, or "" for a name
            that does not exist. The longest match wins; other names are looked up.
        user_agent: Sent with every request.
        spacing_s: Least time between the starts of two requests to one host.
        crawl_delay_max_s: Up to how much a Crawl-delay of robots.txt is kept, over `spacing_s`.
        nameservers: Addresses, with a port or without, to ask for names; empty: those this machine is set to.
    """

    connections: int
    per_host: int
    connect_s: float
    read_s: float
    total_s: float
    attempts: int
    backoff_s: float
    resolve: Mapping[str, str]
    user_agent: str
    spacing_s: float = 0.0
    crawl_delay_max_s: float = 0.0
    nameservers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What one url came to.

    Attributes:
        url: The url as the caller wrote it.
        reason: None when a body was accepted, else the reason of the closed list ("download.http_404").
        body: The bytes as received, content encoding undone; empty unless accepted.
        media_type: jpeg, png, webp, gif, bmp or tiff, told from the bytes; "empty" for a body of none.
        http_status: Status of the last response, None when none came.
        final_url: Where the body came from, only when redirects led elsewhere. Holds no credentials.
        content_type: The header as sent, shortened to 200 bytes.
        etag: The header as sent, shortened to 200 bytes.
        value: What was measured where a cut decided: bytes for too_large, redirects for too_many_redirects.
        cut: The bound that `value` exceeded.
        detail: A few more words, at most 200 bytes, free of clock, attempt and port.
    """

    url: str
    reason: str | None
    body: bytes = b""
    media_type: str = ""
    http_status: int | None = None
    final_url: str | None = None
    content_type: str | None = None
    etag: str | None = None
    value: float | None = None
    cut: float | None = None
    detail: str | None = None


def shorten(text: str) -> str:
    """Make foreign text safe to store: valid UTF-8, printable, at most 200 bytes.

    Args:
        text: Text from a header or an error; may hold surrogates and control characters.

    Returns:
        The text with every unprintable character replaced by "?".
    """
    if text.isascii() and text.isprintable():
        return text[:DETAIL_BYTES]
    clean = "".join(ch if ch.isprintable() else "?" for ch in text[:DETAIL_BYTES])
    return clean.encode("utf-8", "replace")[:DETAIL_BYTES].decode("utf-8", "ignore")

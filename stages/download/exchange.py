"""One request and its answer: no redirect followed, nothing retried, never more than the limits read."""

import asyncio
import email.utils
import zlib
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import hdrs
from yarl import URL

from stages.download.answers import EMPTY, Answer, Consent, Limits, shorten
from stages.download.consent import refusal
from stages.download.failures import NETWORK_ERRORS, reason_for
from stages.download.media import HEAD_BYTES, describe, sniff
from stages.download.watch import Timing, Watch

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DRAIN_BYTES = 16384
_PACKING_BYTES = 65536  # a compressed body may be larger than what it holds, but not for ever
_DRAIN_S = 1.0
_INFLATE = {"gzip": 47, "x-gzip": 47, "deflate": 47}  # zlib: 32 + 15, gzip or zlib told by the header


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one request came to.

    Attributes:
        answer: As for the whole url, were this its last request.
        location: Where a redirect leads that refuses nothing, None for every other answer.
        retry_after_s: How long a 429 or 5xx asked to be left alone, None when it did not say.
    """

    answer: Answer
    location: str | None = None
    retry_after_s: float | None = None


class _RefusedError(Exception):
    """The body will not be taken; carries the fields of the answer that say why."""

    def __init__(self, reason: str, detail: str, value: float | None = None, cut: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail
        self.value = value
        self.cut = cut


async def exchange(
    session: aiohttp.ClientSession,
    url: str,
    at: URL,
    limits: Limits,
    *,
    keep: bool,
    watch: Watch,
    timing: Timing,
    time_s: float,
) -> Outcome:
    """Ask one server for one url.

    Args:
        session: Guarded, without cookies, redirects or decompression of its own.
        url: What the caller calls this image.
        at: What to ask for; differs from `url` after a redirect.
        limits: What is taken.
        keep: Whether the connection will be used again.
        watch: Keeps the deadlines.
        timing: This request's.
        time_s: Longest time until the answer is complete.

    Returns:
        What came of it; a failure of the network is an answer with its reason.

    Raises:
        OSError: This machine ran out of file handles or memory.
    """
    headers = None if keep else {hdrs.CONNECTION: "close"}
    heading: dict[str, Any] = {}
    try:
        with watch.asking(timing, max(0.0, time_s)):
            async with session.get(at, headers=headers, allow_redirects=False) as response:
                timing.heard_s = timing.clock()
                heading = _heading(response)
                if 200 <= response.status < 300:
                    body, media = await _read(response, limits, timing)
                    return Outcome(Answer(url, None, body, media, **heading))
                outcome = _without_image(url, heading, response, limits.consent)
                if keep:
                    await drain(response)
                return outcome
    except _RefusedError as no:
        detail = shorten(no.detail)
        return Outcome(Answer(url, no.reason, detail=detail, value=no.value, cut=no.cut, **heading))
    except NETWORK_ERRORS as error:
        reason, words = reason_for(error)
        return Outcome(Answer(url, reason, detail=shorten(words), **heading))


def _heading(response: aiohttp.ClientResponse) -> dict[str, Any]:
    content_type, etag = response.headers.get(hdrs.CONTENT_TYPE), response.headers.get(hdrs.ETAG)
    return {
        "http_status": response.status,
        "content_type": None if content_type is None else shorten(content_type),
        "etag": None if etag is None else shorten(etag),
    }


def _without_image(url: str, heading: dict[str, Any], response: aiohttp.ClientResponse, consent: Consent) -> Outcome:
    """Classify every status but 2xx. What is none of the known ones (304, 999) is final, like a 4xx."""
    status = response.status
    location = response.headers.get(hdrs.LOCATION)
    if status in _REDIRECTS and location:
        if (no := refusal(response.headers, consent)) is not None:
            return Outcome(Answer(url, "download.opt_out", detail=no, **heading))
        return Outcome(Answer(url, None, **heading), location=location)
    if status in (403, 404, 410, 429):
        reason = f"download.http_{status}"
    else:
        reason = "download.http_5xx" if 500 <= status < 600 else "download.http_4xx"
    pause_s = _retry_after_s(response) if status == 429 or status >= 500 else None
    return Outcome(Answer(url, reason, detail=f"HTTP status {status}", **heading), retry_after_s=pause_s)


def _retry_after_s(response: aiohttp.ClientResponse) -> float | None:
    """Read Retry-After: seconds, or a date that is measured against the server's own clock (RFC 9110, 10.2.3)."""
    text = response.headers.get(hdrs.RETRY_AFTER, "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        until = email.utils.parsedate_to_datetime(text)
        now = email.utils.parsedate_to_datetime(response.headers.get(hdrs.DATE, ""))
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError):  # TypeError: one date with a zone and one without
        return None


async def _read(response: aiohttp.ClientResponse, limits: Limits, timing: Timing) -> tuple[bytes, str]:
    """Read a body and its media type, up to the limit; stop as soon as it cannot be an image that is taken."""
    if (no := refusal(response.headers, limits.consent)) is not None:
        raise _RefusedError("download.opt_out", no)
    if response.status == 206:
        raise _RefusedError("download.short_body", "a part was sent although the whole was asked for")
    declared = response.content_length
    if declared is not None and declared > limits.max_bytes:
        raise _RefusedError("download.too_large", "by Content-Length", float(declared), float(limits.max_bytes))
    inflate = _inflater(response)
    chunks: list[bytes] = []
    received = size = 0
    media = ""
    while raw := await response.content.readany():
        timing.heard_s = timing.clock()
        chunk = raw if inflate is None else _inflate(inflate, raw, limits.max_bytes - size + 1)
        received += len(raw)
        size += len(chunk)
        if size > limits.max_bytes or received > limits.max_bytes + _PACKING_BYTES:
            # The exact count depends on how the network cut the body, so the smallest that is too much stands.
            over = float(limits.max_bytes + 1)
            raise _RefusedError("download.too_large", "the rest was not read", over, float(limits.max_bytes))
        chunks.append(chunk)
        if not media and size >= HEAD_BYTES:
            media = _judge(chunk if len(chunks) == 1 else b"".join(chunks), limits)
        if inflate is not None and inflate.eof:
            break  # what follows the end of the compressed body is not ours, and zlib would keep all of it
    if inflate is not None and received and not inflate.eof:
        raise _RefusedError("download.short_body", "the compressed body ended early")
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    return body, media or _judge(body, limits)


def _judge(body: bytes, limits: Limits) -> str:
    """Name the media type of a body or of its beginning, or refuse it."""
    if not body:
        return EMPTY
    media = sniff(body)
    if media is None:
        raise _RefusedError("download.not_image", f"the body is {describe(body)}")
    if media not in limits.media:
        raise _RefusedError("download.not_image", f"{media} is not in download.media")
    return media


def _inflater(response: aiohttp.ClientResponse) -> "zlib._Decompress | None":
    """A decompressor for servers that compress although they were asked not to."""
    encoding = response.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower()
    if encoding in ("", "identity", "none"):
        return None
    if encoding not in _INFLATE:
        raise _RefusedError("download.not_image", f"content encoding {encoding!r} was not asked for")
    return zlib.decompressobj(_INFLATE[encoding])


def _inflate(inflate: "zlib._Decompress", raw: bytes, room: int) -> bytes:
    """Decompress at most `room` bytes: a bomb costs no more memory than the limit."""
    try:
        return inflate.decompress(raw, room)
    except zlib.error as error:
        raise _RefusedError("download.not_image", "the body is not compressed as its header says") from error


async def drain(response: aiohttp.ClientResponse) -> None:
    """Read the rest of a small error page, because a connection with unread bytes cannot be used again."""
    if (response.content_length or 0) > _DRAIN_BYTES:
        return
    seen = 0
    try:
        async with asyncio.timeout(_DRAIN_S):
            while chunk := await response.content.readany():
                seen += len(chunk)
                if seen > _DRAIN_BYTES:
                    return
    except NETWORK_ERRORS:
        return

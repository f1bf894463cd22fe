"""The other engine: img2dataset's own downloader asks the web, and what it says is put into our closed list of reasons.

The library's `Downloader` does the fetching as it always does: its threads, its urllib, its retries. Nothing is decoded
or encoded again: the bytes are those of the server.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from manifests.canonical import JsonValue
from manifests.identity import draw
from stages.download.addresses import refusal
from stages.download.answers import EMPTY, Answer, Limits, Network, shorten
from stages.download.img2dataset_process import Img2datasetError, Row, rows
from stages.download.img2dataset_words import reason_of
from stages.download.media import describe, sniff
from stages.download.targets import parse_target

LACKS: tuple[str, ...] = (
    "addresses: of a url only a literal address is checked; names and redirects may lead to private ones",
    "robots.txt and TDMRep are not read; X-Robots-Tag only where a body comes with it",
    "User-Agent: it calls itself Firefox, then our name and img2dataset's page; download.contact is not sent",
    "size: a body is read whole into memory before download.max_bytes is applied",
    "time: each wait is bound by read_s, a whole answer is not: one that drips holds its thread while others go on",
    "hosts: no limit per host, no spacing, no back-off, no Retry-After, no circuit breaker, no connection kept open",
    "retries: whatever fails is asked again at once, 404 and X-Robots-Tag too",
    "redirects: up to 10 whatever download.max_redirects says, ftp among them; where they led is not recorded",
    "proxies of the environment are used, and the system's resolver, not download.network.nameservers",
    "answers: a 206 counts as whole, 2xx is recorded as 200, bodies sent compressed are refused, no headers are kept",
)
"""What the native engine does and this one does not, a line each, as img2dataset 1.47.0 is written."""


def engine_facts() -> dict[str, JsonValue]:
    """Return what a manifest says of the engine: name, version, and what it lacks."""
    return {"name": "img2dataset", "version": version("img2dataset"), "lacks": list[JsonValue](LACKS)}


def require(network: Network) -> None:
    """Check that the engine can be used; imports nothing heavy.

    Args:
        network: How the web is asked.

    Raises:
        Img2datasetError: The package is not installed, or `network.resolve` is set, which urllib cannot honour.
    """
    if network.resolve:
        raise Img2datasetError(
            "download.network.resolve (a world on loopback) needs the native engine: "
            'img2dataset asks the system for names; set download.engine = "native"'
        )
    if importlib.util.find_spec("img2dataset") is None:
        raise Img2datasetError(
            "download.engine is img2dataset, which is not installed: pip install 'rs5m-build[img2dataset]'"
        )


def fetch_with_img2dataset(
    urls: Sequence[str],
    limits: Limits,
    network: Network,
    scratch: Path,
    deliver: Callable[[Answer], None],
    budget_s: float,
) -> None:
    """Fetch each url through img2dataset and answer for it once, unless the time is up before.

    Its rows become the answers that the native engine gives on a plain server: the same reasons, the same bytes.
    What it lacks beside that engine is in LACKS. The library runs in a process of its own, which is ended when the
    budget is.

    Args:
        urls: Distinct urls, in any spelling; a repeated one is answered once.
        limits: What is taken. Of `consent`, only `headers` can be kept; `max_redirects` cannot.
        network: How the web is asked: connections (its threads), attempts, and the lesser of read_s and total_s.
            Urls whose answer hangs for longer than total_s times attempts are given up together.
        scratch: A local folder; holds the list of a shard while it is asked for.
        deliver: Called in this thread as answers come, in no particular order. The body is not kept here afterwards.
        budget_s: How long to go on asking.

    Raises:
        Img2datasetError: As `require`, or the package does not import.
        OSError: This machine ran out of file handles, or the library's process ended by itself, of memory for one.
        Exception: Whatever `deliver` raised; nothing more is delivered then.
    """
    require(network)
    ends_s = time.monotonic() + budget_s
    spellings: dict[str, str] = {}
    for url in dict.fromkeys(urls):
        target = _target(url, limits)
        if isinstance(target, Answer):
            deliver(target)
        else:
            spellings[url] = target
    # The library asks in the order given, and a list sorted by host would meet each host with every thread at once.
    spread = {url: spellings[url] for url in sorted(spellings, key=lambda url: (draw("img2dataset", url), url))}
    for row in rows(spread, limits, network, scratch, ends_s):
        deliver(_answer(row, limits))


def _target(url: str, limits: Limits) -> str | Answer:
    """Return what to ask for, spelled as the native engine spells it, or the refusal of what may not be asked."""
    try:
        target = parse_target(url)
    except ValueError as error:
        return Answer(url, "download.bad_scheme", detail=shorten(str(error)))
    host = target.raw_host or ""
    literal = ":" in host or host.replace(".", "").isdigit()
    words = refusal(host) if literal and not limits.allow_private else None
    if words is not None:
        return Answer(url, "download.private_address", detail=shorten(f"{host} is {words}"))
    return str(target)


def _answer(row: Row, limits: Limits) -> Answer:
    if row.error is None and row.body is not None:
        return _judged(Answer(row.url, None, http_status=200), row.body, limits)
    reason, status, words = reason_of(row.error or "")
    return Answer(row.url, reason, http_status=status, detail=shorten(words))


def _judged(answer: Answer, body: bytes, limits: Limits) -> Answer:
    """Judge a body as the native engine does, after the fact."""
    if not body:
        return replace(answer, media_type=EMPTY)
    if len(body) > limits.max_bytes:
        size, cut = float(len(body)), float(limits.max_bytes)
        return replace(answer, reason="download.too_large", value=size, cut=cut, detail="measured when it was read")
    media = sniff(body)
    if media is None:
        return replace(answer, reason="download.not_image", detail=f"the body is {describe(body)}")
    if media not in limits.media:
        return replace(answer, reason="download.not_image", detail=f"{media} is not in download.media")
    return replace(answer, body=body, media_type=media)

"""Asks for the urls of a partition: the web by either engine, or the archives that hold the images."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

from manifests.canonical import JsonValue
from manifests.recipe import Settings
from manifests.source_specs import spec_of
from manifests.store import Store
from stages.download.answers import ROBOT, Answer, Consent, Limits, Network
from stages.download.client import fetch_all
from stages.download.img2dataset_engine import fetch_with_img2dataset
from stages.download.meter import Meter
from stages.download.render import take_from_archives
from stages.step import Task

CONSENT = ("robots", "headers", "tdm")
NETWORK = (
    "connections per_host connect_s read_s total_s attempts backoff_s spacing_s crawl_delay_max_s nameservers resolve"
).split()
NATIVE = "native"

_USER_AGENT = f"{ROBOT}/0.1"
# A partition that runs into its deadline is killed and loses what it fetched: asking ends before that.
_DEADLINE_SHARE = 0.8


def ask(task: Task, store: Store, urls: list[str], deliver: Callable[[Answer], None]) -> None:
    """Ask for each url once and deliver each answer once, until there are no more or the partition's time is up.

    Args:
        task: Its settings say how; its ``params`` name the archives where images are read instead.
        store: Where archives lie.
        urls: Distinct.
        deliver: Called as answers come.

    Raises:
        ModelMissingError: The engine cannot be used here.
        OSError: This machine, not the web, is at fault.
    """
    if not urls:
        return
    settings = task.settings
    budget_s, limits = settings.number("run.partition_deadline_s") * _DEADLINE_SHARE, limits_of(settings)
    if "archives" in task.params:
        archives = [str(uri) for uri in cast("list[JsonValue]", task.params["archives"])]
        for answer in take_from_archives(store, spec_of(task.params), archives, urls, limits, budget_s):
            deliver(answer)
        return
    meter = Meter(len(urls), task.post, time.monotonic)
    try:
        if settings.text("download.engine") == NATIVE:
            asyncio.run(_within(urls, limits, network_of(settings), deliver, meter, budget_s))
        else:
            network, scratch = network_of(settings), task.scratch
            fetch_with_img2dataset(urls, limits, network, scratch, _counting(deliver, meter), budget_s)
    finally:
        meter.close()


def limits_of(settings: Settings) -> Limits:
    """Return what is taken."""
    return Limits(
        max_bytes=settings.integer("download.max_bytes"),
        media=frozenset(settings.texts("download.media")),
        max_redirects=settings.integer("download.max_redirects"),
        allow_private=settings.flag("download.allow_private"),
        consent=consent_of(settings),
    )


def consent_of(settings: Settings) -> Consent:
    """Return which refusals are heeded."""
    return Consent(**{name: settings.flag(f"download.consent.{name}") for name in CONSENT})


def network_of(settings: Settings) -> Network:
    """Return how the web is asked."""
    contact = settings.text("download.contact")
    return Network(
        connections=settings.integer("download.network.connections"),
        per_host=settings.integer("download.network.per_host"),
        connect_s=settings.number("download.network.connect_s"),
        read_s=settings.number("download.network.read_s"),
        total_s=settings.number("download.network.total_s"),
        attempts=settings.integer("download.network.attempts"),
        backoff_s=settings.number("download.network.backoff_s"),
        resolve=settings.mapping("download.network.resolve"),
        user_agent=f"{_USER_AGENT} (+{contact})" if contact else _USER_AGENT,
        spacing_s=settings.number("download.network.spacing_s"),
        crawl_delay_max_s=settings.number("download.network.crawl_delay_max_s"),
        nameservers=tuple(settings.texts("download.network.nameservers")),
    )


async def _within(
    urls: list[str], limits: Limits, network: Network, deliver: Callable[[Answer], None], meter: Meter, budget_s: float
) -> None:
    budget = asyncio.timeout(budget_s)
    try:
        async with budget:
            await fetch_all(urls, limits, network, deliver, meter)
    except TimeoutError:
        if not budget.expired():  # a disk may time out, too
            raise


def _counting(deliver: Callable[[Answer], None], meter: Meter) -> Callable[[Answer], None]:
    def counted(answer: Answer) -> None:
        meter.answered(answer.reason, len(answer.body))
        deliver(answer)

    return counted

"""Fetches many urls: interleaves hosts, follows redirects, tries again what may pass, answers for each once."""

import asyncio
import collections
import hashlib
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import aiohttp
from aiohttp import hdrs
from yarl import URL

from stages.download.addresses import guarded_socket
from stages.download.answers import TRANSIENT, Answer, Limits, Network, shorten
from stages.download.breaker import Breakers
from stages.download.exchange import Outcome, exchange
from stages.download.failures import NETWORK_ERRORS, reason_for
from stages.download.meter import Meter
from stages.download.resolver import MappedResolver
from stages.download.robots import Robots
from stages.download.schedule import Schedule
from stages.download.targets import parse_redirect, parse_target
from stages.download.watch import Timing, Watch

BACKOFF_MAX_S = 60.0
_SLOW_LANE = 1024
_READ_AT_ONCE = 256
_PRIVATE = "download.private_address"
RETRY_AFTER_MAX_S = 60.0
"""A server that asks for a longer pause is not asked again in this call: its answer stands until the next round."""


@dataclass(slots=True)
class _Errand:
    """One url on its way: where it stands now."""

    url: str
    start: URL
    at: URL
    host: str
    tries: int = 0
    hops: int = 0
    spent_s: float = 0.0

    def go_to(self, url: URL) -> None:
        self.at, self.host = url, url.raw_host or ""


async def fetch_all(
    urls: Sequence[str],
    limits: Limits,
    network: Network,
    deliver: Callable[[Answer], None],
    meter: Meter | None = None,
) -> None:
    """Fetch each url once and answer for each exactly once.

    Every hop of a redirect is scheduled like a url of its own host, so `per_host` holds for the hosts that
    redirects lead to as well, and waiting for a host never occupies one of the `connections`. A request that stalls
    gives its place to another, up to as many again as `_SLOW_LANE` and the machine's file handles allow, so that dead
    and dripping servers do not hold up the others.

    Args:
        urls: Distinct urls, in any spelling; a repeated one is answered once.
        limits: What is taken.
        network: How the web is asked.
        deliver: Called in the event loop's thread as answers come, in no particular order. The body is not kept
            here afterwards, so memory stays below the requests under way times `max_bytes`.
        meter: Told of every request and answer.

    Raises:
        OSError: This machine ran out of file handles or memory.
        ValueError: `network.resolve` maps a name to something that is no address.
        Exception: Whatever `deliver` raised; nothing more is delivered then.
    """
    distinct = list(dict.fromkeys(urls))
    resolver = MappedResolver(network.resolve, network.nameservers)
    try:
        async with _session(limits, network, resolver) as session:
            await _Fetcher(session, resolver, limits, network, deliver, meter, len(distinct)).run(distinct)
    finally:
        await resolver.close()


def _session(limits: Limits, network: Network, resolver: MappedResolver) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        limit=0,  # the schedule counts
        resolver=resolver,
        use_dns_cache=False,  # the resolver remembers
        socket_factory=guarded_socket(limits.allow_private),
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={hdrs.USER_AGENT: network.user_agent, hdrs.ACCEPT_ENCODING: "identity"},
        timeout=aiohttp.ClientTimeout(total=None, connect=network.connect_s),  # the rest is the watch's
        auto_decompress=False,
        trust_env=False,
    )


class _Fetcher:
    def __init__(
        self,
        session: aiohttp.ClientSession,
        resolver: MappedResolver,
        limits: Limits,
        network: Network,
        deliver: Callable[[Answer], None],
        meter: Meter | None,
        items: int,
    ) -> None:
        self._session = session
        self._resolver = resolver
        self._limits = limits
        self._network = network
        self._deliver = deliver
        self._meter = meter
        self._receiver_failed = False
        self._breakers = Breakers()
        self._robots = Robots(session, limits, network) if limits.consent.robots else None
        self._schedule: Schedule[_Errand] = Schedule(network.connections, network.per_host, items, network.spacing_s)
        self._upcoming: collections.deque[str] = collections.deque()
        self._slow = 0
        self._slow_lane = _slow_lane(network.connections)

    async def run(self, urls: list[str]) -> None:
        watch = Watch(self._network, lambda timing: self._make_room(timing, watch, group))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._network.connections, len(urls))):
                    group.create_task(self._work(watch))
                await self._queue(urls)
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:
            watch.close()
            if self._robots is not None:
                await self._robots.close()

    async def _queue(self, urls: list[str]) -> None:
        """Read the urls and queue them, hosts in turn: the first are asked while the others are read."""
        hosts: set[str] = set()
        for count, url in enumerate(_in_turn(urls)):
            if count % _READ_AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                target = parse_target(url)
            except ValueError as error:
                self._finish(Answer(url, "download.bad_scheme", detail=shorten(str(error))))
                continue
            errand = _Errand(url, target, target, target.raw_host or "")
            self._schedule.put(errand.host, errand)
            if errand.host not in hosts:
                hosts.add(errand.host)
                self._upcoming.append(errand.host)

    def _make_room(self, timing: Timing, watch: Watch, group: asyncio.TaskGroup) -> bool:
        """Put another worker in the place of one whose request stalls, unless too many do."""
        ending = timing.task is None or timing.task.cancelling()
        if ending or self._slow >= self._slow_lane:
            return False
        self._slow += 1
        self._schedule.set_aside(timing.host)
        group.create_task(self._work(watch))
        return True

    async def _work(self, watch: Watch) -> None:
        while (errand := await self._schedule.take()) is not None:
            host, tripped = errand.host, self._breakers.tripped(errand.at)
            if tripped is not None:
                words = f"not asked: {host} failed several times in a row"
                self._finish(Answer(errand.url, tripped, detail=shorten(words)))
                self._schedule.done(host)
                continue
            timing = watch.begin(host, met=self._schedule.has_met(host))
            try:
                outcome = await self._hop(errand, watch, timing)
            finally:
                watch.end(timing)
            answer = outcome.answer
            if self._meter is not None:
                self._meter.asked(host, timing.clock() - timing.begun_s, answer.reason)
            self._breakers.note(errand.at, answer.reason, answer.http_status)
            if answer.http_status is not None:
                self._schedule.met(host)
            self._settle(errand, outcome)
            self._schedule.done(host)
            if timing.stalled:  # another worker has this one's place
                self._slow -= 1
                return

    async def _hop(self, errand: _Errand, watch: Watch, timing: Timing) -> Outcome:
        """Ask once, within what is left of this attempt's time."""
        try:
            failed = await self._look_up(errand) or await self._permission(errand)
            if failed is not None:
                return failed
            keep = not self._schedule.is_last(errand.host)
            left_s = self._network.total_s - errand.spent_s - (timing.clock() - timing.begun_s)
            return await exchange(
                self._session, errand.url, errand.at, self._limits, keep=keep, watch=watch, timing=timing, time_s=left_s
            )
        finally:
            errand.spent_s += timing.clock() - timing.begun_s

    async def _permission(self, errand: _Errand) -> Outcome | None:
        """Read what the host's robots.txt says of the url."""
        if self._robots is None:
            return None
        verdict = self._robots.known(errand.at) or await self._robots.ask(errand.at)
        if verdict.reason is not None:
            # What stands in the way of robots.txt stands in the way of the image too.
            words = verdict.detail.removeprefix("robots.txt: ") if verdict.reason == _PRIVATE else verdict.detail
            return Outcome(Answer(errand.url, verdict.reason, detail=words))
        if verdict.crawl_delay_s:
            self._schedule.space(errand.host, min(verdict.crawl_delay_s, self._network.crawl_delay_max_s))
        return None

    async def _look_up(self, errand: _Errand) -> Outcome | None:
        """Resolve the name ahead of the connector, so that a slow name server is not taken for a slow server."""
        if self._resolver.knows(errand.host) or _is_literal(errand.at):
            return None
        # Whoever has to wait starts the lookups of those whose turn comes next, so that they need not.
        while self._upcoming and self._resolver.prefetch(self._upcoming[0]):
            self._upcoming.popleft()
        try:
            async with asyncio.timeout(self._network.connect_s):
                await self._resolver.resolve(errand.host)
        except TimeoutError:
            # The lookup itself goes on, and the next attempt finds what it found.
            reason, words = "download.dns_temporary", "no name server answered within connect_s"
        except NETWORK_ERRORS as error:
            reason, words = reason_for(error)
        else:
            return None
        return Outcome(Answer(errand.url, reason, detail=words))

    def _settle(self, errand: _Errand, outcome: Outcome) -> None:
        """Follow, try again, or deliver."""
        if outcome.location is not None:
            refused = self._follow(errand, outcome)
            if refused is not None:
                self._finish(refused)
        elif not self._retry(errand, outcome):
            self._finish(replace(outcome.answer, final_url=str(errand.at)) if errand.hops else outcome.answer)

    def _follow(self, errand: _Errand, outcome: Outcome) -> Answer | None:
        """Queue the next hop, or say why there is none."""
        final = str(errand.at) if errand.hops else None
        bound = self._limits.max_redirects
        if errand.hops >= bound:
            over = replace(outcome.answer, reason="download.too_many_redirects", final_url=final)
            return replace(over, value=float(errand.hops + 1), cut=float(bound))
        try:
            errand.go_to(parse_redirect(errand.at, outcome.location or ""))
        except ValueError as error:
            words = shorten(f"redirect: {error}")
            return replace(outcome.answer, reason="download.bad_scheme", final_url=final, detail=words)
        errand.hops += 1
        self._schedule.put(errand.host, errand, first=True)
        return None

    def _retry(self, errand: _Errand, outcome: Outcome) -> bool:
        """Queue another attempt after a pause, if one is due."""
        errand.tries += 1
        asked_s = outcome.retry_after_s or 0.0
        if outcome.answer.http_status == 429 and asked_s:
            self._schedule.hold(errand.host, min(asked_s, RETRY_AFTER_MAX_S))
        due = outcome.answer.reason in TRANSIENT and errand.tries < self._network.attempts
        if not due or asked_s > RETRY_AFTER_MAX_S or self._breakers.tripped(errand.at):
            return False
        delay_s = max(asked_s, pause_s(errand.url, errand.tries, self._network.backoff_s))
        errand.go_to(errand.start)
        errand.hops, errand.spent_s = 0, 0.0
        asyncio.get_running_loop().call_later(delay_s, self._schedule.put, errand.host, errand)
        return True

    def _finish(self, answer: Answer) -> None:
        if self._receiver_failed:  # the other workers are being cancelled, but one may have got this far
            return
        self._receiver_failed = True
        if self._meter is not None:
            self._meter.answered(answer.reason, len(answer.body))
        self._deliver(answer)
        self._receiver_failed = False
        self._schedule.finish()


def _in_turn(urls: list[str]) -> list[str]:
    """Put the first url of every host first, then the second ones; hosts as they are spelled."""
    turns: collections.Counter[str] = collections.Counter()

    def turn(url: str) -> int:
        host = url.split("/", 3)[2:3]
        turns["".join(host)] += 1
        return turns["".join(host)]

    return sorted(urls, key=turn)


def _slow_lane(connections: int) -> int:
    """How many requests may stall beside those at work: a third of the file handles is left for everything else."""
    handles, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = _SLOW_LANE if handles == resource.RLIM_INFINITY else handles * 2 // 3 - connections
    return max(0, min(_SLOW_LANE, spare))


def _is_literal(url: URL) -> bool:
    """Whether the host is an address; parse_target left only canonical ones."""
    host = url.raw_host or ""
    return ":" in host or host.replace(".", "").isdigit()


def pause_s(url: str, tries: int, backoff_s: float) -> float:
    """Pause before the next attempt: doubling, spread by the url so that a host's retries do not come as one.

    Args:
        url: The url as the caller wrote it.
        tries: Attempts made, from 1.
        backoff_s: Pause after the first.

    Returns:
        Seconds, from half to one and a half of the doubled pause, at most BACKOFF_MAX_S; the same every time.
    """
    digest = hashlib.blake2b(f"{tries} {url}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    spread = 0.5 + int.from_bytes(digest, "big") / 2**64
    return min(BACKOFF_MAX_S, backoff_s * 2.0 ** (tries - 1) * spread)

"""robots.txt (RFC 9309): fetched once per origin, read for our product token, asked before each request."""

import asyncio
import hashlib
import re
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

import aiohttp
from aiohttp import hdrs
from protego import Protego
from yarl import URL

from stages.download.answers import ROBOT, Limits, Network, shorten
from stages.download.consent import ROBOTS_TXT, names_us
from stages.download.exchange import drain
from stages.download.failures import NETWORK_ERRORS, reason_for
from stages.download.targets import parse_redirect

MAX_BYTES = 524_288
"""How much of a robots.txt is read, content encoding undone; RFC 9309, 2.5 asks for at least 500 KiB."""

MAX_REDIRECTS = 5
"""RFC 9309, 2.3.1.2: after five redirects in a row there is no robots.txt."""

HOLD_S = 30.0
"""How long a robots.txt that could not be had is not asked for again."""

MAX_WILDCARD_CHARS = 16_384
"""How many characters of patterns with `*` or `$` are matched in full: measured, 1 ms for a url of 100 characters."""

MAX_CRAWL_DELAY_S = 86_400.0
"""A longer Crawl-delay is a slip of the pen, or meant as a refusal that Disallow would state: it is ignored."""

MAX_HELD_RULES = 500_000
"""How many rules are kept for all origins together, each some 300 to 500 bytes; beyond it the oldest are forgotten."""

_INLINE_BYTES = 16_384
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_IDENTITY = frozenset({"", "identity", "none"})
_ZLIB = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB = 47  # zlib: 32 + 15, told by the header
_EVERYONE = "*"
_PRIVATE = "download.private_address"
_UNREACHABLE = "download.refused"

# The lines that form groups, with the slips of the pen that protego knows too; every other record may stand anywhere
# between them (RFC 9309, 2.2). Values end at whatever protego takes for the end of a line.
_LINE = re.compile(
    r"^[ \t\f\v]*(user[- ]?agent|allow|dis+al+ow|diasllow|disallaw|crawl[- ]delay)"
    r"(?:[ \t]*:|[ \t])[ \t]*([^\n\v\f\x1c-\x1e\x85\u2028\u2029#]*)",
    re.MULTILINE | re.IGNORECASE | re.ASCII,
)

_UNQUOTED = re.compile(r"/[A-Za-z0-9_./-]*")

Origin = tuple[str, str | None, int | None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a url may be asked for.

    Attributes:
        reason: None when it may; "download.opt_out"; or why robots.txt could not be had.
        detail: What was read, printable, at most 200 bytes, the same every time; empty when the url may be asked for.
        crawl_delay_s: Pause between requests that the owner asks for; 0.0 where none is.
    """

    reason: str | None
    detail: str
    crawl_delay_s: float


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Rules:
    """What one robots.txt says to us.

    Attributes:
        parsed: The rules of the one group that concerns us; None where it disallows nothing.
        free: Verdict on the urls it allows.
        refused: Verdict on the urls it disallows.
        beginnings: One of these every path begins with that is disallowed, escapes aside; told without protego.
        longest: Length of the longest of them.
        count: How many rules `parsed` holds.
    """

    parsed: Protego | None
    free: Verdict
    refused: Verdict
    beginnings: tuple[str, ...]
    longest: int
    count: int

    def verdict(self, at: URL) -> Verdict:
        """Judge a url of the origin by its path and query, as they are sent."""
        path = at.raw_path_qs
        if self.parsed is None or not (path.startswith(self.beginnings) or "%" in path[: self.longest]):
            return self.free
        # With a name before it, a path that begins with two slashes is not taken for a host.
        return self.free if self.parsed.can_fetch(f"http://host{path}", ROBOT) else self.refused


_ALLOWED: Final = Verdict(None, "", 0.0)
_NO_RULES: Final = Rules(None, _ALLOWED, _ALLOWED, (), 0, 0)


class _UnreadableError(Exception):
    """A robots.txt came, but not in a form that can be read."""


class Robots:
    """The robots.txt of every origin that is asked, for one event loop.

    An origin is a scheme, a host and a port. 2xx is read; 4xx, and more than five redirects, allow everything; 429,
    5xx and failures of the network leave the origin's urls for later and are asked again after HOLD_S, and so does a
    redirect to an address that is not public. An origin at such an address itself is refused, as its images would be.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        limits: Limits,
        network: Network,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Start without knowing any origin.

        Args:
            session: Guarded, without cookies, redirects or decompression of its own; names us in its User-Agent.
            limits: Whether robots.txt is heeded at all.
            network: The deadlines.
            clock: Seconds that HOLD_S is counted in; None: the event loop's.
        """
        self._session = session
        self._heeded = limits.consent.robots
        self._longest_s = min(network.total_s, network.connect_s + network.read_s)
        self._clock = clock
        self._rules: dict[Origin, Rules] = {}
        self._oldest: deque[Origin] = deque()
        self._held = 0
        # Hosts of one provider publish the same rules by the thousand.
        self._shared: WeakValueDictionary[bytes, Rules] = WeakValueDictionary()  # by digest of the file
        self._failed: dict[Origin, tuple[Verdict, float]] = {}
        self._pending: dict[Origin, asyncio.Task[Rules | Verdict]] = {}

    def known(self, at: URL) -> Verdict | None:
        """Judge a url without waiting.

        Args:
            at: As `parse_target` gives it.

        Returns:
            The verdict; None where `ask` is needed.
        """
        origin = (at.scheme, at.raw_host, at.port)
        rules = self._rules.get(origin)
        if rules is not None:
            return rules.free if rules.parsed is None else rules.verdict(at)
        if not self._heeded or at.raw_path == "/robots.txt":
            return _ALLOWED
        failed = self._failed.get(origin)
        return failed[0] if failed is not None and self._now() < failed[1] else None

    async def ask(self, at: URL) -> Verdict:
        """Judge a url, fetching its origin's robots.txt first where it is not known; all who wait share one fetch.

        Args:
            at: As `parse_target` gives it.

        Returns:
            The verdict.

        Raises:
            OSError: This machine ran out of file handles or memory.
        """
        verdict = self.known(at)
        if verdict is not None:
            return verdict
        origin = (at.scheme, at.raw_host, at.port)
        task = self._pending.get(origin)
        if task is None:
            task = asyncio.create_task(self._learn(origin, at.origin().with_path("/robots.txt")))
            # Everyone who waits may have given up: an error is then nobody's, and must not be reported as lost.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._pending[origin] = task
        # One who gives up must not take the answer away from the others.
        found = await asyncio.shield(task)
        return found if isinstance(found, Verdict) else found.verdict(at)

    async def close(self) -> None:
        """End the fetches that are under way; to be called before the session is closed."""
        tasks = list(self._pending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _now(self) -> float:
        return asyncio.get_running_loop().time() if self._clock is None else self._clock()

    async def _learn(self, origin: Origin, at: URL) -> Rules | Verdict:
        try:
            found = await self._within_time(at)
            if isinstance(found, Verdict):
                self._failed[origin] = (found, self._now() + HOLD_S)
            else:
                self._keep(origin, found)
        finally:
            self._pending.pop(origin, None)
        return found

    async def _within_time(self, at: URL) -> Rules | Verdict:
        deadline = asyncio.timeout(self._longest_s)
        try:
            async with deadline:
                body = await self._fetch(at)
        except _UnreadableError as error:
            return _failure("download.short_body", str(error))
        except NETWORK_ERRORS as error:
            reason, words = reason_for(error)
            return _failure(reason, "not complete within connect_s and read_s" if deadline.expired() else words)
        if isinstance(body, Verdict):
            return body
        return _NO_RULES if body is None else await self._read(body)

    async def _fetch(self, at: URL) -> bytes | Verdict | None:
        """Give the body; None where there is no robots.txt; a verdict where it is to be asked for later."""
        for hop in range(MAX_REDIRECTS + 1):
            try:
                async with self._session.get(at, allow_redirects=False) as response:
                    status, location = response.status, response.headers.get(hdrs.LOCATION)
                    if 200 <= status < 300:
                        return await _body(response)
                    await drain(response)
            except NETWORK_ERRORS as error:
                reason, words = reason_for(error)
                if hop and reason == _PRIVATE:
                    # Only the file lies where nobody may look: it is unreachable (RFC 9309, 2.3.1.4), the host is not.
                    return _failure(_UNREACHABLE, f"redirects to {at.origin()}: {words}")
                raise
            if status == 429 or 500 <= status < 600:
                reason = "download.http_429" if status == 429 else "download.http_5xx"
                return _failure(reason, f"HTTP status {status}")
            if status not in _REDIRECTS or not location:
                return None
            try:
                at = parse_redirect(at, location)
            except ValueError:
                return None
        return None

    async def _read(self, body: bytes) -> Rules:
        digest = hashlib.blake2b(body, digest_size=16).digest()
        rules = self._shared.get(digest)
        if rules is None:
            text = body.decode("utf-8-sig", "replace")
            # A large file takes tenths of a second: in a thread, so that other transfers go on.
            rules = await asyncio.to_thread(read_rules, text) if len(body) > _INLINE_BYTES else read_rules(text)
        if rules.parsed is not None:
            self._shared[digest] = rules
        return rules

    def _keep(self, origin: Origin, rules: Rules) -> None:
        self._rules[origin] = rules
        self._failed.pop(origin, None)
        if rules.parsed is None:
            return
        self._oldest.append(origin)
        self._held += rules.count
        while self._held > MAX_HELD_RULES and len(self._oldest) > 1:
            self._held -= self._rules.pop(self._oldest.popleft()).count


def read_rules(text: str) -> Rules:
    """Read a robots.txt for our product token, or for everyone where it does not name us.

    Groups are told apart here, because protego takes a group of "rs5m" for one of "rs5m-build" and one of
    "rs5m-build/1.0" for somebody else's (RFC 9309, 2.2.1 wants the whole token), and keeps every group of the file in
    memory. What the rules of a group mean is protego's.

    Args:
        text: Anything; what is no rule is passed over.

    Returns:
        The rules.
    """
    groups = _groups(text.replace("\r", "\n"))
    whom = ROBOT if ROBOT in groups else _EVERYONE
    rules = groups.get(whom, {})
    delays = [value for field, value in rules if field == "Crawl-delay"]
    matched = _bounded([rule for rule in rules if rule[0] != "Crawl-delay"])
    lines = [f"{field}: {value}" for field, value in matched]
    parsed = Protego.parse("\n".join([f"User-agent: {ROBOT}", *(f"Crawl-delay: {d[:32]}" for d in delays), *lines]))
    delay_s = parsed.crawl_delay(ROBOT) or 0.0
    delay_s = delay_s if delay_s <= MAX_CRAWL_DELAY_S else 0.0
    refused = Verdict("download.opt_out", f"{ROBOTS_TXT}: Disallow for {whom}", delay_s)
    free = Verdict(None, "", delay_s) if delay_s else _ALLOWED
    starts = dict.fromkeys(_literal(value) for field, value in matched if field == "Disallow")
    longest = max(map(len, starts), default=0)
    return Rules(parsed if starts else None, free, refused, tuple(starts), longest, len(matched))


def _groups(text: str) -> dict[str, dict[tuple[str, str], None]]:
    """Collect the distinct rules (field, value), in their order, of the groups that name us and of those for all."""
    groups: dict[str, dict[tuple[str, str], None]] = {}
    named: list[dict[tuple[str, str], None]] = []
    naming = False
    for line in _LINE.finditer(text):
        field, value = line[1].lower(), line[2].strip()
        if field.startswith("user"):
            named = named if naming else []
            naming = True
            whom = _whom(value)
            if whom is not None:
                named.append(groups.setdefault(whom, {}))
            continue
        naming = False
        kind = {"a": "Allow", "d": "Disallow", "c": "Crawl-delay"}[field[0]]
        for rules in named if value else ():
            rules[kind, value] = None
    return groups


def _whom(agent: str) -> str | None:
    if agent.split(maxsplit=1)[:1] == [_EVERYONE]:
        return _EVERYONE
    return ROBOT if names_us(agent) else None


def _bounded(rules: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Bound what matching a url may cost.

    Plain beginnings cost protego next to nothing, patterns with `*` or `$` each a search through the url. Past
    MAX_WILDCARD_CHARS of these, a Disallow is cut down to its beginning, which refuses more than was asked, and an
    Allow is left out: where an owner's wish is too long to be read in full, more is heeded, not less.
    """
    left = MAX_WILDCARD_CHARS
    bounded: list[tuple[str, str]] = []
    for field, value in rules:
        plain, special = _beginning(value)
        if special:
            left -= len(value)
        if not special or left >= 0:
            bounded.append((field, value))
        elif field == "Disallow":
            bounded.append((field, plain or "/"))
    return list(dict.fromkeys(bounded))


def _beginning(value: str) -> tuple[str, bool]:
    plain = value.partition("*")[0].removesuffix("$")
    return plain, plain != value


def _literal(value: str) -> str:
    """The beginning that no quoting changes; empty, which every path begins with, where that is not clear."""
    found = _UNQUOTED.match(value)
    return found[0] if found else ""


def _failure(reason: str, words: str) -> Verdict:
    return Verdict(reason, shorten(f"{ROBOTS_TXT}: {words}"), 0.0)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Read whole lines up to MAX_BYTES, however far the body expands or goes on."""
    encoding = response.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower()
    if encoding not in _IDENTITY | _ZLIB:
        # Without its text nobody knows what the owner allows.
        raise _UnreadableError(f"content encoding {encoding!r} was not asked for")
    inflate = zlib.decompressobj(_GZIP_OR_ZLIB) if encoding in _ZLIB else None
    body = bytearray()
    received = False
    async for raw in response.content.iter_any():
        received = received or bool(raw)
        try:
            body += raw if inflate is None else inflate.decompress(raw, MAX_BYTES - len(body) + 1)
        except zlib.error as error:
            raise _UnreadableError("the body is not compressed as its header says") from error
        if len(body) > MAX_BYTES:
            whole = max(body.rfind(b"\n", 0, MAX_BYTES), body.rfind(b"\r", 0, MAX_BYTES)) + 1
            return bytes(body[:whole])
        if inflate is not None and inflate.eof:
            return bytes(body)  # whatever still comes would be kept by zlib, without a bound
    if inflate is not None and received:
        raise _UnreadableError("the compressed body ended early")
    return bytes(body)

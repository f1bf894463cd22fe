"""Names to addresses: the run's own mapping first, then the hosts file and name servers, each name asked once."""

import asyncio
import errno
import math
import re
import socket
from collections.abc import Mapping, Sequence
from ipaddress import ip_address

import aiodns
import pycares
from aiohttp.abc import AbstractResolver, ResolveResult

IN_FLIGHT = 128
"""Names asked for at a time: one name is two questions, and a public name server drops what comes faster than about
a thousand a second from one address. Whoever comes later waits for a place."""

PREFETCHED = IN_FLIGHT // 2
"""While so many names are asked for, none is prefetched: the places left belong to requests that wait."""

GIVE_UP_S = 4.5
"""Longest wait for the answer to one name; below connect_s, so that the name servers are blamed by their own error."""

_LEAST_WAIT_S = 0.25  # c-ares waits no shorter for one server (MIN_TIMEOUT_MS, ares_metrics.c)
_FLAGS = pycares.ARES_FLAG_EDNS | pycares.ARES_FLAG_NOSEARCH | pycares.ARES_FLAG_NOALIASES
_AI_NOSORT = 1 << 7  # of ares.h, not exported by pycares; sorting opens a socket for every address

_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_ABSENT = frozenset({pycares.errno.ARES_ENOTFOUND, pycares.errno.ARES_ENODATA, pycares.errno.ARES_EBADNAME})

_NAME_BYTES = 253  # RFC 1035, 2.3.4, less the length byte and the root
_NAME = re.compile(r"(?:[0-9a-z_-]{1,63}\.)*[0-9a-z_-]{1,63}")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")


def name_is_missing(error: OSError) -> bool:
    """Tell a name that does not exist from a name server that did not answer.

    Args:
        error: What a lookup raised.

    Returns:
        True when asking again is pointless.
    """
    return isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_NAME


class MappedResolver(AbstractResolver):
    """Resolves names for one call of the downloader.

    Found and missing names are remembered until `close`, so a name keeps its first addresses however its record
    changes; a lookup that failed for the moment is not remembered, and a later attempt asks again. Requests for
    one name share one lookup.
    """

    def __init__(self, mapping: Mapping[str, str], nameservers: Sequence[str] = ()) -> None:
        """Read the settings; nothing is opened before the first name that is not mapped.

        Args:
            mapping: As Network.resolve.
            nameservers: `address`, `address:port` or `[address]:port`, asked in this order as long as they answer;
                empty: those of this machine.

        Raises:
            ValueError: A value of the mapping is neither empty nor `address` nor `address:port`, or a name server
                is no address.
        """
        self._mapping = {name.lower(): _mapped(name, value) for name, value in mapping.items()}
        self._names = _NameServers([_name_server(value) for value in nameservers])
        self._found: dict[str, list[str]] = {}
        self._missing: set[str] = set()
        self._pending: dict[str, asyncio.Task[list[str]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Give the addresses of a host, as aiohttp's connector asks for them.

        Args:
            host: A name in ASCII form; a dot at its end says nothing, for no search domain is ever added. What is
                no host name (RFC 1035, 2.3.4), also one that ends in a number ("0x7f.1"), does not exist and is
                never sent. An address in canonical spelling is its own answer.
            port: The port of the url; a mapping may send the connection to another.
            family: Only addresses of this family, or any.

        Returns:
            One entry per address: IPv4 before IPv6, else in the order of the answer.

        Raises:
            socket.gaierror: EAI_NONAME when the name or addresses of it do not exist; EAI_AGAIN when no name server
                gave a proper answer within GIVE_UP_S, or the resolver was closed.
            OSError: This machine ran out of file handles or memory.
        """
        name = _plain(host)
        entry = self._match(name)
        if entry is None:
            addresses = await self._look_up(name)
        elif entry[0]:
            addresses, port = [entry[0]], entry[1] or port
            self._found.setdefault(name, addresses)
        else:
            raise _missing(name)
        results = [_result(host, address, port) for address in addresses]
        wanted = [result for result in results if family in (socket.AF_UNSPEC, result["family"])]
        if not wanted:
            raise _missing(name)
        return wanted

    def knows(self, host: str) -> bool:
        """Whether `resolve` would give addresses at once."""
        return _plain(host) in self._found

    def prefetch(self, host: str) -> bool:
        """Start a lookup for a name that will be needed soon.

        Args:
            host: As for `resolve`. Whatever goes wrong is left to the `resolve` that follows.

        Returns:
            False while too many are under way: ask again later.
        """
        name = _plain(host)
        if name in self._found or name in self._missing or name in self._pending:
            return True
        if self._names.closed or len(self._pending) >= PREFETCHED:
            return False
        if self._match(name) is None and _is_name(name):
            self._start(name)
        return True

    async def close(self) -> None:
        """Forget everything and let go of the name servers; lookups under way fail with EAI_AGAIN."""
        await self._names.close()
        await asyncio.gather(*self._pending.values(), return_exceptions=True)
        self._found.clear()
        self._missing.clear()

    def _match(self, name: str) -> tuple[str, int] | None:
        """Longest match: the name itself, then its suffixes from the left."""
        keys = [name, *(name[i:] for i, ch in enumerate(name) if ch == "." and i)]
        return next((self._mapping[key] for key in keys if key in self._mapping), None)

    async def _look_up(self, name: str) -> list[str]:
        if name in self._found:
            return self._found[name]
        if not _is_name(name):
            return [_address(name)]
        if name in self._missing:
            raise _missing(name)
        # A request that gives up must not take the answer away from the others.
        return await asyncio.shield(self._pending.get(name) or self._start(name))

    def _start(self, name: str) -> asyncio.Task[list[str]]:
        task = asyncio.create_task(self._ask(name))
        # Everyone who waits may have given up: the error is then nobody's, and must not be reported as lost.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._pending[name] = task
        return task

    async def _ask(self, name: str) -> list[str]:
        try:
            found = await self._names.ask(name)
        except OSError as error:
            if name_is_missing(error):
                self._missing.add(name)
            raise
        finally:
            self._pending.pop(name, None)
        self._found[name] = found
        return found


class _NameServers:
    """The hosts file and name servers, in the order of nsswitch.conf, through c-ares: no thread waits for a name.

    c-ares keeps one thread for a channel, and pycares one for a process to close channels in. Neither survives a
    fork, so workers are spawned, or fork before the first lookup.
    """

    def __init__(self, servers: Sequence[str]) -> None:
        self.closed = False
        self._servers = list(dict.fromkeys(servers))
        self._resolver: aiodns.DNSResolver | None = None
        self._places = asyncio.Semaphore(IN_FLIGHT)

    async def ask(self, name: str) -> list[str]:
        """Return the addresses of a host name, IPv4 first; raises as MappedResolver.resolve."""
        async with self._places:
            if self.closed:
                raise _unanswered(name, "the resolver was closed")
            self._resolver = self._resolver or self._open()
            try:
                async with asyncio.timeout(GIVE_UP_S):
                    found = await _addresses(self._resolver, name)
            except TimeoutError as error:
                raise _unanswered(name, "no name server answered") from error
            except aiodns.error.DNSError as error:
                raise _failure(name, error) from error
        return sorted(dict.fromkeys(found), key=lambda address: ":" in address)

    async def close(self) -> None:
        """End the lookups under way and close the channel."""
        self.closed = True
        if self._resolver is not None:
            await self._resolver.close()

    def _open(self) -> aiodns.DNSResolver:
        try:
            wait_s, tries = _patience(len(self._servers) or _servers_of_this_machine())
            # Never give `lookups` or `resolvconf_path`: pycares 5.2 hands c-ares memory that it has freed by then.
            return aiodns.DNSResolver(self._servers or None, timeout=wait_s, tries=tries, flags=_FLAGS)
        except pycares.AresError as error:
            # c-ares does not say what it lacked; each of these is this machine's affair and no reason to lose rows.
            raise OSError(errno.EMFILE, "no DNS channel: raise the limit of open files or inotify instances") from error


async def _addresses(resolver: aiodns.DNSResolver, name: str) -> list[str]:
    try:
        return _read(await _query(resolver, name, socket.AF_UNSPEC))
    except aiodns.error.DNSError as error:
        if error.args[0] not in _ABSENT:
            raise
    # c-ares reports what came last of A and AAAA: "no AAAA" may hide that nobody answered for A. Only if each
    # alone is absent is the name missing. A proper negative answer was kept by c-ares and is not sent for again.
    both = (_query(resolver, name, family) for family in (socket.AF_INET, socket.AF_INET6))
    answers = await asyncio.gather(*both, return_exceptions=True)
    found = [address for answer in answers if isinstance(answer, pycares.AddrInfoResult) for address in _read(answer)]
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    if not found:
        raise next((error for error in failed if error.args[0] not in _ABSENT), failed[0])
    return found


def _query(
    resolver: aiodns.DNSResolver, name: str, family: socket.AddressFamily
) -> asyncio.Future[pycares.AddrInfoResult]:
    return resolver.getaddrinfo(name, family=family, type=socket.SOCK_STREAM, flags=_AI_NOSORT)


def _read(answer: pycares.AddrInfoResult) -> list[str]:
    return [node.addr[0].decode("ascii") for node in answer.nodes]


def _patience(servers: int) -> tuple[float, int]:
    """Choose how c-ares waits, so that it still asks when GIVE_UP_S ends the lookup.

    It asks one server after the other and doubles the wait with each round, less up to half of it by chance from
    the second round on (ares_calc_query_timeout in ares_process.c): at most `servers * wait_s * (2 ** tries - 1)`
    seconds in all. Once servers have answered, five times their mean latency, at least _LEAST_WAIT_S, takes the
    place of `wait_s`. An answer that comes after its wait may be lost; so there are as many tries as the least
    wait leaves room for, and a name that is slow to find is not given up because others were quick.

    Args:
        servers: How many are asked, at least one.

    Returns:
        The first wait in seconds, of which three rounds fit into GIVE_UP_S, and how often each server is asked.
    """
    tries = math.ceil(math.log2(GIVE_UP_S / (servers * _LEAST_WAIT_S) + 1.0))
    return max(_LEAST_WAIT_S, GIVE_UP_S / (servers * (2**3 - 1))), tries


def _servers_of_this_machine() -> int:
    channel = pycares.Channel(sock_state_cb=lambda *_: None)  # with a callback it starts no thread and no watch
    try:
        return len(channel.servers)
    finally:
        channel.close()


def _failure(name: str, error: aiodns.error.DNSError) -> OSError:
    status, words = error.args
    if status in _ABSENT:
        return _missing(name)
    if status == pycares.errno.ARES_ENOMEM:
        return OSError(errno.ENOMEM, "no memory for a DNS lookup")
    if status == pycares.errno.ARES_ECONNREFUSED:
        try:
            socket.socket(socket.AF_UNIX).close()  # c-ares says the same when it could not open a socket at all
        except OSError as ours:
            return ours
    return _unanswered(name, str(words))


def _missing(name: str) -> socket.gaierror:
    return socket.gaierror(socket.EAI_NONAME, f"{name} does not exist")


def _unanswered(name: str, words: str) -> socket.gaierror:
    return socket.gaierror(socket.EAI_AGAIN, f"{name} could not be looked up: {words}")


def _plain(host: str) -> str:
    return host.lower().removesuffix(".")


def _is_name(name: str) -> bool:
    """Whether a name server may be asked: a number at the end makes an address of it, in some spelling or other."""
    if len(name) > _NAME_BYTES or not _NAME.fullmatch(name):
        return False
    return not _NUMBER.fullmatch(name.rpartition(".")[2])


def _address(name: str) -> str:
    try:
        return str(ip_address(name))
    except ValueError as error:
        raise _missing(name) from error


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)


def _mapped(name: str, value: str) -> tuple[str, int]:
    """Read `address`, `address:port`, `[address]:port` or nothing; port 0 keeps that of the url."""
    try:
        return _endpoint(value) if value else ("", 0)
    except ValueError as error:
        msg = f"download.network.resolve: {name!r} is mapped to {value!r}; write address, address:port or nothing"
        raise ValueError(msg) from error


def _name_server(value: str) -> str:
    """Read a name server and spell it as c-ares does, with its port."""
    try:
        address, port = _endpoint(value)
    except ValueError as error:
        msg = (
            f"download.network.nameservers: {value!r} is no name server; write its address, or address:port, "
            "or [address]:port for IPv6"
        )
        raise ValueError(msg) from error
    return f"[{address}]:{port or 53}" if ":" in address else f"{address}:{port or 53}"


def _endpoint(value: str) -> tuple[str, int]:
    """Read an address and a port; 0 stands for none."""
    address, port = value, None
    if value.startswith("["):
        address, closed, rest = value[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError("no bracketed address")
        port = rest[1:] if rest else None
    elif value.count(":") == 1:
        address, _, port = value.partition(":")
    parsed = str(ip_address(address))
    if port is None:
        return parsed, 0
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("no port")
    return parsed, int(port)

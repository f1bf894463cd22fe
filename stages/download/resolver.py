"""Names to addresses: the run's own mapping first, then the system, each name asked once."""

import asyncio
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

from aiohttp.abc import AbstractResolver, ResolveResult

# getaddrinfo blocks, and asyncio's own pool holds a handful of threads: a few slow name servers would stall all.
_THREADS = 32

_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


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

    Found and missing names are remembered until `close`; a lookup that failed for the moment is not, so that
    a later attempt asks again. Requests for one name share one lookup.
    """

    def __init__(self, mapping: Mapping[str, str]) -> None:
        """Read the mapping.

        Args:
            mapping: As Network.resolve.

        Raises:
            ValueError: A value is neither empty nor `address` nor `address:port`.
        """
        self._mapping = {name.lower(): _endpoint(name, value) for name, value in mapping.items()}
        self._found: dict[str, list[str]] = {}
        self._missing: set[str] = set()
        self._pending: dict[str, asyncio.Task[list[str]]] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="resolve")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Give the addresses of a host, as aiohttp's connector asks for them.

        Args:
            host: A name in ASCII form.
            port: The port of the url; a mapping may send the connection to another.
            family: Only addresses of this family, or any.

        Returns:
            One entry per address, in the order of the system resolver.

        Raises:
            socket.gaierror: With EAI_NONAME when the name does not exist, else with what the system said.
        """
        name = host.lower().rstrip(".")
        entry = self._match(name)
        if entry is None:
            addresses = await self._look_up(name)
        elif entry[0]:
            addresses, port = [entry[0]], entry[1] or port
            self._found.setdefault(name, addresses)
        else:
            raise _missing(name)
        results = [_result(host, address, port) for address in addresses]
        return [result for result in results if family in (socket.AF_UNSPEC, result["family"])]

    def knows(self, host: str) -> bool:
        """Whether `resolve` would give addresses at once."""
        return host in self._found

    async def close(self) -> None:
        """Forget everything and let go of the threads; a lookup under way ends by itself."""
        for task in self._pending.values():
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _match(self, name: str) -> tuple[str, int] | None:
        """Longest match: the name itself, then its suffixes from the left."""
        keys = [name, *(name[i:] for i, ch in enumerate(name) if ch == "." and i)]
        return next((self._mapping[key] for key in keys if key in self._mapping), None)

    async def _look_up(self, name: str) -> list[str]:
        if name in self._found:
            return self._found[name]
        if name in self._missing:
            raise _missing(name)
        task = self._pending.get(name)
        if task is None:
            task = asyncio.create_task(self._ask_system(name))
            # Everyone who waits may have given up: the error is then nobody's, and must not be reported as lost.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._pending[name] = task
        # A request that gives up must not take the answer away from the others.
        return await asyncio.shield(task)

    async def _ask_system(self, name: str) -> list[str]:
        try:
            infos = await asyncio.get_running_loop().run_in_executor(self._threads, _getaddrinfo, name)
        except OSError as error:
            if name_is_missing(error):
                self._missing.add(name)
            raise
        finally:
            self._pending.pop(name, None)
        found = list(dict.fromkeys(infos))
        self._found[name] = found
        return found


def _getaddrinfo(name: str) -> list[str]:
    try:
        raw = name.encode("ascii")  # as bytes it skips Python's idna codec, which refuses labels the web uses
        infos = socket.getaddrinfo(raw, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except ValueError as error:
        raise _missing(name) from error
    if not infos:
        raise _missing(name)
    return [str(info[4][0]) for info in infos]


def _missing(name: str) -> socket.gaierror:
    return socket.gaierror(socket.EAI_NONAME, f"{name} does not exist")


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)


def _endpoint(name: str, value: str) -> tuple[str, int]:
    """Read `address`, `address:port`, `[address]:port` or nothing; port 0 keeps that of the url."""
    address, port = value, ""
    if value.startswith("["):
        address, closed, port = value[1:].partition("]")
        address, port = (address, port.removeprefix(":")) if closed else (value, "")
    elif value.count(":") == 1:
        address, _, port = value.partition(":")
    try:
        return (str(ip_address(address)) if address else ""), int(port or 0)
    except ValueError as error:
        msg = f"download.network.resolve: {name!r} is mapped to {value!r}; write address, address:port or nothing"
        raise ValueError(msg) from error

"""A name server on loopback that answers as a script says, and our resolver asking it."""

import asyncio
import collections
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from stages.download.resolver import MappedResolver

A, AAAA, CNAME, SOA = 1, 28, 5, 6
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)


@dataclass(frozen=True)
class Reply:
    """One answer: records of (owner, type, data in the notation of zone files), in order."""

    records: Sequence[tuple[str, int, str]] = ()
    rcode: int = NOERROR
    delay_s: float = 0.0
    truncated: bool = False
    soa: bool = True


Script = Callable[[str, int, int], Reply | bytes | None]
"""From a name, A or AAAA, and how often that was asked before, to an answer, bytes to send as they are, or silence."""


def wire_name(name: str) -> bytes:
    labels = [label.encode() for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def record(owner: str, kind: int, data: str) -> bytes:
    if kind == SOA:
        raw = wire_name("ns." + owner) + wire_name("admin." + owner) + struct.pack("!5I", 1, 60, 60, 60, 60)
    elif kind == CNAME:
        raw = wire_name(data)
    else:
        raw = socket.inet_pton(socket.AF_INET if kind == A else socket.AF_INET6, data)
    return wire_name(owner) + struct.pack("!HHIH", kind, 1, 60, len(raw)) + raw


class NameServer(asyncio.DatagramProtocol):
    """Answers on UDP, and on TCP at the same port, as its script says; counts what it is asked."""

    def __init__(self, script: Script) -> None:
        self.asked: collections.Counter[tuple[str, int]] = collections.Counter()
        self.by_tcp = self.peak = 0
        self.address = ""
        self._script = script
        self._open: collections.Counter[str] = collections.Counter()
        self._later: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> list[str]:
        return sorted({name for name, _ in self.asked})

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._handle(data, lambda answer: self._udp.sendto(answer, addr), udp=True)

    def _handle(self, query: bytes, send: Callable[[bytes], Any], *, udp: bool) -> None:
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        name, kind = ".".join(labels), struct.unpack_from("!H", query, at + 1)[0]
        reply = self._script(name, kind, self.asked[name, kind])
        self.asked[name, kind] += 1
        self.by_tcp += not udp
        if isinstance(reply, bytes):
            send(query[:2] + reply)
        elif reply is not None:
            task = asyncio.create_task(self._answer(reply, name, query[: at + 5], send, udp))
            self._later.add(task)
            task.add_done_callback(self._later.discard)

    async def _answer(self, reply: Reply, name: str, query: bytes, send: Callable[[bytes], Any], udp: bool) -> None:
        self._open[name] += 1
        self.peak = max(self.peak, len(self._open))
        await asyncio.sleep(reply.delay_s)
        self._open -= collections.Counter([name])
        cut = reply.truncated and udp
        answers = [] if cut else [record(*entry) for entry in reply.records]
        last = reply.records[-1][1] if reply.records else None
        negative = reply.rcode in (NOERROR, NXDOMAIN) and last not in (A, AAAA) and reply.soa
        authority = [record(name.rpartition(".")[2], SOA, "")] if negative else []
        flags = 0x8180 | reply.rcode | (0x0200 if cut else 0)
        head = query[:2] + struct.pack("!5H", flags, 1, len(answers), len(authority), 0)
        send(head + query[12:] + b"".join(answers + authority))

    async def _on_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                size = struct.unpack("!H", await reader.readexactly(2))[0]
                query = await reader.readexactly(size)
                self._handle(query, lambda a: writer.write(struct.pack("!H", len(a)) + a), udp=False)
        writer.close()

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator["NameServer"]:
        tcp = await asyncio.start_server(self._on_tcp, "127.0.0.1", 0)
        port = tcp.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", port))
        self.address = f"127.0.0.1:{port}"
        try:
            yield self
        finally:
            self._udp.close()
            tcp.close()
            for task in self._later:
                task.cancel()
            await asyncio.gather(*self._later, return_exceptions=True)
            await asyncio.sleep(0.01)


def found(name: str, kind: int, *addresses: str) -> Reply:
    return Reply([(name, kind, address) for address in addresses if (":" in address) == (kind == AAAA)])


def always(reply: Reply | bytes | None) -> Script:
    return lambda _name, _kind, _before: reply


def with_addresses(*addresses: str) -> Script:
    return lambda name, kind, _before: found(name, kind, *addresses)


def using(mapping: dict[str, str], work: Callable[[MappedResolver], Awaitable[Any]], *scripts: Script) -> Any:
    """Run `work` with a resolver whose name servers follow the scripts; returns its result, then the servers."""

    async def main() -> Any:
        async with contextlib.AsyncExitStack() as stack:
            servers = [await stack.enter_async_context(NameServer(script).up()) for script in scripts]
            resolver = MappedResolver(mapping, [server.address for server in servers])
            try:
                result = await work(resolver)
            finally:
                await resolver.close()
        assert {task for task in asyncio.all_tasks() if not task.done()} == {asyncio.current_task()}
        return (result, *servers) if servers else result

    return asyncio.run(main())


async def hosts(resolver: MappedResolver, name: str, **more: Any) -> list[str]:
    return [entry["host"] for entry in await resolver.resolve(name, 80, **more)]


async def error_of(resolver: MappedResolver, name: str) -> socket.gaierror:
    with pytest.raises(socket.gaierror) as failed:
        await resolver.resolve(name, 80)
    return failed.value

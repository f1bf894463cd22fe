"""Loopback servers that misbehave: HTTP and TLS of hand-made bytes, and a name server that changes its mind."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime
import socket
import ssl
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.stages.download.name_server import NXDOMAIN, A, NameServer, Reply, found
from tests.stages.loopback import Loopback


@dataclass(frozen=True)
class Asked:
    """One request: the first label of the host it is for, its target, its whole head, and how often it came."""

    label: str
    target: str
    head: bytes
    nth: int
    at_s: float


Play = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


def page(body: bytes = b"", *headers: str, status: str = "200 OK") -> bytes:
    """Return a proper answer."""
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def send(*parts: bytes, pause_s: float = 0.0, close: bool = False) -> Play:
    """Send bytes as they are, with a pause behind each part."""

    async def play(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
        if close:
            writer.close()

    return play


def endless(head: bytes, block: bytes, pause_s: float = 0.0) -> Play:
    """Send a head and then blocks until the other side has gone."""

    async def play(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(block)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return play


def in_turn(*answers: bytes) -> Play:
    """Give one answer after the other to the same url; the last one from then on."""

    async def play(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answers[min(asked.nth, len(answers)) - 1])

    return play


def torn(*parts: bytes) -> Play:
    """Send bytes, then reset the connection."""

    async def play(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        await asyncio.sleep(0.1)
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return play


class HostileServer(Loopback):
    """What happens to a request depends on the first label of the host; robots.txt is absent unless it is given."""

    def __init__(self, plays: Mapping[str, Play], robots: Mapping[str, bytes]) -> None:
        super().__init__()
        self.asked: list[Asked] = []
        self.address = self.tls_address = self.dns_address = ""
        self.port = 0
        self.names: dict[str, list[list[str]]] = {}
        self.looked_up: collections.Counter[str] = collections.Counter()
        self.plays, self.robots = dict(plays), dict(robots)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None] | None] = set()
        self._counts: collections.Counter[tuple[str, str]] = collections.Counter()

    def targets(self, label: str) -> list[str]:
        """Return what a host was asked for, robots.txt aside."""
        return [asked.target for asked in self.asked if asked.label == label and asked.target != "/robots.txt"]

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        plain = await asyncio.start_server(self._on, "127.0.0.1", 0, limit=1 << 20)
        secure = await asyncio.start_server(self._on, "127.0.0.1", 0, ssl=self_signed())
        self.port = plain.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.tls_address = f"127.0.0.1:{secure.sockets[0].getsockname()[1]}"
        async with NameServer(self._look_up).up() as names:
            self.dns_address = names.address
            yield
        for server in (plain, secure):
            server.close()
        for writer in self._writers:
            writer.transport.abort()
        tasks = [task for task in self._tasks if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)

    def _look_up(self, name: str, kind: int, _before: int) -> Reply:
        """Answer with the next list of addresses; never cached."""
        if name not in self.names:
            return Reply(rcode=NXDOMAIN)
        if kind != A:
            return Reply()
        self.looked_up[name] += 1
        lists = self.names[name]
        return found(name, kind, *lists[min(self.looked_up[name], len(lists)) - 1])

    async def _on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self._tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while not writer.is_closing():
                await self._play(await reader.readuntil(b"\r\n\r\n"), writer)
        writer.close()

    async def _play(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        fields = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:] if ": " in line)
        label, target = fields["Host"].split(".")[0].split(":")[0], head.split(b" ")[1].decode("latin-1")
        self._counts[label, target] += 1
        asked = Asked(label, target, head, self._counts[label, target], asyncio.get_running_loop().time())
        self.asked.append(asked)
        if target == "/robots.txt":
            writer.write(self.robots.get(label, page(status="404 Not Found")))
        else:
            await self.plays[label](asked, writer)


def self_signed() -> ssl.SSLContext:
    """Return the context of a server whose certificate nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self-signed.tls.test")])
    day = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(day).not_valid_after(day.replace(year=2126))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context

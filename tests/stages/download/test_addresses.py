"""No address that is not public is dialled, however it is written."""

import asyncio
import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.download.addresses import PrivateAddressError, guarded_socket, refusal
from stages.download.answers import Answer, Consent, Limits, Network
from stages.download.client import fetch_all


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "reserved"),
        ("10.1.2.3", "private"),
        ("172.31.255.255", "private"),
        ("192.168.0.1", "private"),
        ("100.64.0.1", "carrier-grade NAT"),
        ("100.100.100.200", "metadata"),
        ("127.0.0.53", "loopback"),
        ("169.254.169.254", "metadata"),
        ("169.254.1.1", "link-local"),
        ("198.19.0.1", "reserved"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::127.0.0.1", "IPv4-compatible"),
        ("::ffff:127.0.0.1", "IPv4-mapped loopback"),
        ("::ffff:169.254.169.254", "IPv4-mapped metadata"),
        ("64:ff9b::10.0.0.1", "NAT64 private"),
        ("64:ff9b:1::1", "NAT64 local use"),
        ("2002:7f00:1::", "6to4"),
        ("2001:0:1:2::3", "Teredo"),
        ("2001:db8::1", "reserved"),
        ("fd00:ec2::254", "metadata"),
        ("fd12::1", "private"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("::1%lo", "loopback"),
        ("ff02::1", "multicast"),
        ("4000::1", "reserved"),
        ("0177.0.0.1", "not an address"),
        ("2130706433", "not an address"),
        ("localhost", "not an address"),
    ],
)
def test_refused(address: str, words: str) -> None:
    assert refusal(address) == words


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
)
def test_public(address: str) -> None:
    assert refusal(address) is None


@given(st.ip_addresses())
def test_never_wider_than_the_standard_library(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if not address.is_global and refusal(str(address)) is None:
        nat64 = ipaddress.ip_network("64:ff9b::/96")
        mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
        assert mapped or address in nat64


def test_the_socket_is_made_only_for_a_public_address() -> None:
    info = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))
    with pytest.raises(PrivateAddressError) as refused:
        guarded_socket(allow_private=False)(info)
    assert (refused.value.address, refused.value.words) == ("127.0.0.1", "loopback")
    guarded_socket(allow_private=True)(info).close()
    guarded_socket(allow_private=False)((*info[:4], ("8.8.8.8", 80))).close()


def fetch_from_loopback(*templates: str, allow_private: bool = False) -> tuple[list[Answer], int]:
    """Fetch urls whose PORT is that of a listening server; also how many connections it saw."""
    seen = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nGIF89a")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> list[Answer]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        resolve = {".rs5m.test": f"127.0.0.1:{port}"}
        consent = Consent(robots=not allow_private, headers=True, tdm=True)
        limits = Limits(1000, frozenset({"gif"}), 3, allow_private, consent)
        network = Network(4, 4, 2.0, 2.0, 4.0, 2, 0.01, resolve, "test")
        answers: list[Answer] = []
        async with server:
            urls = [template.replace("PORT", str(port)) for template in templates]
            await fetch_all(urls, limits, network, answers.append)
        return answers

    return asyncio.run(main()), seen


SPELLINGS = [
    "http://127.0.0.1:PORT/",
    "http://127.1:PORT/",
    "http://2130706433:PORT/",
    "http://0177.0.0.1:PORT/",
    "http://017700000001:PORT/",
    "http://0x7f.0.0.1:PORT/",
    "http://0x7f000001:PORT/",
    "http://127.0.0.1.:PORT/",
    "http://\uff11\uff12\uff17.0.0.1:PORT/",
    "http://0.0.0.0:PORT/",
    "http://[::ffff:127.0.0.1]:PORT/",
    "http://[::ffff:7f00:1]:PORT/",
    "http://[::127.0.0.1]:PORT/",
    "http://user:pw@127.0.0.1:PORT/",
    "http://localhost:PORT/",
    "http://name.rs5m.test/",
    "https://name.rs5m.test/",
]


def test_nothing_reaches_a_private_server_in_any_spelling() -> None:
    answers, seen = fetch_from_loopback(*SPELLINGS)
    assert seen == 0
    assert {answer.reason for answer in answers} == {"download.private_address"}
    assert len(answers) == len(SPELLINGS)
    assert "127.0.0.1 is loopback" in {answer.detail for answer in answers}


def test_the_same_spellings_are_served_where_private_addresses_are_allowed() -> None:
    answers, seen = fetch_from_loopback(*SPELLINGS[:7], SPELLINGS[-2], allow_private=True)
    assert [answer.reason for answer in answers] == [None] * 8
    assert seen == 8

"""Which network addresses a url from the open web may make us dial.

The check sits where the socket is made, so it sees the address that is really dialled: a literal, an odd
spelling, a redirect target and a name that resolves differently the second time all pass through it.
Ranges follow the IANA special-purpose registries (RFC 6890 and its updates).
"""

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

AddrInfo = tuple[Any, ...]
"""As getaddrinfo gives it: family, type, protocol, canonical name, (address, port, ...)."""

# Cloud metadata services; the first match in a table wins, so they stand before the ranges around them.
_IPV4: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(net), words)
    for net, words in (
        ("169.254.169.254/32", "metadata"),
        ("169.254.170.2/32", "metadata"),
        ("100.100.100.200/32", "metadata"),
        ("168.63.129.16/32", "metadata"),
        ("192.0.0.192/32", "metadata"),
        ("0.0.0.0/32", "unspecified"),
        ("0.0.0.0/8", "reserved"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "reserved"),
        ("192.88.99.0/24", "6to4"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "reserved"),
        ("198.51.100.0/24", "reserved"),
        ("203.0.113.0/24", "reserved"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_IPV6: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(net), words)
    for net, words in (
        ("fd00:ec2::254/128", "metadata"),
        ("fd20:ce::254/128", "metadata"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", "IPv4-compatible"),
        ("64:ff9b:1::/48", "NAT64 local use"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "reserved"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "reserved"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = IPv6Network("2000::/3")


class PrivateAddressError(OSError):
    """An address that is not public was about to be dialled.

    Its text is the same for every address: the connector merges the errors of a host's addresses, and keeps
    the first as it is only when all read alike.

    Attributes:
        address: The address that was refused.
        words: What kind of address it is.
    """

    def __init__(self, address: str, words: str) -> None:
        super().__init__("the address is not public and download.allow_private is false")
        self.address = address
        self.words = words


def refusal(address: str) -> str | None:
    """Say why an address may not be dialled.

    IPv4 inside IPv6 is judged by the IPv4 address where networks really route it so (mapped, NAT64), and
    refused outright in the retired forms (compatible, 6to4, Teredo).

    Args:
        address: A literal in canonical spelling. Anything else is refused, because the system resolver might
            still read an address out of it ("0177.0.0.1", "2130706433").

    Returns:
        None when the address is public, else the kind of address in words.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return "not an address"
    return _refusal_4(parsed) if isinstance(parsed, IPv4Address) else _refusal_6(parsed)


def _refusal_4(address: IPv4Address) -> str | None:
    return next((words for net, words in _IPV4 if address in net), None)


def _refusal_6(address: IPv6Address) -> str | None:
    plain = IPv6Address(int(address))  # a scope ("%eth0") would hide the address from the comparisons below
    if plain.ipv4_mapped is not None:
        return _embedded("IPv4-mapped", plain.ipv4_mapped)
    if plain in _NAT64:
        return _embedded("NAT64", IPv4Address(int(plain) & 0xFFFFFFFF))
    listed = next((words for net, words in _IPV6 if plain in net), None)
    return listed or (None if plain in _GLOBAL_UNICAST else "reserved")


def _embedded(form: str, inner: IPv4Address) -> str | None:
    words = _refusal_4(inner)
    return f"{form} {words}" if words else None


def guarded_socket(allow_private: bool) -> Callable[[AddrInfo], socket.socket]:
    """Make the socket factory for aiohttp's connector.

    Args:
        allow_private: Whether to dial any address. Only worlds that live on loopback set it.

    Returns:
        A function from one getaddrinfo tuple to a fresh socket for exactly that address; it raises
        PrivateAddressError instead of making a socket for an address that is not public.
    """

    def make(info: AddrInfo) -> socket.socket:
        family, kind, protocol, _, sockaddr = info
        words = None if allow_private else refusal(str(sockaddr[0]))
        if words is not None:
            raise PrivateAddressError(str(sockaddr[0]), words)
        return socket.socket(family=family, type=kind, proto=protocol)

    return make

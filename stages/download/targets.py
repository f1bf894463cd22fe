"""From the text of a url to what may be asked of whom."""

import re
import socket
from urllib.parse import urljoin

from yarl import URL

SCHEMES = ("http", "https")

_PRINTABLE = re.compile(r"[!-~]+")
# Every spelling that the system's inet_aton reads as an IPv4 address: one to four decimal, octal or hex parts.
_NUMERIC_HOST = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}\.?", re.IGNORECASE)


def parse_target(text: str) -> URL:
    """Read a url leniently where browsers do, and refuse the rest.

    Spaces around it, characters outside ASCII and odd escapes are mended by quoting. A user name and password
    are removed and never sent: in a published list they are an accident. A fragment is removed. A number
    spelled as host ("2130706433", "0x7f.1") becomes the address it means, so that it is checked as one.

    Args:
        text: Anything.

    Returns:
        An absolute http or https url.

    Raises:
        ValueError: It is none; the message is short and does not repeat the url.
    """
    try:
        url = URL(text.strip())
        scheme, host = url.scheme, url.raw_host
        if scheme in SCHEMES and host:
            if url.raw_user is not None or url.raw_password is not None:
                url = url.with_user(None)
            return _with_plain_host(url.with_fragment(None), host)
    except (ValueError, TypeError) as error:
        msg = f"not a url: {type(error).__name__}"
        raise ValueError(msg) from error
    raise ValueError("the url names no host" if scheme in SCHEMES else f"scheme {scheme!r} is not http or https")


def parse_redirect(at: URL, location: str) -> URL:
    """Read a Location header against the url that sent it.

    Args:
        at: The url that answered with a redirect.
        location: The header's value, absolute or relative.

    Returns:
        As parse_target.

    Raises:
        ValueError: As parse_target.
    """
    try:
        joined = urljoin(str(at), location.strip())
    except ValueError as error:
        raise ValueError("the redirect does not lead to a url") from error
    return parse_target(joined)


def _with_plain_host(url: URL, host: str) -> URL:
    if not _PRINTABLE.fullmatch(host):
        raise ValueError("the host holds characters that no name has")
    if not _NUMERIC_HOST.fullmatch(host):
        return url
    try:
        plain = socket.inet_ntoa(socket.inet_aton(host.rstrip(".")))
    except OSError as error:
        raise ValueError("the host is no IPv4 address") from error
    return url if plain == host else url.with_host(plain)

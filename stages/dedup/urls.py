"""When two urls count as the same url: equal after the few changes that cannot change what is fetched."""

import re

_HTTP = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.IGNORECASE | re.ASCII | re.DOTALL)
_HOST_PORT = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]*))?", re.ASCII)
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}", re.ASCII)
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_DEFAULT_PORT = {"http": "80", "https": "443"}


def normalise(url: str) -> str:
    """The form of a url under which two rows are the same url.

    For http and https (RFC 3986, 6.2.2 and 6.2.3): the scheme is dropped, because the crawls behind the sources list
    one picture under both; the host is lower-cased; an empty or default port and the fragment are dropped; an empty
    path becomes "/"; percent-escapes of unreserved characters (letters, digits, - . _ ~) are decoded in path and query.
    Nothing else: path, query and their order are kept, since servers may tell them apart. Applying it again changes
    nothing.

    Args:
        url: any text.

    Returns:
        "//host/path?query", or the text as it came if it is no http url with a readable host and port.
    """
    parts = _HTTP.fullmatch(url)
    if parts is None:
        return url
    scheme, authority, path, query = parts[1].lower(), parts[2], parts[3], parts[4] or ""
    user, at, host_port = authority.rpartition("@")
    host_and_port = _HOST_PORT.fullmatch(host_port)
    if host_and_port is None or not host_and_port[1]:
        return url
    host, port = host_and_port[1].lower(), host_and_port[2]
    if port and port != _DEFAULT_PORT[scheme]:
        host = f"{host}:{port}"
    return f"//{user}{at}{host}{_ESCAPE.sub(_decode, path or '/')}{_ESCAPE.sub(_decode, query)}"


def _decode(escape: re.Match[str]) -> str:
    character = chr(int(escape[0][1:], 16))
    return character if character in _UNRESERVED else escape[0]

"""From an exception of the network to a reason of the closed list."""

import errno
import socket
import ssl

import aiohttp
from aiohttp.http import HttpProcessingError

from stages.download.addresses import PrivateAddressError
from stages.download.resolver import name_is_missing

NETWORK_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError)
"""What an exchange may raise; TimeoutError is an OSError."""

_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_RESET = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})


def reason_for(error: BaseException) -> tuple[str, str]:
    """Classify what an exchange raised.

    Args:
        error: One of NETWORK_ERRORS.

    Returns:
        The reason and a detail that is the same every time.

    Raises:
        OSError: This machine, not the server, is at fault (no file handles or memory left): `error` itself.
    """
    found = _reason_for_http(error)
    if found is not None:
        return found
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, PrivateAddressError):
        return "download.private_address", f"{cause.address} is {cause.words}"
    if isinstance(cause, ssl.SSLError):
        return "download.tls", _tls_detail(cause)
    if isinstance(cause, socket.gaierror):
        return _reason_for_name(cause)
    if not isinstance(cause, OSError):
        return "download.reset", type(error).__name__
    if cause.errno in _OURS:
        raise cause
    if cause.errno == errno.ETIMEDOUT:
        return "download.timeout", "the connection timed out"
    if cause.errno in _RESET or not isinstance(error, aiohttp.ClientConnectorError):
        return "download.reset", "the connection was reset"
    return "download.refused", errno.errorcode.get(cause.errno or 0, "no address could be connected")


def _reason_for_http(error: BaseException) -> tuple[str, str] | None:
    """The classes that need no look at the operating system's error."""
    match error:
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return "download.bad_scheme", "the url cannot be asked for"
        case aiohttp.ConnectionTimeoutError():
            return "download.timeout", "no connection within connect_s"
        case aiohttp.SocketTimeoutError():
            return "download.timeout", "no bytes within read_s"
        case aiohttp.ClientPayloadError():
            return "download.short_body", "the body ended early"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return "download.reset", "the answer is not HTTP, or its headers are too large"
        case aiohttp.ServerDisconnectedError():
            return "download.reset", "the server closed the connection"
        case TimeoutError(errno=None):
            return "download.timeout", str(error) or "not complete within total_s"  # the watch says of what
        case _:
            return None


def _reason_for_name(error: socket.gaierror) -> tuple[str, str]:
    if name_is_missing(error):
        return "download.dns", "the name does not exist"
    return "download.dns_temporary", "the name could not be looked up"


def _tls_detail(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message}"
    return f"no secure connection: {error.reason or 'handshake failed'}"

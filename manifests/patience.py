"""Asking a store again: what is worth it, how long, and the words at the end.

The SDKs retry on their own what a request meets: botocore (5 attempts by default, AWS_MAX_ATTEMPTS) server errors,
throttling and broken connections; s3fs again those, 5 times; gcsfs the like, 6 times. Here is what is left after them:
a body that broke off or came short, a conditional write that met another (409), and outages that last longer.
"""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from manifests.objects import StoreError, StoreRefusedError

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_SAID_AFTER_S = 5.0
_T = TypeVar("_T")

# Kinds of errors that stores' clients raise beside OSError; a client that is not loaded raised none.
_KINDS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("botocore.parsers", "ResponseParserError"),
    ("aiohttp", "ClientError"),
    ("urllib3.exceptions", "HTTPError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("oss2.exceptions", "OssError"),
    ("requests.exceptions", "RequestException"),
)
_PASSING_CODES = frozenset({
    "BadDigest", "ConditionalRequestConflict", "IncompleteBody", "InternalError", "NoSuchUpload", "OperationAborted",
    "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling", "XAmzContentSHA256Mismatch",
})  # fmt: skip
_PASSING_STATUS = frozenset({408, 409, 425, 429})
_LASTING_KINDS = frozenset({
    "CredentialRetrievalError", "InvalidRegionError", "NoCredentialsError", "NoRegionError", "ParamValidationError",
    "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError", "UnauthorizedSSOTokenError",
})  # fmt: skip
_UNREACHABLE_KINDS = frozenset({
    "ClientConnectorError", "ConnectionRefusedError", "ConnectTimeout", "ConnectTimeoutError",
    "EndpointConnectionError", "NewConnectionError", "ProxyConnectionError", "SSLError", "gaierror",
})  # fmt: skip
_LASTING = (FileExistsError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


class ShortReadError(OSError):
    """Fewer bytes came than the object holds."""


class _Voice:
    """Says that a store is waited for: many operations meet one outage, and it is said once."""

    def __init__(self) -> None:
        self.say: Callable[[str], None] | None = None
        self._lock = threading.Lock()
        self._said_s: dict[str, float] = {}

    def tell(self, where: str, words: str, patience_s: float) -> None:
        if self.say is None:
            return
        now_s = time.monotonic()
        with self._lock:
            if now_s - self._said_s.get(where, -float("inf")) < patience_s:
                return
            self._said_s[where] = now_s
        self.say(words)


_VOICE = _Voice()


def say_through(say: Callable[[str], None] | None) -> None:
    """Have one line said when a store has not answered for some seconds and is asked on.

    Args:
        say: Called with the line, from whatever thread; None, as in workers, whom nobody told: nothing is said.
    """
    _VOICE.say = say


def failures() -> tuple[type[Exception], ...]:
    """Return the kinds of errors that the clients loaded here may raise for a request."""
    kinds = [getattr(sys.modules.get(module), name, None) for module, name in _KINDS]
    return (OSError, *(kind for kind in kinds if isinstance(kind, type)))


def code_of(error: BaseException) -> str:
    """Return the store's own code of an error, e.g. ``SlowDown``, of S3's kind; empty where it has none."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict) and isinstance(response.get("Error"), dict):
            return str(response["Error"].get("Code", ""))
    return ""


def is_passing(error: BaseException) -> bool:
    """Return whether another attempt may meet better luck."""
    if code := code_of(error):
        said = int(code) if code.isdigit() else _status(error) or 0
        return code in _PASSING_CODES or said >= 500 or said in _PASSING_STATUS
    if isinstance(error, _LASTING) or type(error).__name__ in _LASTING_KINDS:
        return False
    status = _status(error)
    return status is None or status >= 500 or status in _PASSING_STATUS


def patiently(call: Callable[[], _T], where: str, what: str, patience_s: float) -> _T:
    """Return what ``call`` returns, asking again with exponential back-off and jitter.

    Args:
        call: One operation on the store that may be done twice.
        where: The store's URI, for the error.
        what: The operation and its object, for the error.
        patience_s: After which no further attempt is begun.

    Raises:
        FileNotFoundError, FileExistsError: The store's plain answers.
        StoreRefusedError: What would be met again: no right, no bucket, no credentials.
        StoreError: If patience ran out.
    """
    begun, attempts = time.monotonic(), 0
    while True:
        attempts += 1
        try:
            return call()
        except failures() as error:
            if not is_passing(error):
                if isinstance(error, FileNotFoundError | FileExistsError) and code_of(error) != "NoSuchBucket":
                    raise
                raise StoreRefusedError(_refused(where, what, error)) from error
            pause_s = min(_FIRST_PAUSE_S * 2 ** min(attempts - 1, 16), _LONGEST_PAUSE_S)
            pause_s *= 0.5 + secrets.SystemRandom().random() / 2
            waited_s = time.monotonic() - begun
            if waited_s + pause_s > patience_s:
                raise StoreError(
                    f"{where}: {what} failed {attempts} times in {waited_s:.0f} s, beside the client's own attempts; "
                    f"the last time: {_words(error)}; {_address(error)}nothing half-written counts: run the same "
                    "command again when the store answers, or let it be asked for longer with "
                    "--set store.patience_s=SECONDS"
                ) from error
            if waited_s + pause_s >= _SAID_AFTER_S:
                problem = "does not answer" if _is_unreachable(error) else "answers with errors"
                words = f"{where} {problem}: {_words(error)}; asking for up to {patience_s:g} s"
                _VOICE.tell(where, words, patience_s)
        time.sleep(pause_s)


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of an answer; what a broken body was caused by has one too, but that is no answer."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return found if isinstance(found, int) else None
    found = getattr(error, "status", getattr(error, "code", None))
    return found if isinstance(found, int) else None


def _words(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _is_unreachable(error: BaseException) -> bool:
    """Return whether no server was met at all: a name that is not known, a port that is not open."""
    one: BaseException | None = error
    while one is not None:
        if any(kind.__name__ in _UNREACHABLE_KINDS for kind in type(one).__mro__):
            return True
        one = one.__cause__ or one.__context__
    return False


def _address(error: BaseException) -> str:
    if not _is_unreachable(error):
        return ""
    return "check the store's address, store.endpoint (for S3 also AWS_ENDPOINT_URL), and this machine's network; "


def _refused(where: str, what: str, error: BaseException) -> str:
    return (
        f"{where}: {what} is refused: {_words(error)}; check that the bucket exists and that these credentials may "
        "read, write and list it (store.endpoint, store.profile, store.region, or the SDK's environment variables)"
    )

"""What img2dataset says of a failure, in words, put into the closed list of reasons."""

import os
import re

from stages.download.consent import X_ROBOTS_TAG

HANGS = "img2dataset hangs"
NO_ROW = "img2dataset gave no row"
"""What we say in the library's stead: it was still at it when it was ended, or was done without a word about a url."""

# What the library's error_message holds: str() of what urllib raised. A status line or the words after a status are
# the server's to choose, so the patterns are bound to the whole text and the first one that fits decides.
_URLOPEN = r"(?:<urlopen error )?"
_ERRORS: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), f"download.{reason}", words)
    for pattern, reason, words in (
        (r"Use of image disallowed by X-Robots-Tag directive", "opt_out", f"{X_ROBOTS_TAG} refuses"),
        (r"HTTP Error 30\d: .*infinite loop.*", "too_many_redirects", "by img2dataset's own bound"),
        (r"HTTP Error 30\d: .* - Redirection to url '.*' is not allowed", "bad_scheme", "redirect: not http or https"),
        (r"<urlopen error (ftp error: .*|unknown url type: .*)>", "bad_scheme", "redirect: not http or https"),
        (r"URL can't contain .*|nonnumeric port: .*|no host given", "bad_scheme", "redirect: not a url"),
        (HANGS, "timeout", "not complete within total_s"),
        (r"IncompleteRead\(.*\)", "short_body", "the body ended early"),
        (_URLOPEN + r"\[Errno 110\] .*|.*timed out(>| \(_ssl\.c:\d+\)>?)?", "timeout", "no bytes within read_s"),
        (_URLOPEN + r"(\[SSL.*|EOF occurred in violation of protocol.*|\[X509.*)", "tls", "no secure connection"),
        (_URLOPEN + r"(certificate verify failed|hostname .* doesn't match).*", "tls", "no secure connection"),
        (r"<urlopen error \[Errno -[25]\] .*>", "dns", "the name does not exist"),
        (r".*'idna' codec.*|label (empty|too long).*", "dns", "the name cannot exist"),
        (r"<urlopen error \[Errno -\d+\] .*>", "dns_temporary", "the name could not be looked up"),
        (_URLOPEN + r"\[Errno (32|103|104)\] .*", "reset", "the connection was reset"),
        (r"Remote end closed connection without response", "reset", "the server closed the connection"),
        (r"<urlopen error \[Errno (13|22|97|99|101|111|112|113)\] .*>", "refused", "no address could be connected"),
    )
)
_STATUS = re.compile(r"HTTP Error (\d{3}): ")
_NO_HANDLES = re.compile(_URLOPEN + r"\[Errno 2[34]\] .*")


def reason_of(error: str) -> tuple[str, int | None, str]:
    """Put the library's words into a reason.

    Args:
        error: Its error_message.

    Returns:
        The reason, the HTTP status if one is known, and a detail; words that are not known are a reset.

    Raises:
        OSError: The words say that this machine has no file handles left, and so it is.
    """
    found = _STATUS.match(error)
    status = int(found[1]) if found else None
    for pattern, reason, words in _ERRORS:
        if pattern.fullmatch(error):
            return reason, 200 if reason == "download.opt_out" else status, words
    if status is not None:
        return _reason_of_status(status), status, f"HTTP status {status}"
    if _NO_HANDLES.fullmatch(error):
        os.close(os.open(os.devnull, os.O_RDONLY))  # a server may send these words too: ask the system itself
    return "download.reset", None, error


def _reason_of_status(status: int) -> str:
    if status in (403, 404, 410, 429):
        return f"download.http_{status}"
    return "download.http_5xx" if 500 <= status < 600 else "download.http_4xx"

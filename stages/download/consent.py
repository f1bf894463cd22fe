"""What the headers of an answer say about its use: X-Robots-Tag and the TDM Reservation Protocol."""

import re

from multidict import CIMultiDictProxy

from stages.download.answers import ROBOT, Consent, shorten

ROBOTS_TXT = "robots.txt"
X_ROBOTS_TAG = "X-Robots-Tag"
TDM = "tdm-reservation"
"""How the detail of an opt_out begins, by where the refusal was read."""

REFUSING = frozenset({"noai", "noimageai", "noindex", "noimageindex", "noml", "none"})
"""Directives that refuse: those of search engines, `none` being noindex and nofollow, and those against training."""

MAX_CHARS = 65_536
"""How much of one answer's X-Robots-Tag is read; aiohttp lets through at most 128 lines of 8 KiB."""

_TDM_POLICY = "tdm-policy"
_EVERYONE = frozenset({"*", "all", "robots"})
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_NAME = re.compile(r"[A-Za-z0-9_*][A-Za-z0-9_./*-]*$")
_DATE = re.compile(r"\d[\d-]*(?:T\d+)?$", re.IGNORECASE)
_PARAMETER = re.compile(r"\s*(?:max-[a-z-]+|unavailable[_-]after)\b(?!-)", re.IGNORECASE)
_TOKEN = re.compile(r"[A-Za-z0-9_-]+")


def refusal(headers: CIMultiDictProxy[str], consent: Consent) -> str | None:
    """Say what refuses the use of an answer.

    X-Robots-Tag is read as search engines document it: directives separated by commas, each perhaps behind the name of
    the robot it is meant for, which then holds to the end of the line or to the next name. `tdm-reservation` is read as
    in the TDM Reservation Protocol (W3C Community Group report, section 5): 1 refuses, anything else does not.

    Args:
        headers: Of any answer, a redirect or an error included.
        consent: What is heeded.

    Returns:
        What was read, such as "X-Robots-Tag: noai", printable and at most 200 bytes; None where nothing refuses.
    """
    if consent.headers:
        left = MAX_CHARS
        for line in headers.getall(X_ROBOTS_TAG, ()):
            found = _refusing(line[:left])
            if found is not None:
                return shorten(f"{X_ROBOTS_TAG}: {found}")
            left -= min(left, len(line))
    if consent.tdm and any(_reserves(value) for value in headers.getall(TDM, ())):
        policy = headers.get(_TDM_POLICY, "").strip()
        return shorten(f"{TDM}: 1" + (f", {_TDM_POLICY}: {policy}" if policy else ""))
    return None


def heeded(detail: str | None, consent: Consent) -> bool:
    """Say whether a recorded opt_out would be one today.

    Args:
        detail: As recorded.
        consent: What is heeded today.

    Returns:
        False where what refused then is no longer looked at. A detail of none of the three kinds is heeded.
    """
    words = detail or ""
    if words.startswith(ROBOTS_TXT):
        return consent.robots
    if words.startswith(X_ROBOTS_TAG):
        return consent.headers
    if words.startswith(TDM):
        return consent.tdm
    return True


def names_us(agent: str) -> bool:
    """Whether a robot's name is ours: the product token alone decides, in any case, whatever version follows.

    Args:
        agent: As an owner wrote it: "rs5m-build", "RS5M-Build/0.1 (+https://example.org)".
    """
    token = _TOKEN.match(agent)
    return token is not None and token[0].lower() == ROBOT


def _reserves(value: str) -> bool:
    # Proxies fold repeated headers into one list.
    return any(part.strip() == "1" for part in value[:MAX_CHARS].split(","))


def _refusing(line: str) -> str | None:
    """Find the first directive of a line that refuses us, in time linear in its length."""
    ours, robot = True, ""
    for item in line.replace(";", ",").split(","):
        *names, text = item.split(":", 2)
        for name in names:
            if _PARAMETER.match(name):
                text = ""  # its value may hold anything: "max-image-preview:none" refuses nothing
                break
            before, last = _split_name(name)
            if ours and (found := _first(before)):
                return robot + found
            if last.lower() in REFUSING:  # "noai: 1" is nobody's name
                text = f"{last} {text}"
            elif _is_robot(last):
                ours = last.lower() in _EVERYONE or names_us(last)
                robot = f"{last}: "
            else:
                break  # a date goes on behind a comma: "25 Jun 2010 15:00:00 PST"
        if ours and not _PARAMETER.match(text) and (found := _first(text)):
            return robot + found
    return None


def _split_name(name: str) -> tuple[str, str]:
    """Part "noindex googlebot" into what stands before a robot's name and the name: commas are forgotten."""
    before, _, last = name.strip().rpartition(" ")
    return before, last


def _is_robot(name: str) -> bool:
    return _NAME.match(name) is not None and _DATE.match(name) is None


def _first(text: str) -> str | None:
    return next((word for word in (found[0].lower() for found in _WORD.finditer(text)) if word in REFUSING), None)

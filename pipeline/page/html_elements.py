"""HTML built from elements: whatever is no element already is escaped, so that no stranger's text becomes markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_VOID = frozenset({"img", "meta"})
_LINKED = re.compile(r"https?://[\x21-\x7e]{1,2000}", re.IGNORECASE)
_CUT = "\u2026"


class Html(str):
    """Markup that is finished: it goes into other markup as it is."""

    __slots__ = ()


def element(name: str, /, *content: str, **attributes: str | int) -> Html:
    """Return one element.

    Args:
        name: Of the element.
        content: Elements go in as they are, other text escaped, with control characters made visible.
        attributes: By name, an underscore for a hyphen and one behind a Python keyword; values are escaped.
    """
    named = "".join(f' {_name(key)}="{_escaped(str(value))}"' for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{named}>")
    return Html(f"<{name}{named}>{joined(content)}</{name}>")


def joined(content: Iterable[str], between: str = "") -> Html:
    """Return elements and text one after the other, the text escaped."""
    return Html(_escaped(between).join(part if isinstance(part, Html) else _escaped(part) for part in content))


def cut(text: str, most: int) -> str:
    """Return text of at most ``most`` characters; one that was longer ends in an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + _CUT


def link(url: str, most: int) -> Html:
    """Return a url as text of at most ``most`` characters, linked if it is http or https of printable ASCII alone."""
    text = cut(url, most)
    if not _LINKED.fullmatch(url):
        return element("bdi", text)
    return element("a", element("bdi", text), href=url, rel="noopener noreferrer nofollow")


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _escaped(text: str) -> str:
    return html.escape("".join(map(_visible, text)), quote=True)


def _visible(char: str) -> str:
    """Return a character that shows: controls, marks of writing direction and the like as their escapes."""
    if char.isprintable():
        return char
    return " " if char.isspace() else char.encode("unicode_escape").decode("ascii")

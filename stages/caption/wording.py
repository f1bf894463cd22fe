"""Captions are strangers' text, also when a model of our own wrote them: one clean line of bounded length."""

from __future__ import annotations

import unicodedata

MAX_CHARACTERS = 1000
"""Far above what a captioner of 50 tokens writes or what CLIP reads (77 tokens)."""

# Letters of some scripts join or part by these two; every other invisible format character is dropped.
_JOINERS = frozenset("\u200c\u200d")


def clean(text: str) -> str:
    """Return ``text`` in NFC with runs of white space as one space, without control or invisible characters.

    A text of more than `MAX_CHARACTERS` characters is cut after its last whole word within them. White space, joiners
    and unassigned characters alone make an empty text.
    """
    shown = "".join(_shown(char) for char in unicodedata.normalize("NFC", text))
    line = " ".join(shown.split())
    if len(line) > MAX_CHARACTERS:
        head = line[: MAX_CHARACTERS + 1]
        line = head.rpartition(" ")[0] or head[:MAX_CHARACTERS]
    return line if any(char not in _JOINERS and not char.isspace() for char in line) else ""


def _shown(char: str) -> str:
    category = unicodedata.category(char)
    if char.isspace() or category in ("Cc", "Zl", "Zp"):
        return " "
    return "" if category[0] == "C" and char not in _JOINERS else char

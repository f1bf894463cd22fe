"""Strangers' text before it enters a release: one clean line of bounded length.

Captions are strangers' text, also when a model of our own wrote them; so are the names and labels of a source.
"""

from __future__ import annotations

import unicodedata

MAX_CHARACTERS = 1000
"""Of a caption: far above what a captioner of 50 tokens writes or what CLIP reads (77 tokens)."""

MAX_FACT_CHARACTERS = 100
"""Of one name or label: the longest class of fMoW, BigEarthNet and MillionAID has 86."""

# Letters of some scripts join or part by these two; every other invisible format character is dropped.
_JOINERS = frozenset("\u200c\u200d")


def clean(text: str, most: int = MAX_CHARACTERS) -> str:
    """Return ``text`` in NFC with runs of white space as one space, without control or invisible characters.

    Invisible are marks of writing direction too. White space, joiners and unassigned characters alone make an empty
    text.

    Args:
        text: Any text.
        most: Characters; a longer text is cut after its last whole word within them.
    """
    shown = "".join(_shown(char) for char in unicodedata.normalize("NFC", text))
    line = " ".join(shown.split())
    if len(line) > most:
        head = line[: most + 1]
        line = head.rpartition(" ")[0] or head[:most]
    return line if any(char not in _JOINERS and not char.isspace() for char in line) else ""


def clean_fact(value: object) -> str:
    """Return a name or a label of a source as a clean line of at most `MAX_FACT_CHARACTERS`; empty for no text."""
    return clean(value, MAX_FACT_CHARACTERS) if isinstance(value, str) else ""


def _shown(char: str) -> str:
    category = unicodedata.category(char)
    if char.isspace() or category in ("Cc", "Zl", "Zp"):
        return " "
    return "" if category[0] == "C" and char not in _JOINERS else char

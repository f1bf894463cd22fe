r"""Which texts hold a keyword.

The definition, in full:

- Letters: upper and lower case of A-Z are equal, and the two other characters whose simple case folding is an ASCII
  letter count as that letter (U+017F long s, U+212A Kelvin sign). Nothing else is folded: a fullwidth letter, a
  dotted capital I or an accented letter is not its ASCII look-alike, and the text is not normalised.
- A space in an entry is one or more characters of Unicode White_Space (line breaks and no-break spaces included).
- A hyphen in an entry is one hyphen: U+002D, U+2010 or U+2011.
- Mode `stem`: an entry begins at the start of the text or after a character that belongs to no word, and a name also
  ends at the end of the text or before one. What belongs to a word: letters, marks, numbers (general categories L, M,
  N) and the underscore. Categories are those of Unicode 3.2, which every CPython carries (`unicodedata.ucd_3_2_0`),
  so that a newer Python or pyarrow does not change a build; a character assigned later belongs to no word.
- Mode `substring`: no boundaries.

An engine (`stages.filter.prefilter`) scans whole columns without boundaries, which finds a superset; only its finds
meet the exact test in Python, so that no engine's own idea of a boundary or of Unicode decides.
"""

import re
import unicodedata
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests.lexicon import Lexicon
from stages.filter.prefilter import FOLD, HYPHENS, SPACES, Prefilter, make_prefilter

Mode = Literal["stem", "substring"]


def _in_word(char: str) -> bool:
    if char.isascii():
        return char == "_" or char.isalnum()
    return unicodedata.ucd_3_2_0.category(char)[0] in "LMN"


def _words(entry: str) -> list[str]:
    return re.split("[ -]", entry.lower())


def _python_pattern(entry: str) -> str:
    spaces = "".join(map(chr, SPACES))
    hyphens = "".join(map(chr, HYPHENS))
    return entry.lower().replace("-", f"[{re.escape(hyphens)}]").replace(" ", f"[{re.escape(spaces)}]+")


class Matcher:
    """Finds the keywords of a lexicon in texts.

    Args:
        lexicon: The entries.
        mode: `stem` for word boundaries as the module says, `substring` for none.
        takes_all: Whether texts without a keyword are accepted too.
        prefilter: The engine that looks first; None: the fastest one here.

    Raises:
        ValueError: Unknown mode.
    """

    def __init__(
        self, lexicon: Lexicon, mode: Mode, *, takes_all: bool = False, prefilter: Prefilter | None = None
    ) -> None:
        if mode not in ("stem", "substring"):
            raise ValueError(f"unknown match mode {mode!r}; use 'stem' or 'substring'")
        self.takes_all = takes_all
        self._bounded = mode == "stem"
        self._whole = frozenset(lexicon.names)
        entries = lexicon.stems + lexicon.names
        by_head: dict[str, list[tuple[int, str, str, re.Pattern[str]]]] = {}
        for place, entry in enumerate(entries):
            words = _words(entry)
            by_head.setdefault(words[0], []).append((place, entry, words[-1], re.compile(_python_pattern(entry))))
        self._by_head = tuple(by_head.items())
        self._prefilter = prefilter or make_prefilter(entries)

    def accepts(self, keywords: tuple[str, ...]) -> bool:
        """Tell whether a text with these keywords stays."""
        return self.takes_all or bool(keywords)

    def possible(self, texts: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
        """Tell which texts may stay: all that do, and a few that do not.

        Args:
            texts: Strings (string or large_string), nulls allowed. Invalid UTF-8 does no harm.

        Returns:
            (rows,) bool; a null text is False.
        """
        if self.takes_all:
            return np.ones(len(texts), np.bool_)
        whole = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
        return self._prefilter.possible(whole)

    def keywords(self, text: str) -> tuple[str, ...]:
        """Name the entries that match a text.

        Args:
            text: Any text.

        Returns:
            The entries as the lexicon writes them, in its order, stems before names.
        """
        folded = text.lower() if text.isascii() else text.translate(FOLD)
        found: list[tuple[int, str]] = []
        for head, entries in self._by_head:
            if head in folded:  # the first word rules most entries out, the last one most of the others
                for place, entry, tail, pattern in entries:
                    if tail in folded and self._stands(entry, pattern, folded):
                        found.append((place, entry))
        return tuple([entry for _, entry in sorted(found)])

    def _stands(self, entry: str, pattern: re.Pattern[str], text: str) -> bool:
        hit = pattern.search(text)
        while hit and self._bounded:
            left = hit.start() == 0 or not _in_word(text[hit.start() - 1])
            right = entry not in self._whole or hit.end() == len(text) or not _in_word(text[hit.end()])
            if left and right:
                return True
            hit = pattern.search(text, hit.start() + 1)  # not finditer: an entry may overlap itself ("a-a" in "xa-a-a")
        return hit is not None

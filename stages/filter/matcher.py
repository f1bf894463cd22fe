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

RE2 (through pyarrow) scans whole columns with a pattern without boundaries, which finds a superset; only its finds meet
the exact test in Python. RE2's own boundary is ASCII, and its Unicode tables move with pyarrow's version.
"""

import re
import unicodedata
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.lexicon import Lexicon

Mode = Literal["stem", "substring"]

_SPACES = (9, 10, 11, 12, 13, 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
_HYPHENS = (0x2D, 0x2010, 0x2011)
_FOLD = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)} | {0x17F: ord("s"), 0x212A: ord("k")}


def _in_word(char: str) -> bool:
    return char == "_" or unicodedata.ucd_3_2_0.category(char)[0] in "LMN"


def _head(entry: str) -> str:
    return re.split("[ -]", entry.lower(), maxsplit=1)[0]


def _python_pattern(entry: str) -> str:
    spaces = "".join(map(chr, _SPACES))
    hyphens = "".join(map(chr, _HYPHENS))
    return entry.lower().replace("-", f"[{re.escape(hyphens)}]").replace(" ", f"[{re.escape(spaces)}]+")


def _re2_pattern(entry: str) -> str:
    spaces = "".join(f"\\x{{{code:X}}}" for code in _SPACES)
    hyphens = "".join(f"\\x{{{code:X}}}" for code in _HYPHENS)
    return entry.lower().replace("-", f"[{hyphens}]").replace(" ", f"[{spaces}]+")


class Matcher:
    """Finds the keywords of a lexicon in texts.

    Args:
        lexicon: The entries.
        mode: `stem` for word boundaries as the module says, `substring` for none.
        takes_all: Whether texts without a keyword are accepted too.

    Raises:
        ValueError: Unknown mode.
    """

    def __init__(self, lexicon: Lexicon, mode: Mode, *, takes_all: bool = False) -> None:
        if mode not in ("stem", "substring"):
            raise ValueError(f"unknown match mode {mode!r}; use 'stem' or 'substring'")
        self.takes_all = takes_all
        self._bounded = mode == "stem"
        self._whole = frozenset(lexicon.names)
        entries = lexicon.stems + lexicon.names
        self._entries = tuple((entry, _head(entry), re.compile(_python_pattern(entry))) for entry in entries)
        self._superset = "(?i)(?:" + "|".join(_re2_pattern(entry) for entry in entries) + ")"

    def accepts(self, keywords: tuple[str, ...]) -> bool:
        """Tell whether a text with these keywords stays."""
        return self.takes_all or bool(keywords)

    def possible(self, texts: pa.Array | pa.ChunkedArray) -> pa.BooleanArray:
        """Tell which texts may stay: all that do, and a few that do not.

        Args:
            texts: Strings (string or large_string), nulls allowed. Invalid UTF-8 does no harm.

        Returns:
            One boolean a row, no nulls; a null text is False.
        """
        if self.takes_all:
            return pa.array(np.ones(len(texts), np.bool_))
        found: Any = pc.fill_null(pc.match_substring_regex(texts, self._superset), fill_value=False)
        return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found

    def mask(self, texts: pa.Array | pa.ChunkedArray) -> pa.BooleanArray:
        """Tell which texts hold a keyword: exactly those for which `keywords` is not empty.

        Args:
            texts: Strings in valid UTF-8 (string or large_string), nulls allowed.

        Returns:
            One boolean a row, no nulls; a null text is False.
        """
        found = self.possible(texts).to_numpy(zero_copy_only=False)
        rows = found.nonzero()[0]
        for row, text in zip(rows.tolist(), texts.take(pa.array(rows)).to_pylist(), strict=True):
            found[row] = bool(self.keywords(text))
        return pa.array(found, pa.bool_())

    def keywords(self, text: str) -> tuple[str, ...]:
        """Name the entries that match a text.

        Args:
            text: Any text.

        Returns:
            The entries as the lexicon writes them, in its order, stems before names.
        """
        folded = text.translate(_FOLD)
        return tuple(
            entry
            for entry, head, pattern in self._entries
            if head in folded and self._stands(entry, pattern, folded)  # the head rules most entries out
        )

    def _stands(self, entry: str, pattern: re.Pattern[str], text: str) -> bool:
        hit = pattern.search(text)
        while hit and self._bounded:
            left = hit.start() == 0 or not _in_word(text[hit.start() - 1])
            right = entry not in self._whole or hit.end() == len(text) or not _in_word(text[hit.end()])
            if left and right:
                return True
            hit = pattern.search(text, hit.start() + 1)  # not finditer: an entry may overlap itself ("a-a" in "xa-a-a")
        return hit is not None

r"""Which texts of a column may hold a keyword: all that do, and a few that do not.

Hyperscan runs over the column's bytes as they lie in memory, all rows in one call, and names the ends of what it
found; where it is not installed, RE2 (through pyarrow) looks at row after row, at a third of the speed. What either
lets through meets the exact test of `stages.filter.matcher`, so that the rows kept do not depend on the engine.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

SPACES = (9, 10, 11, 12, 13, 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
"""Code points of Unicode White_Space."""
HYPHENS = (0x2D, 0x2010, 0x2011)
"""Code points that stand for an entry's hyphen."""
FOLD = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)} | {0x17F: ord("s"), 0x212A: ord("k")}
"""Characters that count as a small ASCII letter."""

_MAX_SCAN_BYTES = (1 << 31) - 1


def _hyperscan() -> Any:  # noqa: ANN401  (it is typed, but may be absent)
    """Return the library; None where there is no wheel of it for this machine."""
    try:
        return import_module("hyperscan")
    except ImportError:
        return None


class Prefilter(Protocol):
    """An engine over the entries of a lexicon."""

    def possible(self, texts: pa.Array) -> NDArray[np.bool_]:
        """Tell which texts may hold an entry.

        Args:
            texts: string or large_string, nulls allowed; bytes that are no UTF-8 do no harm.

        Returns:
            (rows,) bool; False for a null.
        """
        ...


def make_prefilter(entries: Iterable[str]) -> Prefilter:
    """Return the fastest engine this machine has for entries of ASCII words, spaces and hyphens."""
    library = _hyperscan()
    return Hyperscan(library, entries) if library else Re2(entries)


class Re2:
    """Row after row, through pyarrow."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._pattern = "(?i)(?:" + "|".join(_re2_pattern(entry) for entry in entries) + ")"

    def possible(self, texts: pa.Array) -> NDArray[np.bool_]:
        """See `Prefilter.possible`."""
        found = pc.fill_null(pc.match_substring_regex(texts, self._pattern), fill_value=False)
        mask: NDArray[np.bool_] = found.to_numpy(zero_copy_only=False)
        return mask


class Hyperscan:
    """All rows of a column in one call.

    Args:
        library: The module ``hyperscan``.
        entries: As for `make_prefilter`.
    """

    def __init__(self, library: Any, entries: Iterable[str]) -> None:  # noqa: ANN401
        expressions = sorted(_byte_patterns(entries))
        self._library = library
        self._database = library.Database()
        self._database.compile(
            expressions=expressions,
            ids=list(range(len(expressions))),
            elements=len(expressions),
            flags=[library.HS_FLAG_CASELESS] * len(expressions),
        )
        self._local = threading.local()

    def possible(self, texts: pa.Array) -> NDArray[np.bool_]:
        """See `Prefilter.possible`."""
        mask = np.zeros(len(texts), np.bool_)
        offsets, data = _buffers(texts)
        if data is None or offsets[0] == offsets[-1]:
            return mask
        if offsets[-1] - offsets[0] > _MAX_SCAN_BYTES:
            if len(texts) == 1:
                return np.ones(1, np.bool_)  # for the exact test to look at
            half = len(texts) // 2
            return np.concatenate([self.possible(texts[:half]), self.possible(texts[half:])])
        ends: list[int] = []

        def found(_id: int, _start: int, end: int, _flags: int, _context: object) -> None:
            ends.append(end)

        self._database.scan(
            memoryview(data)[int(offsets[0]) : int(offsets[-1])], match_event_handler=found, scratch=self._scratch()
        )
        # A find may run from one row into the next: it counts for the row it ends in, and the exact test refuses it.
        last_bytes = np.array(ends, np.int64) - 1 + offsets[0]
        mask[np.searchsorted(offsets, last_bytes, side="right") - 1] = True
        return mask

    def _scratch(self) -> Any:  # noqa: ANN401
        """Return this thread's working memory: a scan in another thread may not share it."""
        if not hasattr(self._local, "scratch"):
            self._local.scratch = self._library.Scratch(self._database)
        return self._local.scratch


def _buffers(texts: pa.Array) -> tuple[NDArray[Any], pa.Buffer | None]:
    """Return a column's offsets, one more than rows, and its bytes; None where it holds none."""
    large = pa.types.is_large_string(texts.type)
    _, offsets, data = texts.buffers()
    if offsets is None or len(texts) == 0:
        return np.zeros(1, np.int64), None
    whole = np.frombuffer(offsets, np.int64 if large else np.int32)
    return whole[texts.offset : texts.offset + len(texts) + 1], data


def _byte_patterns(entries: Iterable[str]) -> set[bytes]:
    """Return patterns over UTF-8 bytes, letters in any case, that find something in every text with an entry.

    An entry is looked for as it is written; then, for the rare text that writes its space or hyphen otherwise, what
    stands before it, followed by the first byte of any other separator; and the two characters beyond ASCII that count
    as a letter are looked for themselves. That is three times as fast as the entries as expressions with classes of
    spaces inside.
    """
    patterns = {re.escape(chr(code)).encode() for code, letter in FOLD.items() if code > 0x7F and letter}
    for entry in map(str.lower, entries):
        patterns.add(re.escape(entry).encode())
        for place in re.finditer("[ -]", entry):
            patterns.add(re.escape(entry[: place.start()]).encode() + _odd(place.group()))
    return patterns


def _odd(separator: str) -> bytes:
    """Return a pattern of how a separator may begin where it is not that one ASCII character before a letter."""
    codes = SPACES if separator == " " else HYPHENS
    firsts = sorted({chr(code).encode()[0] for code in codes} - {ord(separator)})
    odd = b"[" + b"".join(b"\\x%02x" % byte for byte in firsts) + b"]"
    return b"(?: ?" + odd + b"|  )" if separator == " " else odd


def _re2_pattern(entry: str) -> str:
    spaces = "".join(f"\\x{{{code:X}}}" for code in SPACES)
    hyphens = "".join(f"\\x{{{code:X}}}" for code in HYPHENS)
    return entry.lower().replace("-", f"[{hyphens}]").replace(" ", f"[{spaces}]+")

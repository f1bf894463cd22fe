r"""Reads the entries of a list in a JSON file as a stream: memory does not grow with the file.

The list is the whole file, or the value of one key of the object that the file is. Each entry is decoded by the
standard library's `json`, so what is wrong with one entry stays with it: it is handed on as `Refused`, and the next is
read. Bytes that are no UTF-8 and halves of surrogate pairs ("\ud800") come as lone surrogates in the text they stand
in; control characters are text; NaN and Infinity are numbers.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import BinaryIO

from stages.filter.records import MAX_LEVELS, MAX_RECORD_BYTES, is_deep
from stages.filter.rows import MetadataError

PIECE_BYTES = 1 << 20
"""Bytes read at a time."""
MAX_VALUE_CHARS = 16 << 20
"""A longer entry ends the reading; one of more than `MAX_RECORD_BYTES` characters is refused alone."""

_BLANK = re.compile(r"[ \t\n\r]*")
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
# A string, a bracket, or a quote whose string does not end in what was read.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}"]', re.DOTALL)
_NUMBER_TAIL = 4  # characters after a number that show that it ends: "1.", "1e" and "1e+" may go on
_TAIL_CHARS = 16  # what is cut short ends within these: the longest is "-Infinity", or an escape of six characters
_CUT_STRING = "Unterminated string"  # how `json` begins what it says of one; its place is where the string begins
_MAX_DIGITS = 4_000  # Python reads no integer of more than 4,300; a longer one is infinite
_DEEP = f"nested deeper than {MAX_LEVELS} levels"
_HEAD_ITEMS = 16
_TOLD_KEYS = 20
_TOLD_CHARS = 60


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry that is not handed on.

    Attributes:
        why: The reason.
    """

    why: str


class MissingListError(MetadataError):
    """A JSON file without the list that was asked for."""


def items(file: BinaryIO, key: str, name: str, *, piece_bytes: int = PIECE_BYTES) -> Iterator[object]:
    """Yield the entries of a list.

    Args:
        file: The JSON, unpacked; ``read(n)`` gives at most n bytes and none at the end.
        key: Which value of the file's object is the list; empty: the file is the list.
        name: What to call the file in an error.
        piece_bytes: Bytes read at a time; what is found does not depend on it.

    Yields:
        Entries as `json` decodes them, in file order; `Refused` for one that is nested deeper than `MAX_LEVELS` or has
        more than `MAX_RECORD_BYTES` characters.

    Raises:
        MissingListError: There is no such list: says what was found instead.
        MetadataError: The file is empty, cut short or no JSON, with the byte where; or an entry exceeds
            `MAX_VALUE_CHARS`. Entries before that were handed on.
    """
    text = _Text(file, name, piece_bytes)
    mark = text.peek()
    if not mark:
        raise MetadataError(f"{name}: the file is empty. Fetch it again.")
    if mark != ("{" if key else "["):
        raise _missing(name, key, {"{": "an object", "[": "a list"}.get(mark, "neither a list nor an object"))
    if not key:
        yield from text.entries()
    else:
        yield from _of_member(text, key, name)
    text.end()


def _of_member(text: _Text, key: str, name: str) -> Iterator[object]:
    found: list[str] = []
    met = False
    for member in text.members():
        is_list = text.peek() == "["
        if member == key and is_list:
            met = True
            yield from text.entries()
        else:
            found.append(ascii(member)[1:-1][:_TOLD_CHARS] + ("" if member != key else " (no list)"))
            del found[_TOLD_KEYS:]
            for _ in text.entries() if is_list else (text.value(),):
                pass
    if not met:
        raise _missing(name, key, "an object with the keys " + (", ".join(found) or "none"))


def _missing(name: str, key: str, found: str) -> MissingListError:
    wanted = f"an object with a list {key!r}" if key else "a list"
    return MissingListError(
        f"{name}: this format is {wanted}, but the file is {found}. Check that the file belongs to this source."
    )


def checked(
    coming: Iterator[object], check: Callable[[Sequence[str]], object]
) -> tuple[tuple[str, ...], Iterator[object]]:
    """Look at the keys of the first entries, so that a file of another source fails instead of giving bad rows.

    Args:
        coming: Entries (`items`).
        check: Raises MetadataError for keys that lack what is needed.

    Returns:
        The keys of the first objects, until they satisfy ``check``, and all entries.

    Raises:
        MetadataError: The keys of the first objects never satisfied ``check``.
    """
    head: list[object] = []
    keys: dict[str, None] = {}
    lacking: MetadataError | None = None
    for item in islice(coming, _HEAD_ITEMS):
        head.append(item)
        if isinstance(item, dict):
            keys |= {key if key.isprintable() else ascii(key): None for key in islice(item, _TOLD_KEYS)}
            try:
                check(tuple(keys))
            except MetadataError as error:
                lacking = error
            else:
                lacking = None
                break
    if lacking:
        raise lacking
    return tuple(keys), chain(head, coming)


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


_DECODER = json.JSONDecoder(strict=False)
_OF_LONG_NUMBERS = json.JSONDecoder(strict=False, parse_int=_whole)


class _Text:
    """The text of a JSON file from where reading stands; of what was read, no more than a value is held."""

    def __init__(self, file: BinaryIO, name: str, piece_bytes: int) -> None:
        self._file = file
        self._name = name
        self._piece_bytes = piece_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._text = ""
        self._at = 0
        self._passed_bytes = 0
        self._ended = False

    def peek(self) -> str:
        """Pass over blanks; return the next character, empty at the end."""
        while True:
            blanks = _BLANK.match(self._text, self._at)
            self._at = blanks.end() if blanks else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def entries(self) -> Iterator[object]:
        """Read a list, an entry at a time."""
        self._take("[")
        if self.peek() == "]":
            self._take("]")
            return
        while True:
            yield self.value()
            comma = _COMMA.match(self._text, self._at)
            if comma and comma.end() < len(self._text):
                self._at = comma.end()
            elif self._take(",]") == "]":
                return
            else:
                self.peek()

    def members(self) -> Iterator[str]:
        """Read an object: yields each key, whose value is to be read before the next is asked for."""
        self._take("{")
        mark = "," if self.peek() != "}" else self._take("}")
        while mark == ",":
            self.peek()
            key = self.value()
            if not isinstance(key, str):
                raise self._wrong("a key is no text")
            self._take(":")
            yield key
            mark = self._take(",}")

    def end(self) -> None:
        """Raise MetadataError unless nothing follows."""
        if self.peek():
            raise self._wrong("there is more after the end")

    def value(self) -> object:
        """Read the value that begins at the next character, which is no blank (`peek`)."""
        decoder = _DECODER
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self._at)
                length = end - self._at
                if len(self._text) - end < _NUMBER_TAIL and self._more():
                    continue
            except RecursionError:
                length = self._nested()
                value = Refused(_DEEP)
            except json.JSONDecodeError as error:
                ahead = error.pos - self._at
                # What is wrong before the end of what was read stays wrong, whatever comes.
                cut = error.msg.startswith(_CUT_STRING) or len(self._text) - error.pos < _TAIL_CHARS
                if cut and self._more():
                    continue
                raise self._wrong(error.msg, ahead) from error
            except ValueError:
                decoder = _OF_LONG_NUMBERS
                continue
            self._at += length
            if length > MAX_RECORD_BYTES:
                return Refused(f"more than {MAX_RECORD_BYTES} characters")
            return Refused(_DEEP) if is_deep(value) else value

    def _nested(self) -> int:
        """Return the length of a value that is nested too deeply to be decoded."""
        depth = length = 0
        while True:
            for token in _TOKEN.finditer(self._text, self._at + length):
                mark = token[0]
                if mark == '"':
                    break
                length = token.end() - self._at
                depth += (mark in ("[", "{")) - (mark in ("]", "}"))
                if not depth:
                    return length
            if not self._more():
                raise self._wrong("the file ends inside a list or an object")

    def _take(self, wanted: str) -> str:
        mark = self.peek()
        if not mark or mark not in wanted:
            raise self._wrong("expected " + " or ".join(wanted))
        self._at += 1
        return mark

    def _more(self) -> bool:
        """Read on; False at the end. What stands before the current position is let go."""
        if len(self._text) - self._at > MAX_VALUE_CHARS:
            raise self._wrong(f"a value of more than {MAX_VALUE_CHARS} characters")
        self._passed_bytes += _bytes(self._text[: self._at])
        self._text, self._at = self._text[self._at :], 0
        while not self._ended:
            data = self._file.read(self._piece_bytes)
            self._ended = not data
            if text := self._decoder.decode(data, final=self._ended):
                self._text += text
                return True
        return False

    def _wrong(self, why: str, ahead: int = 0) -> MetadataError:
        where = self._passed_bytes + _bytes(self._text[: self._at + ahead])
        short = "; the file ends there" if self._ended and self._at + ahead >= len(self._text) else ""
        return MetadataError(f"{self._name}: no valid JSON at byte {where}: {why}{short}. Fetch the file again.")


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))

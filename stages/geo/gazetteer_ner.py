"""Names of places by longest match against the gazetteer, and rules for names that are also words or people.

Most captions of the web are lower case, where a statistical tagger sees nothing. The rules, in order, for each match:

1. "X, Y" with X inside Y counts, both of them, whatever the case ("reading, pa").
2. Behind "Lake", "by" or a first name, and before "River" or "Street", no name counts; nor does a name of people that
   another name follows ("Paris Hilton").
3. A name that is also a word counts with a capital inside a sentence, behind "in", "of", "over" and the like.
4. Countries and regions count. A city counts with a capital inside a sentence; lower case, or where capitals say
   nothing (first word, headlines, ALL CAPITALS), it must be large or stand behind "in", "of", "over" and the like.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from manifests.gazetteer import Gazetteer, Place, Word, words_of
from stages.geo.ner import Named, unique

LARGE_PEOPLE = 300_000
"""People that a city needs where its name is lower case and nothing else speaks for it (ours: tried on captions)."""
TITLED_PEOPLE = 100_000
"""The same where it has a capital that says little."""

_CUES = frozenset("in of over near from at around above across outside throughout toward towards off".split())
_WIDE_CUES = frozenset("in over across throughout".split())
_VIEWS = frozenset("map maps view views image images imagery photo photos photograph picture pictures".split())
_NOT_BEHIND = frozenset(
    "lake mount river hurricane cyclone typhoon by photographer credit copyright courtesy mr mrs ms dr prof sir "
    "lord lady king queen prince princess saint don president senator governor mayor".split()
)
_NOT_BEFORE = frozenset(
    "river street road rd avenue ave boulevard blvd lane drive university college creek terrier bulldog".split()
)
_GEOGRAPHIC = frozenset(
    "airport skyline harbor harbour downtown beach bay island islands county city state metro metropolitan area region "
    "suburbs suburb port marina bridge stadium park zoo cathedral museum monument tower international central north "
    "south east west map aerial satellite coast valley basin delta desert peninsula landsat sentinel modis".split()
)
_GAP = re.compile(r"[\s\-]{1,3}|\.\s{1,2}")
_COMMA = re.compile(r"\s{0,2},\s{0,3}|\s{1,2}\(?|\s{0,2}\(")
_FULL_STOP = re.compile(r"[.!?:;|\n]")
_AFTER_CODE = re.compile(r"\s*(?:$|[.,;:!?)\]|\-]|\d)")


@dataclass(frozen=True, slots=True)
class _Match:
    first: int  # place of its first word among the words of the text
    words: int
    key: str
    start: int
    end: int
    places: tuple[Place, ...]


class GazetteerTagger:
    """The tagger ``gazetteer``."""

    def __init__(self, gazetteer: Gazetteer) -> None:
        self._gazetteer = gazetteer

    def places(self, text: str) -> list[Named]:
        """Return the names of places. Time is linear in the length of the text."""
        words = words_of(text)
        matches = self._matches(text, words)
        if not matches:
            return []
        caption = _Caption(text, words)
        chosen: list[_Match] = []
        open_chain = False  # whether the match before counts because this one holds it
        for place, match in enumerate(matches):
            following = matches[place + 1] if place + 1 < len(matches) else None
            supported = following is not None and self._supports(caption, match, following)
            if match.places and (open_chain or supported or self._counts(caption, match, matches, place)):
                chosen.append(match)
            open_chain = supported
        named = [Named(text[m.start : m.end], m.start, m.end, "gazetteer") for m in chosen]
        return unique(named)

    def versions(self) -> dict[str, str]:
        """Return nothing: the gazetteer is pinned, and the rules are the step's own code."""
        return {}

    def _matches(self, text: str, words: Sequence[Word]) -> list[_Match]:
        """Return the longest matches from left to right, and state codes behind a comma."""
        names, longest, codes = self._gazetteer.names, self._gazetteer.longest, self._gazetteer.codes
        found: list[_Match] = []
        at = 0
        while at < len(words):
            word = words[at]
            most = longest.get(word.key, 0)
            if len(word.key) == 2 and word.key in codes and self._is_code(text, words, at, found):
                found.append(_Match(at, 1, word.key, word.start, word.end, (codes[word.key],)))
                at += 1
                continue
            taken = 1
            for count in range(_joined(text, words, at, most), 0, -1):
                key = " ".join([w.key for w in words[at : at + count]]) if count > 1 else word.key
                places = names.get(key)
                if places is not None:
                    found.append(_Match(at, count, key, word.start, words[at + count - 1].end, places))
                    taken = count
                    break
            at += taken
        return found

    def _is_code(self, text: str, words: Sequence[Word], at: int, found: Sequence[_Match]) -> bool:
        """Return whether a state's two letters stand behind "City, " or, in capitals, behind any "Name, "."""
        if at == 0 or "," not in text[words[at - 1].end : words[at].start]:
            return False
        state = self._gazetteer.codes[words[at].key]
        if found and found[-1].first + found[-1].words == at and any(p.lies_in(state) for p in found[-1].places):
            return _AFTER_CODE.match(text, words[at].end) is not None
        written = text[words[at].start : words[at].end]
        return written.isupper() and not text.isupper() and text[words[at - 1].start].isupper()

    def _supports(self, caption: _Caption, match: _Match, following: _Match) -> bool:
        """Return whether ``following`` comes next and holds a place of ``match``."""
        gap = caption.text[match.end : following.start]
        if following.first != match.first + match.words or not _COMMA.fullmatch(gap):
            return False
        if "," not in gap and match.key in self._gazetteer.common and caption.text[match.start].islower():
            return False
        return any(inner.lies_in(outer) for inner in match.places for outer in following.places)

    def _counts(self, caption: _Caption, match: _Match, matches: Sequence[_Match], place: int) -> bool:
        before, after = caption.key(match.first - 1), caption.key(match.first + match.words)
        if len(match.key) < 3 and match.key != "us":
            return self._is_state(match)
        if (before in _NOT_BEHIND and caption.touches(match.first)) or (
            after in _NOT_BEFORE and caption.touches(match.first + match.words)
        ):
            return False
        follows_match = place > 0 and matches[place - 1].first + matches[place - 1].words == match.first
        if self._is_person(caption, match, before, after, follows_match=follows_match):
            return False
        if match.key == "us":
            written = caption.text[match.start : match.end]
            return written != "us" and (written != "Us") and not caption.shouts
        if match.key in self._gazetteer.common:
            return self._word_counts(caption, match, before)
        if match.places[0].kind != "city":
            return True
        return _city_counts(caption, match, before)

    def _is_state(self, match: _Match) -> bool:
        return match.key in self._gazetteer.codes and match.places == (self._gazetteer.codes[match.key],)

    def _is_person(self, caption: _Caption, match: _Match, before: str, after: str, *, follows_match: bool) -> bool:
        """Return whether the name is a person's: a first name stands before, or another name behind."""
        if caption.shouts or not caption.text[match.start].isupper():
            return False
        if before in self._gazetteer.first and caption.capital(match.first - 1) and not follows_match:
            return True
        behind = match.first + match.words
        return (
            match.key in self._gazetteer.given
            and caption.styled
            and caption.capital(behind)
            and caption.touches(behind)
            and after not in _GEOGRAPHIC
        )

    def _word_counts(self, caption: _Caption, match: _Match, before: str) -> bool:
        if caption.says_name(match.first):
            return before in _CUES or match.places[0].kind == "country"
        if match.places[0].kind != "country" or caption.text[match.start].isupper():
            return False
        viewed = before == "of" and caption.key(match.first - 2) in _VIEWS
        return before in _WIDE_CUES or viewed


class _Caption:
    """A text with its words, and what its capitals tell."""

    def __init__(self, text: str, words: Sequence[Word]) -> None:
        self.text = text
        self.words = words
        inner = [text[w.start].isupper() for i, w in enumerate(words) if i and w.end - w.start > 3]
        self.shouts = text.isupper()
        # Headlines write nearly every word with a capital, so a capital there is no sign of a name.
        self.styled = not self.shouts and (len(inner) < 3 or sum(inner) <= 0.7 * len(inner))

    def key(self, at: int) -> str:
        return self.words[at].key if 0 <= at < len(self.words) else ""

    def capital(self, at: int) -> bool:
        return 0 <= at < len(self.words) and self.text[self.words[at].start].isupper()

    def touches(self, at: int) -> bool:
        """Return whether nothing but white space stands before word ``at``."""
        return 0 < at < len(self.words) and self.text[self.words[at - 1].end : self.words[at].start].isspace()

    def opens(self, at: int) -> bool:
        """Return whether word ``at`` opens a sentence."""
        return at == 0 or _FULL_STOP.search(self.text, self.words[at - 1].end, self.words[at].start) is not None

    def says_name(self, at: int) -> bool:
        """Return whether word ``at`` has a capital that tells a name."""
        return self.styled and self.capital(at) and not self.opens(at)


def _city_counts(caption: _Caption, match: _Match, before: str) -> bool:
    people = match.places[0].population
    written = caption.text[match.start : match.end]
    if len(written) <= 4 and written.isupper() and not caption.shouts:  # an acronym
        return False
    cued = before in _CUES and len(match.key) > 3
    if not caption.capital(match.first) or caption.shouts:
        return (people >= LARGE_PEOPLE and len(match.key) > 3) or cued
    if cued or people >= TITLED_PEOPLE:
        return True
    # A small city beside other capitals is more often part of a person's or a firm's name.
    behind = match.first + match.words
    alone = not (caption.capital(match.first - 1) and caption.touches(match.first))
    alone = alone and not (caption.capital(behind) and caption.touches(behind))
    return caption.says_name(match.first) and alone


def _joined(text: str, words: Sequence[Word], at: int, most: int) -> int:
    """Return how many words from ``at`` on, at most ``most``, stand together as one name could be written."""
    count = 1
    while count < most and at + count < len(words):
        gap = text[words[at + count - 1].end : words[at + count].start]
        if gap != " " and not _GAP.fullmatch(gap) and not (words[at + count].key == "dc" and gap == ", "):
            break
        count += 1
    return min(count, most)

"""Names of places in a text: what a tagger hands back, and which taggers there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from manifests.gazetteer import Gazetteer, fold


@dataclass(frozen=True, slots=True)
class Named:
    """A name in a text.

    Attributes:
        name: As written, without a possessive.
        start: Index of its first character.
        end: Index behind its last.
        backend: The tagger that found it.
    """

    name: str
    start: int
    end: int
    backend: str


class Tagger(Protocol):
    """Finds names of countries, regions and cities (the label GPE of the named-entity corpora)."""

    def places(self, text: str) -> list[Named]:
        """Return the names in order of appearance, each spelling once. Never raises for any text."""

    def versions(self) -> dict[str, str]:
        """Return what its answers depend on beside the text: libraries with their versions, models with digests."""


def load_tagger(name: str, gazetteer: Gazetteer) -> Tagger:
    """Load a tagger: ``gazetteer``, ``nltk`` or ``spacy``; models are read once a process.

    Raises:
        ModelMissingError: If its library or its model is not at hand.
    """
    if name == "gazetteer":
        from stages.geo.gazetteer_ner import GazetteerTagger

        return GazetteerTagger(gazetteer)
    if name == "nltk":
        from stages.geo.nltk_ner import load_nltk

        return load_nltk()
    from stages.geo.spacy_ner import load_spacy

    return load_spacy()


def unique(found: Sequence[Named]) -> list[Named]:
    """Return the first of each name, whatever its case, in order of appearance."""
    seen: set[str] = set()
    kept: list[Named] = []
    for named in found:
        key = fold(named.name) or named.name
        if key not in seen:
            seen.add(key)
            kept.append(named)
    return kept


def tag(text: str, taggers: Sequence[Tagger]) -> list[Named]:
    """Return what one tagger or several find; where spans overlap, the tagger that comes first in the list has it."""
    found: list[Named] = []
    for tagger in taggers:
        new = tagger.places(text)
        found += [n for n in new if all(n.end <= other.start or other.end <= n.start for other in found)]
    return unique(sorted(found, key=lambda named: named.start))

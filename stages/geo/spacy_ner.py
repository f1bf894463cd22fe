"""Names of places by spaCy: the tagger in the script that was published with RS5M. An extra."""

from __future__ import annotations

from functools import cache
from typing import Protocol

from stages.geo.ner import Named, unique
from stages.step import ModelMissingError

MODEL = "en_core_web_sm"
"""The model of the published script."""


class Entity(Protocol):
    """What spaCy says of an entity."""

    text: str
    start_char: int
    end_char: int
    label_: str


class Doc(Protocol):
    """A text that spaCy has read."""

    ents: tuple[Entity, ...]


class Language(Protocol):
    """A spaCy pipeline."""

    max_length: int

    def __call__(self, text: str) -> Doc:
        """Read a text."""


class SpacyTagger:
    """The tagger ``spacy``; made by `load_spacy`."""

    def __init__(self, language: Language, versions: dict[str, str]) -> None:
        self._language = language
        self._versions = versions

    def places(self, text: str) -> list[Named]:
        """Return the entities labelled GPE."""
        entities = self._language(text[: self._language.max_length]).ents
        return unique([Named(e.text, e.start_char, e.end_char, "spacy") for e in entities if e.label_ == "GPE"])

    def versions(self) -> dict[str, str]:
        """Return the versions of spaCy and of the model."""
        return self._versions


@cache
def load_spacy() -> SpacyTagger:
    """Load the model, once a process.

    Raises:
        ModelMissingError: If spaCy or its model is not installed.
    """
    try:
        import spacy
    except ImportError:
        raise ModelMissingError(
            "geo.ner = spacy: spaCy is not installed; get it with: pip install 'rs5m-build[spacy]' && "
            f"python -m spacy download {MODEL}"
        ) from None
    try:
        language = spacy.load(MODEL, exclude=["tagger", "parser", "attribute_ruler", "lemmatizer"])
    except OSError:
        raise ModelMissingError(
            f"geo.ner = spacy: the model {MODEL} is not installed; get it with: python -m spacy download {MODEL}"
        ) from None
    return SpacyTagger(language, {"spacy": spacy.__version__, MODEL: str(language.meta.get("version", ""))})

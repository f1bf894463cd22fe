"""Names of places by NLTK's tagger and named-entity chunker: what the paper says it used.

`nltk.ne_chunk` reads its models anew at every call, about 7 captions a second; here they are read once. The features
and weights are NLTK's own, the sums are vectors over all labels at once, and the labels are the same (tested).
Models are read from NLTK's json and tab files; nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cache
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from stages.geo.ner import Named, unique
from stages.step import ModelMissingError

PACKAGES = ("averaged_perceptron_tagger_eng", "maxent_ne_chunker_tab", "words")
_CHUNKER = "chunkers/maxent_ne_chunker_tab/english_ace_multiclass/"
_TAGGER = "taggers/averaged_perceptron_tagger_eng/averaged_perceptron_tagger_eng"
_FILES = (
    *(f"{_TAGGER}.{part}.json" for part in ("weights", "tagdict", "classes")),
    *(f"{_CHUNKER}{part}" for part in ("weights.txt", "mapping.tab", "labels.txt", "alwayson.tab")),
    "corpora/words/en-basic",
)
# Captions joined out of several sentences are tagged one by one; NLTK's punkt model is not needed for that.
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_ABSENT = (
    "geo.ner = nltk: NLTK data not found ({}); get it with: python -m nltk.downloader -d DIR "
    f"{' '.join(PACKAGES)}, and set NLTK_DATA=DIR"
)


Key = TypeVar("Key", bound=Hashable)
Pairs = list[tuple[str, str]]


class _Tokenizer(Protocol):
    def tokenize(self, text: str) -> list[str]: ...


class _PosTagger(Protocol):
    def tag(self, tokens: list[str]) -> Pairs: ...


class _Chunker(Protocol):
    def tag(self, tokens: Pairs) -> list[tuple[tuple[str, str], str]]: ...


class _Rows(Generic[Key]):
    """Weights of every label by feature, as vectors that are made when a feature is first seen.

    Sums are in float64 and in the order of the features, as NLTK's own are.
    """

    def __init__(self, weights: Mapping[Key, Sequence[tuple[int, float]]], labels: int) -> None:
        self._weights = weights
        self._labels = labels
        self._made: dict[Key, NDArray[np.float64]] = {}

    def total(self, features: Iterable[Key]) -> NDArray[np.float64]:
        total = np.zeros(self._labels)
        for feature in features:
            row = self._made.get(feature)
            if row is None:
                if feature not in self._weights:
                    continue
                row = self._made[feature] = np.zeros(self._labels)
                for label, weight in self._weights[feature]:
                    row[label] += weight
            total += row
        return total


class _Classifier:
    """NLTK's maximum-entropy classifier of chunks."""

    def __init__(
        self,
        weights: Sequence[float],
        mapping: Mapping[tuple[str, object, str], int],
        labels: Sequence[str],
        alwayson: Mapping[str, int] | None,
    ) -> None:
        # Labels from last to first, because NLTK breaks ties by the last label, and argmax by the first.
        self._labels = sorted(labels, reverse=True)
        place = {label: index for index, label in enumerate(self._labels)}
        table: dict[tuple[str, object], list[tuple[int, float]]] = {}
        for (name, value, label), number in mapping.items():
            table.setdefault((name, value), []).append((place[label], float(weights[number])))
        bias = alwayson or {}
        self._bias = np.array([float(weights[bias[label]]) if label in bias else 0.0 for label in self._labels])
        self._rows = _Rows(table, len(self._labels))

    def labels(self) -> list[str]:
        return self._labels

    def classify(self, features: Mapping[str, object]) -> str:
        scores = self._rows.total(features.items()) + self._bias
        return self._labels[int(scores.argmax())]


class _Perceptron:
    """NLTK's averaged perceptron of parts of speech; takes the place of a `PerceptronTagger`'s ``model``."""

    def __init__(self, weights: Mapping[str, Mapping[str, float]], classes: Iterable[str]) -> None:
        self.classes = set(classes)
        self._labels = sorted(self.classes, reverse=True)
        place = {label: index for index, label in enumerate(self._labels)}
        table = {feature: [(place[n], w) for n, w in row.items()] for feature, row in weights.items()}
        self._rows = _Rows(table, len(self._labels))

    def predict(self, features: Mapping[str, int], return_conf: bool = False) -> tuple[str, None]:
        """Return the likeliest part of speech; every feature counts once, and confidence is never asked for."""
        del return_conf
        return self._labels[int(self._rows.total(features).argmax())], None


class NltkTagger:
    """The tagger ``nltk``; made by `load_nltk`."""

    def __init__(self, tokenizer: _Tokenizer, tagger: _PosTagger, chunker: _Chunker, versions: dict[str, str]) -> None:
        self._tokenizer = tokenizer
        self._tagger = tagger
        self._chunker = chunker
        self._versions = versions

    def places(self, text: str) -> list[Named]:
        """Return the chunks labelled GPE."""
        found: list[Named] = []
        start = 0
        for sentence in _SENTENCE.split(text):
            at = text.index(sentence, start)
            start = at + len(sentence)
            if sentence.strip():
                found += self._chunks(text, at, sentence)
        return unique(found)

    def labels(self, sentence: str) -> Pairs:
        """Return the words of a sentence with the chunker's labels (``B-GPE``, ``O``, ...)."""
        words = self._tokenizer.tokenize(sentence)
        return [(word, label) for (word, _), label in self._chunker.tag(self._tagger.tag(words))]

    def versions(self) -> dict[str, str]:
        """Return NLTK's version and the digest of its models."""
        return self._versions

    def _chunks(self, text: str, at: int, sentence: str) -> list[Named]:
        found: list[Named] = []
        running = False
        for word, label in self.labels(sentence):
            place = text.find(word, at)
            if place >= 0:  # the tokenizer rewrites quotation marks
                at = place + len(word)
            inside = label.endswith("-GPE") and place >= 0
            if inside and running and label.startswith("I-"):
                first = found.pop().start
                found.append(Named(text[first:at], first, at, "nltk"))
            elif inside:
                found.append(Named(word, place, at, "nltk"))
            running = inside
        return found


@cache
def load_nltk() -> NltkTagger:
    """Load the models, once a process (0.4 s). The folder in NLTK_DATA is looked into first.

    Raises:
        ModelMissingError: If NLTK's data is not at hand, or cannot be read.
    """
    import nltk.data
    from nltk.chunk.named_entity import NEChunkParserTagger
    from nltk.classify.maxent import load_maxent_params
    from nltk.tag.perceptron import PerceptronTagger
    from nltk.tokenize import NLTKWordTokenizer

    for folder in reversed(os.environ.get("NLTK_DATA", "").split(os.pathsep)):
        if folder and folder not in nltk.data.path:
            nltk.data.path.insert(0, folder)
    missing = next((name for name in _FILES if not _is_there(name)), None)
    if missing:
        raise ModelMissingError(_ABSENT.format(missing))
    try:
        versions = {"nltk": nltk.__version__, "nltk_data": _digest()}
        chunker = NEChunkParserTagger(classifier=_Classifier(*load_maxent_params(nltk.data.find(_CHUNKER))))
        pos = PerceptronTagger(lang="eng")
        pos.model = _Perceptron(pos.model.weights, pos.classes)
        tagger = NltkTagger(NLTKWordTokenizer(), pos, chunker, versions)
        tagger.labels("Paris")
    except (OSError, ValueError, LookupError) as error:
        raise ModelMissingError(_ABSENT.format(f"unreadable: {str(error).splitlines()[0]}")) from None
    return tagger


def _is_there(name: str) -> bool:
    from nltk.data import find

    try:
        find(name)
    except LookupError:
        return False
    return True


def _digest() -> str:
    from nltk.data import find

    digest = hashlib.sha256()
    for name in _FILES:
        with find(name).open() as file:
            digest.update(hashlib.sha256(file.read()).digest())
    return digest.hexdigest()[:32]

import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manifests.gazetteer import load_gazetteer
from stages.geo.ner import load_tagger
from stages.geo.nltk_ner import PACKAGES, load_nltk
from stages.step import ModelMissingError
from tests.stages.geo.captions import DEVELOPMENT, HELD_OUT

DATA = os.environ.get("RS5M_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="RS5M_TEST_DATA is not set: no NLTK data to run on")


@pytest.fixture
def tagger(monkeypatch):
    monkeypatch.setenv("NLTK_DATA", str(Path(DATA or "", "nltk_data")))
    load_nltk.cache_clear()
    yield load_nltk()
    load_nltk.cache_clear()


@needs_data
def test_labels_are_those_of_nltk_itself(tagger):
    from nltk.chunk.named_entity import Maxent_NE_Chunker
    from nltk.tag.perceptron import PerceptronTagger
    from nltk.tokenize import NLTKWordTokenizer

    chunker, pos, tokenizer = Maxent_NE_Chunker("multiclass"), PerceptronTagger(), NLTKWordTokenizer()
    found = 0
    for text, _ in DEVELOPMENT + HELD_OUT:
        theirs = chunker.parse(pos.tag(tokenizer.tokenize(text)))
        names = [
            " ".join(word for word, _ in part) for part in theirs if hasattr(part, "label") and part.label() == "GPE"
        ]
        ours, running = [], False
        for word, label in tagger.labels(text):
            if label == "I-GPE" and running:
                ours[-1] += f" {word}"
            elif label.endswith("-GPE"):
                ours.append(word)
            running = label.endswith("-GPE")
        assert ours == names
        found += len(names)
    assert found > 30


@needs_data
def test_names_keep_their_order_and_stand_once(tagger):
    found = tagger.places("Planes fly from Paris to Tokyo. They fly from Tokyo to New York City.")
    assert [n.name for n in found] == ["Paris", "Tokyo", "New York City"]
    assert {n.backend for n in found} == {"nltk"}


@needs_data
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    text=st.one_of(
        st.text(max_size=120), st.lists(st.sampled_from('Paris "Rome" . ! in U.S. \'s \u6771'.split())).map(" ".join)
    )
)
def test_any_text_gives_spans_of_itself(tagger, text):
    for named in tagger.places(text):
        assert text[named.start : named.end] == named.name


@needs_data
def test_what_its_answers_depend_on(tagger):
    assert set(tagger.versions()) == {"nltk", "nltk_data"}
    assert load_nltk() is tagger


def test_data_that_is_absent_is_named_with_the_command_that_gets_it(monkeypatch, tmp_path):
    import nltk.data

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setenv("NLTK_DATA", "")
    load_nltk.cache_clear()
    with pytest.raises(ModelMissingError) as raised:
        load_tagger("nltk", load_gazetteer())
    assert "\n" not in str(raised.value)
    assert f"python -m nltk.downloader -d DIR {' '.join(PACKAGES)}, and set NLTK_DATA=DIR" in str(raised.value)


@pytest.mark.skipif(importlib.util.find_spec("spacy") is not None, reason="spaCy is installed")
def test_spacy_that_is_absent_is_named_with_the_command_that_gets_it():
    with pytest.raises(ModelMissingError, match=r"pip install 'rs5m-build\[spacy\]'"):
        load_tagger("spacy", load_gazetteer())

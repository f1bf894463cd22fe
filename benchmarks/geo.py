"""Captions a second of one core for each tagger of place names, in one run and one process.

python benchmarks/geo.py [--captions FILE] [--seconds 3]

FILE: Parquet with a text column, or one caption a line; without it the sentences of the miniature world. The tagger
nltk is measured where its data is at hand (NLTK_DATA), beside nltk.ne_chunk as its documentation calls it; spacy where
it is installed. Floors: gazetteer 5,000, nltk 1,000 captions/s.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from manifests.gazetteer import Gazetteer, load_gazetteer
from pipeline.world.captions import SENTENCES
from stages.geo.ner import Tagger, load_tagger, tag
from stages.geo.resolve import resolve
from stages.step import ModelMissingError

FLOORS = {"gazetteer": 5_000, "nltk": 1_000}


def captions(file: Path | None) -> list[str]:
    if file is None:
        return [sentence for group in SENTENCES.values() for sentence in group]
    if file.suffix != ".parquet":
        return file.read_text("utf-8").splitlines()
    import polars as pl

    frame = pl.read_parquet(file)
    name = next(column for column in frame.columns if column.lower() in ("text", "caption"))
    return [text for text in frame[name].to_list() if text]


def rate(work: Callable[[str], object], texts: Sequence[str], seconds: float) -> float:
    """Return captions per second of processor time (one thread; other load on the machine does not count): the median
    of three rounds of a third of the time each, after one that fills caches."""
    for text in texts[:500]:
        work(text)
    rounds = []
    for _ in range(3):
        done, start = 0, time.process_time()
        while (spent := time.process_time() - start) < seconds / 3:
            work(texts[done % len(texts)])
            done += 1
        rounds.append(done / spent)
    return statistics.median(rounds)


def ne_chunk(text: str) -> object:
    """Tag as NLTK's book does: every call reads its models."""
    from nltk import ne_chunk, pos_tag
    from nltk.tokenize import NLTKWordTokenizer

    return ne_chunk(pos_tag(NLTKWordTokenizer().tokenize(text)))


def named(text: str, taggers: Sequence[Tagger], gazetteer: Gazetteer) -> object:
    return resolve(text, tag(text, taggers), gazetteer)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0)
    told = parser.parse_args()
    texts, gazetteer, missed = captions(told.captions), load_gazetteer(), 0
    words = statistics.mean(len(text.split()) for text in texts)
    print(f"{len(texts):,} captions, {words:.1f} words each on average; one process, seconds of one core")
    for name in ("gazetteer", "nltk", "spacy"):
        try:
            tagger = load_tagger(name, gazetteer)
        except ModelMissingError as error:
            print(f"{name:28} not measured: {error}")
            continue
        found = sum(bool(tagger.places(text)) for text in texts[:2000]) / min(len(texts), 2000)
        speed = rate(tagger.places, texts, told.seconds)
        floor = FLOORS.get(name, 0)
        missed += speed < floor
        print(f"{name:28} {speed:10,.0f} captions/s   floor {floor:6,}   names in {found:.0%} of them")
        both = rate(partial(named, taggers=[tagger], gazetteer=gazetteer), texts, told.seconds)
        print(f"{name + ' + resolve':28} {both:10,.0f} captions/s")
        if name == "nltk":
            print(f"{'nltk.ne_chunk, plain':28} {rate(ne_chunk, texts[:5], told.seconds):10,.0f} captions/s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

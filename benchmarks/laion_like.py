"""LAION-like and LAION-COCO-like Parquet files for benchmarks: invented words, real columns, a known keyword rate."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.lexicon import load_lexicon

GROUP_ROWS = 100_000
FILE_ROWS = 500_000

_WORDS = 30_000
_COMMON = "the of and in a for with - on by | to from 2019 Photo Stock New black white red Home".split()
# Parts of keywords, as common as they are in captions: now and then, and hardly ever next to each other by chance.
_NEAR = (
    "Image images view Map land Space global Remote Control satellite TV drone dish orbit Sentinel earth aerial google "
    "geographic planet photos pictures"
).split()
_NEAR_RANK = 600


def vocabulary() -> list[str]:
    """Return words, the frequent first: common English ones, parts of keywords among them, then invented ones."""
    draw = random.Random(7)
    words = list(_COMMON)
    while len(words) < _WORDS:
        syllables = draw.choice((1, 2, 2, 3, 3, 4))
        word = "".join(draw.choice("bcdfghjklmnprstvwz") + draw.choice("aeiou") for _ in range(syllables))
        word += draw.choice(("", "", "n", "s", "r", "t")) + ("\u00e9" if draw.random() < 0.02 else "")
        words.append(word.capitalize() if draw.random() < 0.4 else word)
        if len(words) == _NEAR_RANK:
            words += _NEAR
    return words[:_WORDS]


def keywords() -> list[str]:
    """Return every keyword in three spellings."""
    lexicon = load_lexicon("rs5m-1")
    return [spell(entry) for entry in lexicon.stems + lexicon.names for spell in (str, str.title, str.upper)]


class Captions:
    """Draws captions by Zipf's law; a share of them holds one keyword.

    Args:
        seed: Of the draw.
        rate: Share of captions with a keyword.
    """

    def __init__(self, seed: int, rate: float) -> None:
        words, keys = vocabulary(), keywords()
        self._strings = pa.array(words + keys)
        self._places = len(words), len(words) + len(keys)
        self._draw = np.random.default_rng(seed)
        self._rate = rate
        weights = 1 / (np.arange(len(words)) + 8.0)
        self._edges = np.cumsum(weights / weights.sum())

    def texts(self, rows: int, mean_words: float, rate: float | None = None) -> pa.Array:
        """Return (rows,) string."""
        counts = self._draw.poisson(mean_words, rows).clip(1, 200)
        ends = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
        picked = np.searchsorted(self._edges, self._draw.random(ends[-1])).clip(0, self._places[0] - 1).astype(np.int32)
        hits = np.flatnonzero(self._draw.random(rows) < (self._rate if rate is None else rate))
        picked[ends[hits] + (self._draw.random(len(hits)) * counts[hits]).astype(np.int64)] = self._draw.integers(
            *self._places, len(hits)
        )
        return pc.binary_join(pa.ListArray.from_arrays(ends, self._strings.take(pa.array(picked))), " ")

    def urls(self, rows: int) -> pa.Array:
        """Return (rows,) string, about 85 bytes each."""
        draw = self._draw.integers

        def digits(high: int) -> pa.Array:
            return pa.array(draw(0, high, rows)).cast(pa.string())

        parts = ["https://cdn", digits(977), ".site", digits(90_001), ".com/wp-content/uploads/", digits(1 << 62), "-"]
        return pc.binary_join_element_wise(*parts, digits(10_000), ".jpg", "")

    def numbers(self, rows: int) -> dict[str, pa.Array]:
        """Return the columns of numbers that LAION's joined variant has."""
        draw = self._draw
        return {
            "WIDTH": pa.array(draw.integers(64, 3000, rows, dtype=np.int32)),
            "HEIGHT": pa.array(draw.integers(64, 3000, rows, dtype=np.int32)),
            "similarity": pa.array(draw.random(rows)),
            "hash": pa.array(draw.integers(-(1 << 62), 1 << 62, rows)),
            "punsafe": pa.array(draw.random(rows, dtype=np.float32)),
            "pwatermark": pa.array(draw.random(rows, dtype=np.float32)),
        }


def write_laion(path: Path, seed: int, rows: int, rate: float, codec: str) -> None:
    """Write a file as LAION2B's joined variant has them: captions of about 59 bytes."""
    made, left = Captions(seed, rate), rows
    with _Writer(path, codec) as writer:
        while left:
            some = min(left, FILE_ROWS)
            writer.write({"URL": made.urls(some), "TEXT": made.texts(some, 9.6), **made.numbers(some)})
            left -= some


def write_laion_coco(path: Path, seed: int, rows: int, rate: float, codec: str) -> None:
    """Write a file as LAION-COCO has them: a top caption and a list of five more, about 400 bytes together."""
    made, left = Captions(seed, rate / 6), rows
    with _Writer(path, codec) as writer:
        while left:
            some = min(left, FILE_ROWS)
            captions = made.texts(5 * some, 10.0)
            ends = np.arange(0, 5 * some + 1, 5, dtype=np.int32)
            columns = {
                "URL": made.urls(some),
                "TEXT": made.texts(some, 9.6, 0.0),
                "top_caption": made.texts(some, 10.0),
            }
            lists = {"all_captions": pa.ListArray.from_arrays(ends, captions)}
            writer.write({**columns, **lists, **made.numbers(some)})
            left -= some


class _Writer:
    """A Parquet file with row groups of `GROUP_ROWS`."""

    def __init__(self, path: Path, codec: str) -> None:
        self._path, self._codec = path, codec
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _Writer:
        return self

    def write(self, columns: dict[str, pa.Array]) -> None:
        """Write some rows."""
        table = pa.table(columns)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, compression=self._codec)
        self._writer.write_table(table, row_group_size=GROUP_ROWS)

    def __exit__(self, *failure: object) -> None:
        if self._writer:
            self._writer.close()

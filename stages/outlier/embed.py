"""outlier.embed: what a vision-language model and a remote-sensing detector say of every image; stored, not judged."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from manifests.canonical import JsonValue
from manifests.ledger import count_by_source
from manifests.recipe import Settings
from manifests.schemas import LEDGER, TABLES, TableSpec
from manifests.tables import empty_frame
from stages.detector import Detector, detector_digest, load_detector
from stages.encoder import (
    Encoder,
    Placement,
    load_encoder,
    model_digest,
    numeric_profile,
    resolve_device,
    settled_digest,
)
from stages.images import Place
from stages.outlier.bodies import bodies_by_digest
from stages.outlier.scorer import Scored, Scorer
from stages.prompts import prompt_vector, prompts_digest
from stages.step import Input, ModelMissingError, Output, Prior, Result, Step, Tables, Task

_OF_FETCHED = ["sample_id", "url", "tar", "offset", "length", "sha256"]
_SHOWN = 20


class Embed(Step):
    """Scores every image once; rows scored before under an equal row fingerprint are taken over.

    Every row stays: a picture that the encoder cannot take has no score, and `Cut` says what becomes of it.
    """

    name = "outlier.embed"
    kind = "map"
    VERSION = 1
    reads = ("outlier.encoder", "outlier.prompts", "outlier.detector")
    asks = ("outlier.batch", "outlier.precision", "run.device")
    inputs = (Input("dedup.cluster", "survivors"), Input("download.fetch", "fetched"))
    outputs = ("scores", "embeddings")
    keeps = "scores"
    carries = True
    batched = "outlier.batch"

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Score the partition's images.

        Raises:
            CorruptFileError: For stored bytes that changed.
            ModelMissingError: If the encoder or the detector is not at hand, or they are not of one kind.
            OutOfMemoryError: If the device does not hold a batch, or the memory beside it a picture.
        """
        survivors = tables.frame("dedup.cluster", "survivors", ["sample_id", "source"])
        fetched = tables.frame("download.fetch", "fetched", _OF_FETCHED).join(survivors, on="sample_id")
        known = _taken_over(prior, fetched)
        recorded = len(known)
        todo = fetched.filter(~pl.col("sha256").is_in(list(known))).unique("sha256", keep="first")
        if todo.height:
            places = [Place(**row) for row in todo.select("tar", "offset", "length", "sha256").iter_rows(named=True)]
            known.update(_scorer(task).score(bodies_by_digest(tables.store, places)))
        unscored = {sha256: scored.detail for sha256, scored in sorted(known.items()) if scored.detail}
        return Result(
            outputs=[Output("scores", _scores(fetched, known)), Output("embeddings", _embeddings(fetched, known))],
            ledger=empty_frame(LEDGER),
            seen=count_by_source(survivors),
            kept=count_by_source(fetched),
            facts={
                "scored_images": todo.height,
                "recorded_images": recorded,
                "unscored_images": len(unscored),
                "unscored": dict[str, JsonValue](list(unscored.items())[:_SHOWN]),
            },
        )

    def profile(self, settings: Settings) -> dict[str, str]:
        """Return what the scores' last digits depend on: device kind, precision, batch, library versions."""
        return numeric_profile(_placement(settings, settings.integer(self.batched)))

    def models(self, settings: Settings) -> dict[str, str]:
        """Return the encoder and the detector with their digests.

        Raises:
            ModelMissingError: If one is not at hand, or the detector was fitted on another encoder.
        """
        encoder, detector = settings.text("outlier.encoder"), settings.text("outlier.detector")
        _detector(settings)
        return {
            f"outlier.encoder {encoder}": model_digest(encoder, "outlier.encoder"),
            f"outlier.detector {detector}": detector_digest(detector),
        }

    def pins(self, settings: Settings, params: Mapping[str, JsonValue]) -> dict[str, str]:
        """Return the digest of the prompts. Raises ModelMissingError if there is no set of that name."""
        del params
        name = settings.text("outlier.prompts")
        try:
            return {f"prompts {name}": prompts_digest(name)}
        except ValueError as error:
            raise ModelMissingError(f"outlier.prompts = {name!r}: {error}") from error


def _scorer(task: Task) -> Scorer:
    settings = task.settings
    batch = task.params.get("batch")
    placement = _placement(settings, batch if isinstance(batch, int) else settings.integer("outlier.batch"))
    encoder = load_encoder(settings.text("outlier.encoder"), placement, "outlier.encoder")
    detector = _detector(settings)  # after the encoder, which may only now have been fetched
    direction = _direction(encoder, settings.text("outlier.prompts"))  # type: ignore[arg-type]  # hashed by identity
    return Scorer(encoder, direction, detector)


def _detector(settings: Settings) -> Detector:
    """Return the head, which must have been fitted on the encoder whose features it is to judge."""
    encoder, key = settings.text("outlier.encoder"), "outlier.detector"
    detector = load_detector(settings.text(key), key)
    detector.require_encoder(encoder, settled_digest(encoder, "outlier.encoder"), key)
    return detector


@lru_cache(maxsize=1)
def _direction(encoder: Encoder, name: str) -> NDArray[np.float32]:
    """Return the prompts' vector, once for all partitions that a process does with one encoder."""
    return prompt_vector(encoder, name)


def _placement(settings: Settings, batch: int) -> Placement:
    return Placement(resolve_device(settings.text("run.device")), settings.text("outlier.precision"), batch)


def _taken_over(prior: Prior, fetched: pl.DataFrame) -> dict[str, Scored]:
    """Return what is known of the images by sha256: equal bytes under an equal row fingerprint score alike."""
    wanted = fetched.select("sha256").unique()
    known: dict[str, Scored] = {}
    for commit in prior.commits(fetched["url"].to_list()):
        if len(known) == wanted.height:
            break
        scores = commit.frame("scores").join(wanted, on="sha256", how="semi").unique("sha256", keep="first")
        vectors = commit.frame("embeddings").select("sha256", "embedding").unique("sha256", keep="first")
        rows = scores.join(vectors, on="sha256", how="left").select("sha256", "vlm", "detector", "embedding")
        for sha256, vlm, detector, embedding in rows.iter_rows():
            known.setdefault(sha256, Scored(vlm, detector, embedding, _detail(vlm, detector)))
    return known


def _detail(vlm: float | None, detector: float | None) -> str:
    return "no score when it was tried before" if vlm is None or detector is None else ""


def _scores(fetched: pl.DataFrame, known: Mapping[str, Scored]) -> pl.DataFrame:
    rows = [(key, sha256, known[sha256].vlm, known[sha256].detector) for key, sha256 in _named(fetched)]
    return _frame(TABLES["scores"], rows)


def _embeddings(fetched: pl.DataFrame, known: Mapping[str, Scored]) -> pl.DataFrame:
    """Return the vectors; a picture that has none has no row."""
    rows = [(key, sha256, known[sha256].embedding) for key, sha256 in _named(fetched)]
    return _frame(TABLES["embeddings"], [row for row in rows if row[2] is not None])


def _named(fetched: pl.DataFrame) -> list[tuple[str, str]]:
    return list(fetched.select("sample_id", "sha256").iter_rows())


def _frame(spec: TableSpec, rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=empty_frame(spec).schema, orient="row")

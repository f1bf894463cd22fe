"""What the models of a recipe take for one row of the two steps that run them, and of the one that reads captions."""

from __future__ import annotations

from dataclasses import dataclass

from manifests.recipe import Recipe
from pipeline.price.rates import Rates

_TOKENS = 50
"""Tokens of the candidate that a captioner's rate stands for."""


@dataclass(frozen=True, slots=True)
class ModelWork:
    """A step's models, for one row.

    Attributes:
        name: What runs on a GPU, where there is one; empty: nothing does.
        names: Under which names their rates are listed.
        cpu_s: Seconds of one core.
        gpu_s: Seconds of one GPU.
        memory_bytes: Weights in a CPU's memory.
        stored_bytes: Bytes stored for a row because of the model: its embedding, its candidates.
    """

    name: str = ""
    names: tuple[str, ...] = ()
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    memory_bytes: float = 0.0
    stored_bytes: float = 0.0


def model_work(recipe: Recipe, rates: Rates, step: str) -> ModelWork:
    """Return what a step's models take under a recipe."""
    match step:
        case "outlier.embed":
            return _sum(rates, [(recipe.outlier.encoder, 1, 0)], stored=True)
        case "caption.generate":
            told = recipe.caption
            texts = told.candidates * told.max_tokens / _TOKENS
            calls: list[tuple[str, float, float]] = [
                (told.captioner, 1, texts),
                (told.rank, 1, told.candidates),
                (told.rerank, 1, min(told.keep, told.candidates)),
                (told.rotate, told.rotations, min(told.keep_again, told.candidates)),
            ]
            return _sum(rates, calls)
        case "geo.locate":
            found = _sum(rates, [(f"ner.{backend}", 0, 1) for backend in recipe.geo.ner])
            return ModelWork(names=found.names, cpu_s=found.cpu_s, memory_bytes=found.memory_bytes)
        case _:
            return ModelWork()


def _sum(rates: Rates, calls: list[tuple[str, float, float]], *, stored: bool = False) -> ModelWork:
    """Return the sum of calls: model, pictures and texts for a row each."""
    found = [(rates.model(name), images, texts) for name, images, texts in calls]
    listed = {name: told for (name, told), _, _ in found}
    return ModelWork(
        name=calls[0][0],
        names=tuple(listed),
        cpu_s=sum(told.cpu_s_per_image * images + told.cpu_s_per_text * texts for (_, told), images, texts in found),
        gpu_s=sum(told.gpu_s_per_image * images + told.gpu_s_per_text * texts for (_, told), images, texts in found),
        memory_bytes=sum(told.memory_bytes for told in listed.values()),
        stored_bytes=sum(told.embedding_bytes for told in listed.values()) if stored else 0.0,
    )

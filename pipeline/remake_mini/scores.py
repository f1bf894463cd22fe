"""How good the mini model is on pictures it never saw: what the model card quotes and the floors are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.remake_mini.corpus import Item
from pipeline.remake_mini.views import KINDS, NOUNS
from stages.detector import Detector
from stages.encoder import Encoded, Encoder
from stages.prompts import prompt_vector

FLOORS = {
    "class_accuracy": 0.80,
    "image_to_text_r10": 0.42,
    "text_to_image_r10": 0.42,
    "vlm_auc": 0.97,
    "detector_auc": 0.98,
    "world_detector_auc_photo": 0.93,
}
"""Least scores on held-out pictures of a mini model that may be shipped."""

_NEW_TEMPLATES = ("a {} seen from above", "overhead imagery showing a {}", "{} from a bird's eye view")


def held_out_scores(items: Sequence[Item], encoder: Encoder, detector: Detector) -> dict[str, float]:
    """Return the scores on the held-out pictures among ``items``."""
    held = [item for item in items if item.held_out]
    encoded = encode(encoder, [item.body for item in held])
    overhead = np.array([item.kind == "overhead" for item in held])
    seen = [item for item in held if item.kind == "overhead"]
    embeddings = np.stack([e.embedding for e in encoded])
    vlm = embeddings @ prompt_vector(encoder, "rs5m-33")
    rs = detector.probability(np.stack([e.trunk for e in encoded]))
    first = encoder.texts([item.captions[0] for item in seen])
    similarity = embeddings[overhead] @ first.T
    trained = [f"a {kind} {noun} of a {{}}" for kind in KINDS for noun in NOUNS]
    return {
        "overhead_pictures": float(overhead.sum()),
        "photographs": float((~overhead).sum()),
        "class_accuracy": class_accuracy(encoder, embeddings[overhead], [item.label for item in seen], trained),
        "class_accuracy_new_templates": class_accuracy(
            encoder, embeddings[overhead], [item.label for item in seen], _NEW_TEMPLATES
        ),
        "image_to_text_r10": recall(similarity, 10),
        "text_to_image_r10": recall(similarity.T, 10),
        "image_to_text_r1": recall(similarity, 1),
        "text_to_image_r1": recall(similarity.T, 1),
        "vlm_auc": auc(vlm[overhead], vlm[~overhead]),
        "detector_auc": auc(rs[overhead], rs[~overhead]),
        "detector_accuracy_at_half": float(np.mean((rs >= 0.5) == overhead)),
    }


def world_scores(pictures: Sequence[tuple[str, bytes]], encoder: Encoder, detector: Detector) -> dict[str, float]:
    """Return how tiles score against every other kind of picture of a world.

    Args:
        pictures: Kind (``tile``, ``photo``, ..) and file of each.
        encoder: The encoder.
        detector: The head.
    """
    encoded = encode(encoder, [body for _, body in pictures])
    kinds = np.array([kind for kind, _ in pictures])
    rs = detector.probability(np.stack([e.trunk for e in encoded]))
    vlm = np.stack([e.embedding for e in encoded]) @ prompt_vector(encoder, "rs5m-33")
    tiles = kinds == "tile"
    found = {"world_tiles": float(tiles.sum()), "world_tile_rate_at_half": float(np.mean(rs[tiles] >= 0.5))}
    for kind in sorted({*kinds} - {"tile"}):
        found[f"world_{kind}_pictures"] = float((kinds == kind).sum())
        found[f"world_{kind}_rate_at_half"] = float(np.mean(rs[kinds == kind] >= 0.5))
        found[f"world_detector_auc_{kind}"] = auc(rs[tiles], rs[kinds == kind])
        found[f"world_vlm_auc_{kind}"] = auc(vlm[tiles], vlm[kinds == kind])
    return found


def below_floor(scores: Mapping[str, float]) -> list[str]:
    """Return a line for every score that is below its floor."""
    return [f"{name} {scores[name]:.4f} is below {floor}" for name, floor in FLOORS.items() if scores[name] < floor]


def class_accuracy(
    encoder: Encoder, embeddings: NDArray[np.float32], labels: Sequence[str], templates: Sequence[str]
) -> float:
    """Return the share of pictures whose nearest class prompt (mean over templates) is their own."""
    names = sorted(set(labels))
    prompts = encoder.texts([template.format(name) for name in names for template in templates])
    classes = prompts.reshape(len(names), len(templates), -1).mean(axis=1)
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    nearest = (embeddings @ classes.T).argmax(axis=1)
    return float(np.mean([names[place] == label for place, label in zip(nearest, labels, strict=True)]))


def recall(similarity: NDArray[np.float32], k: int) -> float:
    """Return the share of rows whose own column is among the k greatest; only the own column counts."""
    own = np.diagonal(similarity)[:, None]
    return float(np.mean((similarity > own).sum(axis=1) < k))


def auc(positive: NDArray[np.float32], negative: NDArray[np.float32]) -> float:
    """Return the probability that a positive scores above a negative, ties a half (Mann-Whitney)."""
    above = (positive[:, None] > negative[None, :]).mean()
    equal = (positive[:, None] == negative[None, :]).mean()
    return float(above + equal / 2)


def encode(encoder: Encoder, bodies: Sequence[bytes]) -> list[Encoded]:
    """Return what the encoder makes of files that it can take.

    Raises:
        ValueError: It cannot take one.
    """
    found = []
    for place, result in encoder.bodies(enumerate(bodies)):
        if not isinstance(result, Encoded):
            raise ValueError(f"picture {place} cannot be encoded: {result.detail}")
        found.append(result)
    return found

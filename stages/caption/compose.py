"""The captioner of the mini recipe: sentences put together from a vocabulary by an encoder's own probabilities.

It writes captions that are grammatical and about as true as the encoder is; it stands in for BLIP2 where that is too
large, on the same path.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from manifests.identity import draw
from manifests.vocabulary import Vocabulary
from stages.caption.captioner import Candidate, NotCaptioned, Sampling, candidate_seed
from stages.encoder import Encoder

# Cosines of the mini model lie within about one; divided by this they make a distribution that is neither flat nor
# sure. `caption.temperature` multiplies it.
_COSINE_TEMPERATURE = 0.05
# A sentence that is there already is drawn anew; where the vocabulary leaves too few sentences, there are fewer.
_ATTEMPTS = 50
_OBJECTS_IN_A_SENTENCE = 2
# Keeps what was let in drawable where its weight is too small for a float.
_LEAST_WEIGHT = 1e-300


class Compose:
    """Puts captions together.

    Args:
        encoder: Says how likely a scene and an object are.
        vocabulary: Scenes, objects and sentences.
        sampling: How they are drawn; top_k and top_p limit scenes and objects each.
    """

    def __init__(self, encoder: Encoder, vocabulary: Vocabulary, sampling: Sampling) -> None:
        self._encoder = encoder
        self._vocabulary = vocabulary
        self._sampling = sampling
        asked = [vocabulary.scene_prompt.format(scene=scene) for scene in vocabulary.scenes]
        asked += [vocabulary.object_prompt.format(object=thing) for thing in vocabulary.objects]
        self._features = encoder.texts(asked)

    def candidates(self, images: Sequence[tuple[str, Image.Image]]) -> list[list[Candidate] | NotCaptioned]:
        """Return distinct sentences for each picture, or `NotCaptioned` where the encoder gives no finite number."""
        if not images:
            return []
        seen = self._encoder.pictures([picture for _, picture in images])
        return [self._sentences(name, picture) for (name, _), picture in zip(images, seen, strict=True)]

    def _sentences(self, sample_id: str, picture: NDArray[np.float32]) -> list[Candidate] | NotCaptioned:
        with np.errstate(invalid="ignore", over="ignore"):
            cosines = self._features.astype(np.float64) @ picture.astype(np.float64)
        if not np.isfinite(cosines).all():
            return NotCaptioned("caption.rank: the encoder gave a cosine that is no finite number")
        scenes, objects = np.split(cosines, [len(self._vocabulary.scenes)])
        likely = (
            nucleus(scenes / _COSINE_TEMPERATURE, self._sampling),
            nucleus(objects / _COSINE_TEMPERATURE, self._sampling, least=_OBJECTS_IN_A_SENTENCE),
        )
        found: dict[str, int] = {}
        for number in range(self._sampling.candidates):
            seed = candidate_seed(self._sampling.seed, sample_id, number)
            drawn = (self._sentence(seed, attempt, *likely) for attempt in range(_ATTEMPTS))
            text = next((text for text in drawn if text not in found), None)
            if text is None:
                break
            found[text] = seed
        return [Candidate(text, seed) for text, seed in found.items()]

    def _sentence(self, seed: int, attempt: int, scenes: NDArray[np.float64], objects: NDArray[np.float64]) -> str:
        words, key = self._vocabulary, ("compose", seed, attempt)
        template = words.templates[int(draw(*key, "template") * len(words.templates))]
        thing = pick(objects, draw(*key, "object"))
        others = objects.copy()
        others[thing] = 0.0
        return template.format(
            scene=words.scenes[pick(scenes, draw(*key, "scene"))],
            object=words.objects[thing],
            other=words.objects[pick(others, draw(*key, "other"))],
        )


def nucleus(logits: NDArray[np.float64], sampling: Sampling, *, least: int = 1) -> NDArray[np.float64]:
    """Return what the choices weigh: softmax at a temperature, outside the top k and the nucleus 0.

    The nucleus is the least set of likeliest choices that holds ``top_p`` of the probability (Holtzman et al. 2020).

    Args:
        logits: Finite, float64 [N].
        sampling: Temperature, top_k and top_p.
        least: Choices that stay in any case.

    Returns:
        Weights, float64 [N], not brought to sum 1.
    """
    scaled = logits / sampling.temperature
    order = np.argsort(-scaled, kind="stable")[: max(sampling.top_k, least) if sampling.top_k else None]
    weights = np.exp(scaled[order] - scaled[order[0]])
    before = np.cumsum(weights) - weights
    inside = before < sampling.top_p * weights.sum()
    inside[:least] = True
    result = np.zeros_like(logits)
    result[order[inside]] = np.maximum(weights[inside], _LEAST_WEIGHT)
    return result


def pick(weights: NDArray[np.float64], number: float) -> int:
    """Return the index that ``number`` of [0, 1) falls on when the weights are laid end to end; none of weight 0."""
    reach = np.cumsum(weights)
    place = int(np.searchsorted(reach, number * reach[-1], side="right"))
    return min(place, int(np.flatnonzero(weights)[-1]))

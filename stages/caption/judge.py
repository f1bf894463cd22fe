"""Judges the candidates of pictures by three encoders: rank and keep, rank again and keep, weigh under rotation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from stages.caption.captioner import Candidate, NotCaptioned
from stages.caption.chain import Features, cosines, kept, ranks, rotation_variances, steadiest
from stages.caption.rotation import views
from stages.encoder import Encoder

_REMEMBERED_TEXTS = 8192  # of 1,024 float32: 32 MiB


@dataclass(frozen=True, slots=True)
class Judged:
    """One candidate with what was said of it.

    Attributes:
        index: Its number among the candidates that were drawn.
        score_a: Cosine by the ranking encoder.
        rank_a: 1 for the best.
        score_b: Cosine by the second encoder; None: not among those kept.
        rank_b: Its rank there; None: not among those kept.
        rotation_variance: Variance of the cosine over the views; None: not among those kept again.
    """

    index: int
    text: str
    seed: int
    score_a: float
    rank_a: int
    score_b: float | None = None
    rank_b: int | None = None
    rotation_variance: float | None = None


class Judge:
    """The chain of the paper over encoders of one's choice.

    Args:
        encoders: By name; equal names are one encoder, whose features are made once.
        rank: Name of the encoder that ranks all candidates.
        rerank: Name of the one that ranks those kept.
        rotate: Name of the one that looks at the views.
        keep: Candidates kept by the first.
        keep_again: Candidates kept by the second.
        rotations: Views.
    """

    def __init__(
        self,
        encoders: dict[str, Encoder],
        *,
        rank: str,
        rerank: str,
        rotate: str,
        keep: int,
        keep_again: int,
        rotations: int,
    ) -> None:
        self._encoders = encoders
        self._rank = rank
        self._rerank = rerank
        self._rotate = rotate
        self._keep = keep
        self._keep_again = keep_again
        self._rotations = rotations
        self._texts = _Texts(encoders)

    def judge(
        self, pictures: Sequence[Image.Image], candidates: Sequence[Sequence[tuple[int, Candidate]]]
    ) -> list[list[Judged] | NotCaptioned]:
        """Return the candidates of every picture with scores, in the order given, or why it has no caption.

        Args:
            pictures: RGB.
            candidates: For every picture, numbered candidates, at least one, none of them empty.

        Raises:
            OutOfMemoryError: If a device does not hold a batch.
        """
        self._texts.forget_if_many()
        seen = {name: self._encoders[name].pictures(pictures) for name in dict.fromkeys((self._rank, self._rerank))}
        written = [[candidate.text for _, candidate in numbered] for numbered in candidates]
        self._texts.make(self._rank, written)
        scores_a = [cosines(seen[self._rank][i], self._texts.of(self._rank, mine)) for i, mine in enumerate(written)]
        first = [sorted(kept(scores, self._keep)) for scores in scores_a]
        self._texts.make(self._rerank, [[mine[i] for i in stay] for mine, stay in zip(written, first, strict=True)])
        found: list[list[Judged] | NotCaptioned] = []
        for place, (picture, numbered) in enumerate(zip(pictures, candidates, strict=True)):
            chosen = [written[place][i] for i in first[place]]
            scores_b = cosines(seen[self._rerank][place], self._texts.of(self._rerank, chosen)) if chosen else []
            found.append(self._judged(picture, numbered, scores_a[place], first[place], scores_b))
        return found

    def _judged(
        self,
        picture: Image.Image,
        numbered: Sequence[tuple[int, Candidate]],
        scores_a: Sequence[float],
        first: Sequence[int],
        scores_b: Sequence[float],
    ) -> list[Judged] | NotCaptioned:
        """Return one picture's candidates; ``scores_b`` are of the indices ``first``."""
        if not first:
            return NotCaptioned(f"caption.rank {self._rank}: no candidate has a finite score")
        second = sorted(first[place] for place in kept(scores_b, self._keep_again))
        if not second:
            return NotCaptioned(f"caption.rerank {self._rerank}: no candidate has a finite score")
        variances = self._variances(picture, [numbered[i][1].text for i in second])
        if steadiest(variances) is None:
            return NotCaptioned(f"caption.rotate {self._rotate}: no candidate has a finite variance")
        by_b = dict(zip(first, zip(scores_b, ranks(scores_b), strict=True), strict=True))
        by_view = dict(zip(second, variances, strict=True))
        ranks_a = ranks(scores_a)
        return [
            Judged(
                index=number,
                text=candidate.text,
                seed=candidate.seed,
                score_a=scores_a[i],
                rank_a=ranks_a[i],
                score_b=by_b[i][0] if i in by_b else None,
                rank_b=by_b[i][1] if i in by_b else None,
                rotation_variance=by_view.get(i),
            )
            for i, (number, candidate) in enumerate(numbered)
        ]

    def _variances(self, picture: Image.Image, texts: Sequence[str]) -> list[float]:
        turned = self._encoders[self._rotate].pictures(views(picture, self._rotations))
        self._texts.make(self._rotate, [texts])
        return rotation_variances(turned, self._texts.of(self._rotate, texts))


class _Texts:
    """Features of candidates by encoder and text: each is made once, in as few calls as may be.

    Composed captions come again with the next pictures; an encoder's numbers do not depend on what shares a call.
    """

    def __init__(self, encoders: dict[str, Encoder]) -> None:
        self._encoders = encoders
        self._made: dict[str, dict[str, Features]] = {}

    def forget_if_many(self) -> None:
        if sum(map(len, self._made.values())) > _REMEMBERED_TEXTS:
            self._made.clear()

    def make(self, name: str, texts: Iterable[Sequence[str]]) -> None:
        made = self._made.setdefault(name, {})
        missing = list(dict.fromkeys(text for mine in texts for text in mine if text not in made))
        if missing:
            made.update(zip(missing, self._encoders[name].texts(missing), strict=True))

    def of(self, name: str, texts: Sequence[str]) -> Features:
        return np.stack([self._made[name][text] for text in texts])

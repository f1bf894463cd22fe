"""What the recipe says of captions, and the captioner and the judge made of it."""

from __future__ import annotations

from dataclasses import dataclass

from manifests.canonical import JsonValue
from manifests.recipe import Settings
from manifests.vocabulary import Vocabulary, load_vocabulary
from stages.caption.captioner import Captioner, Sampling
from stages.caption.compose import Compose
from stages.caption.judge import Judge
from stages.caption.weights import locate
from stages.encoder import Placement, load_encoder, model_digest
from stages.step import ModelMissingError

KEYS = (
    "seed", "caption.captioner", "caption.model", "caption.lora", "caption.prompt", "caption.vocabulary",
    "caption.candidates", "caption.max_tokens", "caption.temperature", "caption.top_k", "caption.top_p",
    "caption.rank", "caption.keep", "caption.rerank", "caption.keep_again", "caption.rotate", "caption.rotations",
)  # fmt: skip
"""The recipe keys that candidates and their scores depend on."""

_ENCODER_KEYS = ("caption.rank", "caption.rerank", "caption.rotate")
# The views of one picture are a batch, so that no forward pass is padded; many views go in several.
_MAX_VIEWS_AT_ONCE = 64
# Twice the batch holds the paper's 12 views at the shipped batch of 8, and halves with it where memory runs out.
_VIEWS_OF_BATCH = 2


@dataclass(frozen=True, slots=True)
class CaptionSettings:
    """The settings of caption.generate, all but where it runs; fields are named for their keys."""

    captioner: str
    model: str
    lora: str
    prompt: str
    vocabulary: str
    max_tokens: int
    sampling: Sampling
    rank: str
    keep: int
    rerank: str
    keep_again: int
    rotate: str
    rotations: int

    @classmethod
    def read(cls, settings: Settings) -> CaptionSettings:
        """Read every key of `KEYS`."""
        return cls(
            captioner=settings.text("caption.captioner"),
            model=settings.text("caption.model"),
            lora=settings.text("caption.lora"),
            prompt=settings.text("caption.prompt"),
            vocabulary=settings.text("caption.vocabulary"),
            max_tokens=settings.integer("caption.max_tokens"),
            sampling=Sampling(
                seed=settings.integer("seed"),
                candidates=settings.integer("caption.candidates"),
                temperature=settings.number("caption.temperature"),
                top_k=settings.integer("caption.top_k"),
                top_p=settings.number("caption.top_p"),
            ),
            rank=settings.text("caption.rank"),
            keep=settings.integer("caption.keep"),
            rerank=settings.text("caption.rerank"),
            keep_again=settings.integer("caption.keep_again"),
            rotate=settings.text("caption.rotate"),
            rotations=settings.integer("caption.rotations"),
        )

    def models(self) -> dict[str, str]:
        """Return revision or digest of every model by ``<key> <value>``.

        Raises:
            ModelMissingError: If one is not at hand.
        """
        names = dict(zip(_ENCODER_KEYS, (self.rank, self.rerank, self.rotate), strict=True))
        found = {f"{key} {name}": model_digest(name, key) for key, name in names.items()}
        if self.captioner == "blip2":
            given = {"caption.model": self.model} | ({"caption.lora": self.lora} if self.lora else {})
            found |= {f"{key} {name}": locate(name, key).revision for key, name in given.items()}
        return found

    def constants(self) -> dict[str, JsonValue]:
        """Return what all candidates of a commit have in common."""
        common: dict[str, JsonValue] = {"captioner": self.captioner, "seed": self.sampling.seed}
        if self.captioner == "blip2":
            return common | {"model": self.model, "lora": self.lora, "prompt": self.prompt}
        return common | {"vocabulary": self.vocabulary}

    def words(self) -> Vocabulary:
        """Return the vocabulary.

        Raises:
            ModelMissingError: If there is none of that name; the message lists those there are.
        """
        try:
            return load_vocabulary(self.vocabulary)
        except ValueError as error:
            raise ModelMissingError(f"caption.vocabulary = {self.vocabulary!r}: {error}") from error

    def make_captioner(self, placement: Placement) -> Captioner:
        """Return the captioner; BLIP-2's weights are loaded once a process.

        Raises:
            ModelMissingError: If its weights or its vocabulary are not at hand.
        """
        if self.captioner == "blip2":
            from stages.caption.blip2 import Blip2

            return Blip2(self.model, self.lora, self.prompt, self.max_tokens, self.sampling, placement)
        words = self.words()
        encoder = load_encoder(self.rank, self._views_placement(placement), "caption.rank")
        return Compose(encoder, words, self.sampling)

    def make_judge(self, placement: Placement) -> Judge:
        """Return the chain over its encoders, which are loaded once a process.

        Raises:
            ModelMissingError: If one is not at hand.
        """
        keys = {self.rotate: "caption.rotate", self.rerank: "caption.rerank", self.rank: "caption.rank"}
        encoders = {name: load_encoder(name, self._views_placement(placement), key) for name, key in keys.items()}
        return Judge(
            encoders,
            rank=self.rank,
            rerank=self.rerank,
            rotate=self.rotate,
            keep=self.keep,
            keep_again=self.keep_again,
            rotations=self.rotations,
        )

    def _views_placement(self, placement: Placement) -> Placement:
        """Return where the encoders run: their batch follows from `caption.batch` and `caption.rotations` alone.

        It is one picture's views, but at most 64 and at most twice the task's batch (one at a batch of one): halving
        that halves what the encoders hold too. Whatever the views are, every forward pass is padded to this batch.
        """
        bound = _VIEWS_OF_BATCH * placement.batch if placement.batch > 1 else 1
        return Placement(placement.device, placement.precision, min(self.rotations, _MAX_VIEWS_AT_ONCE, bound))

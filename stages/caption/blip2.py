"""BLIP-2 as a captioner: every image and candidate drawn under a seed of its own, whatever the batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from stages.caption.captioner import Candidate, Sampling, candidate_seed
from stages.caption.sampling import KeyedSampling
from stages.caption.weights import locate
from stages.encoder import Placement
from stages.step import ModelMissingError, OutOfMemoryError

if TYPE_CHECKING:
    import torch

_SHOWN = 3


class Blip2:
    """Captions pictures with a BLIP-2 model whose language model is a decoder (OPT).

    A picture is looked at once; its candidates are rows of one batch. The last batch is padded to ``placement.batch``.

    Args:
        model: Local folder or hub id of the weights, safetensors.
        lora: Folder of LoRA weights, folded into the model; empty: none.
        prompt: What the language model is given before it writes; not part of the captions.
        max_tokens: Most tokens of a caption.
        sampling: How tokens are drawn.
        placement: Device, precision of the weights, and images at a time.

    Raises:
        ModelMissingError: If weights are not at hand, or are not those their configuration describes.
    """

    def __init__(
        self, model: str, lora: str, prompt: str, max_tokens: int, sampling: Sampling, placement: Placement
    ) -> None:
        self._model, self._processor = _loaded(model, lora, placement.device, placement.precision)
        self._prompt = prompt
        self._max_tokens = max_tokens
        self._sampling = sampling
        self._batch = placement.batch

    def candidates(self, images: Sequence[tuple[str, Image.Image]]) -> list[list[Candidate]]:
        """Return the candidates of every picture.

        Raises:
            OutOfMemoryError: If the device does not hold a batch.
        """
        import torch

        found: list[list[Candidate]] = []
        try:
            with torch.inference_mode():
                for start in range(0, len(images), self._batch):
                    found.extend(self._captioned(images[start : start + self._batch]))
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise OutOfMemoryError(
                f"{self._batch} images x {self._sampling.candidates} candidates do not fit (caption.batch)"
            ) from error
        return found

    def _captioned(self, images: Sequence[tuple[str, Image.Image]]) -> list[list[Candidate]]:
        padded = [*images, *[images[-1]] * (self._batch - len(images))]
        many = self._sampling.candidates
        seeds = [candidate_seed(self._sampling.seed, name, number) for name, _ in padded for number in range(many)]
        context = self._context([picture for _, picture in padded]).repeat_interleave(many, dim=0)
        texts = self._written(context, seeds)
        rows = [Candidate(text, seed) for text, seed in zip(texts, seeds, strict=True)]
        return [rows[place * many : (place + 1) * many] for place in range(len(images))]

    def _context(self, pictures: list[Image.Image]) -> torch.Tensor:
        """Return what the language model goes on from: query features of the picture, then the prompt.

        The same steps as the model's own ``generate``, before it repeats anything; [images, queries + prompt, width].
        """
        import torch

        model = self._model
        pixels = self._processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
        # In half precision the query former stays in full: the model as a whole has no one dtype.
        kind = next(model.vision_model.parameters()).dtype
        seen = model.vision_model(pixels.to(model.device, kind), return_dict=True).last_hidden_state
        queries = model.qformer(
            query_embeds=model.query_tokens.expand(len(pictures), -1, -1),
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:-1], dtype=torch.long, device=seen.device),
            return_dict=True,
        ).last_hidden_state
        projected = model.language_projection(queries.to(seen.dtype))
        ids = torch.tensor([self._prompt_ids()], dtype=torch.long, device=model.device)
        prompt = model.get_input_embeddings()(ids).expand(len(pictures), -1, -1)
        return torch.cat([projected.to(prompt.dtype), prompt], dim=1)

    def _prompt_ids(self) -> list[int]:
        if self._prompt:
            return list(self._processor.tokenizer(self._prompt)["input_ids"])
        return [self._model.config.text_config.bos_token_id]

    def _written(self, context: torch.Tensor, seeds: list[int]) -> list[str]:
        """Return what is written after ``context`` [rows, positions, width]: the new tokens alone, so no prompt."""
        import torch
        from transformers import GenerationConfig, LogitsProcessorList

        model, tokenizer = self._model, self._processor.tokenizer
        # The folder's own generation settings hold lengths and sampling that are not asked for here.
        settings = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=self._max_tokens,
            bos_token_id=model.config.text_config.bos_token_id,
            eos_token_id=model.generation_config.eos_token_id or model.config.text_config.eos_token_id,
            pad_token_id=model.config.text_config.pad_token_id,
        )
        tokens = model.language_model.generate(
            inputs_embeds=context,
            attention_mask=torch.ones(context.shape[:2], dtype=torch.long, device=context.device),
            generation_config=settings,
            logits_processor=LogitsProcessorList([KeyedSampling(seeds, self._sampling)]),
        )
        return [str(text).strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]


@lru_cache(maxsize=1)
def _loaded(model: str, lora: str, device: str, precision: str) -> tuple[Any, Any]:
    """Return model and processor, loaded once a process."""
    from stages import torchvision_shim

    torchvision_shim.declare()
    import torch
    from safetensors import SafetensorError
    from transformers import Blip2ForConditionalGeneration, Blip2Processor
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    folder = locate(model, "caption.model").folder
    _check_kind(folder, model)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    untyped: Any = Blip2ForConditionalGeneration  # its annotations do not know output_loading_info
    try:
        loaded, report = untyped.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
        processor = Blip2Processor.from_pretrained(folder, local_files_only=True)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelMissingError(
            f"caption.model = {model!r}: {folder} does not load as BLIP-2 in safetensors: {reason}"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelMissingError(
            f"caption.model = {model!r}: {folder} lacks {len(missing)} of the model's weights, "
            f"e.g. {', '.join(missing[:_SHOWN])}; download it again"
        )
    if lora:
        loaded = _with_lora(loaded, lora)
    return loaded.to(device).eval(), processor


def _check_kind(folder: Path, model: str) -> None:
    """Refuse what no weights need to be read for."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelMissingError(f"caption.model = {model!r}: {folder} has no config.json that can be read") from error
    kind = config.get("model_type")
    if kind != "blip-2" or not config.get("use_decoder_only_language_model", True):
        raise ModelMissingError(
            f"caption.model = {model!r} is {kind or 'of no named kind'}; wanted is a BLIP-2 with a decoder such as OPT"
        )


def _with_lora(model: Any, lora: str) -> Any:  # noqa: ANN401  (transformers' classes are untyped)
    """Return the model with LoRA weights folded in: as fast as without."""
    folder = locate(lora, "caption.lora").folder
    # peft would fall back to unpickling adapter_model.bin; nothing is ever unpickled here.
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise ModelMissingError(f"caption.lora = {lora!r}: {folder} has no {name}")
    import warnings

    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        with warnings.catch_warnings():
            # peft asks transformers under an old name, and only warns of keys that the file lacks.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("error", message=".*missing adapter keys.*")
            return PeftModel.from_pretrained(model, folder, use_safetensors=True).merge_and_unload()
    except (OSError, RuntimeError, ValueError, TypeError, SafetensorError, UserWarning) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelMissingError(f"caption.lora = {lora!r}: {folder} does not fit the model: {reason}") from error

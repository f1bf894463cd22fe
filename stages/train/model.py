"""The model in training: loaded by open_clip under the names the encoder knows, towers frozen where asked.

What a folder needs so that open_clip loads it again is kept beside the model: its config (quick-gelu included), and for
a text tower of transformers that tower's config and tokenizer.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.models import ModelSpec
from stages import torchvision_shim
from stages.freed_memory import keep_freed_memory
from stages.mini_model import CONFIG, WEIGHTS
from stages.open_clip_load import create_model, model_source, read_config
from stages.step import ModelMissingError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["CONFIG", "WEIGHTS", "Trainee", "load_trainee"]

_PREPROCESS = ("mean", "std", "interpolation", "resize_mode", "fill_color")
_IMAGE_PROJECTION = ("visual.proj", "visual.head.")
_TEXT = ("text.", "transformer.", "token_embedding.", "positional_embedding", "ln_final.")
_TEXT_PROJECTION = ("text_projection", "text.text_projection", "text.proj.")
_HERE = "."  # open_clip wants an absolute path here: the one that loads the folder gives it, wherever it lies then


@dataclass(frozen=True, slots=True, eq=False)
class Trainee:
    """A model and what belongs to it.

    Attributes:
        model: On the CPU in float32; ``model(images, texts)`` returns image_features, text_features, logit_scale.
        tokenizer: Texts to int64 [n, context].
        preprocess: open_clip's preprocessing config: size, mean, std, interpolation, resize_mode.
        config: ``model_cfg`` of open_clip_config.json.
        files: Further files of a folder that open_clip loads: tokenizer and config of a transformers tower, by name.
        frozen: Towers that stay in eval mode.
    """

    model: nn.Module
    tokenizer: Callable[[list[str]], Tensor]
    preprocess: dict[str, Any]
    config: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    frozen: tuple[nn.Module, ...] = ()

    def train_mode(self) -> None:
        """Set training mode, but for frozen towers: their statistics stay, and nothing is dropped out."""
        self.model.train()
        for tower in self.frozen:
            tower.eval()

    def folder_config(self) -> bytes:
        """Return open_clip_config.json."""
        preprocess = {name: self.preprocess[name] for name in _PREPROCESS if name in self.preprocess}
        document = {"model_cfg": self.config, "preprocess_cfg": preprocess}
        return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def load_trainee(spec: ModelSpec, *, lock_image: bool = False, lock_text: bool = False) -> Trainee:
    """Load a model with all its weights: what is not loaded whole is refused.

    Args:
        spec: Which (`manifests.models.resolve`).
        lock_image: Whether all of the image tower but its projection into the common space is frozen.
        lock_text: The same for the text tower.

    Raises:
        ModelMissingError: If it cannot be had here, or its weights do not fit: says what to name instead.
    """
    if spec.kind != "open_clip":
        raise ModelMissingError(f"train.model = {spec.name!r} has nothing to train; name mini, or local-dir:PATH")
    torchvision_shim.declare()
    try:
        keep_freed_memory()
        name, told = model_source(spec)
        model, _, tokenizer = create_model(name, {**told, "output_dict": True})
    except ModelMissingError as error:
        raise ModelMissingError(f"train.model = {spec.name!r}: {error}") from error
    model.output_dict = True
    config = _config(name)
    files = _text_tower_files(model, tokenizer) if "hf_model_name" in config["text_cfg"] else {}
    if files:
        config["text_cfg"] |= {"hf_model_name": _HERE, "hf_tokenizer_name": _HERE, "hf_model_pretrained": False}
    trainee = Trainee(model, tokenizer, dict(model.visual.preprocess_cfg), config, files)
    return replace(trainee, frozen=tuple(_locked(model, image=lock_image, text=lock_text)))


def _config(name: str) -> dict[str, Any]:
    """Return a model's config by open_clip's name of it."""
    import open_clip

    if name.startswith("local-dir:"):
        return deepcopy(dict(read_config(Path(name.partition(":")[2]))["model_cfg"]))
    return deepcopy(dict(open_clip.get_model_config(name)))


def _text_tower_files(model: Any, tokenizer: Any) -> dict[str, bytes]:  # noqa: ANN401  (open_clip has no types)
    """Return the config of a transformers text tower, and its tokenizer, as files."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.tokenizer.save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()}
    return files | {"config.json": model.text.config.to_json_string(use_diff=False).encode()}


def _locked(model: nn.Module, *, image: bool, text: bool) -> list[nn.Module]:
    """Freeze towers but for their projections; return what must stay in eval mode."""
    frozen: list[nn.Module] = []
    for asked, tower, but, modules in (
        (image, ("visual.",), _IMAGE_PROJECTION, ("visual",)),
        (text, _TEXT, _TEXT_PROJECTION, ("text", "transformer")),
    ):
        if asked:
            for name, parameter in model.named_parameters():
                if name.startswith(tower) and not name.startswith(but):
                    parameter.requires_grad = False
            frozen += [module for name, module in model.named_children() if name in modules]
    return frozen

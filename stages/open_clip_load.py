"""Loads open_clip models by tag, file, hub id or folder, and says in one line why one cannot be had."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.model_files import hub_snapshot, tag_weights
from manifests.models import ModelSpec, local_path
from stages import torchvision_shim
from stages.freed_memory import keep_freed_memory
from stages.mini_model import CONFIG, mini_model_folder
from stages.step import ModelMissingError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image
    from torch import Tensor, nn

_KEPT = 4  # models a process holds at once
# What the hub client, transformers and open_clip were seen to raise for models that are missing or broken.
_NOT_HAD = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, ImportError, AssertionError)
_SHAPES = re.compile(
    r"size mismatch for (?P<name>[\w.]+): copying a param with shape torch\.Size\((?P<has>[^)]*)\) from checkpoint, "
    r"the shape in current model is torch\.Size\((?P<wants>[^)]*)\)"
)
_KEYS = re.compile(r"(?P<what>Missing|Unexpected) key\(s\) in state_dict: (?P<names>\"[^\n]*\")")
_HUB_FILES = ("*.json", "*.txt", "*.model")
_TAG_PREPROCESS = ("mean", "std", "interpolation", "resize_mode")
_CAUSE_LETTERS, _SHORT_LETTERS = 200, 60


@dataclass(frozen=True, slots=True, eq=False)
class Towers:
    """A loaded model.

    Attributes:
        model: open_clip's model in eval mode on its device, float32.
        preprocess: The model's own preprocessing of one RGB picture, to a tensor [3, H, W].
        tokenize: Texts to token ids [N, context].
        device: ``cpu`` or ``cuda``.
        precision: ``fp32``, ``bf16`` or ``fp16``.
    """

    model: nn.Module
    preprocess: Callable[[Image.Image], Tensor]
    tokenize: Callable[[list[str]], Tensor]
    device: str
    precision: str


@lru_cache(maxsize=_KEPT)
def load_towers(spec: ModelSpec, digest: str, device: str, precision: str) -> Towers:
    """Load a model, once a process while its digest stays.

    On the CPU torch is set to one thread: numbers must not depend on the machine's cores, and the workers of a run
    share them.

    Raises:
        ModelMissingError: The model cannot be had, its weights do not fit it, or the device is not there.
        OutOfMemoryError: The device's memory does not hold it.
    """
    del digest
    torchvision_shim.declare()
    import torch

    if device == "cpu":
        torch.set_num_threads(1)
        keep_freed_memory()
    elif not torch.cuda.is_available():
        raise ModelMissingError("run.device is cuda, but torch finds no GPU here; set run.device to cpu")
    name, told = model_source(spec)
    model, preprocess, tokenize = create_model(name, told)
    try:
        model.to(device=device)
        model.visual.to(memory_format=torch.channels_last)
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(f"{spec.name} does not fit into the memory of the {device} device") from error
    return Towers(model.eval().requires_grad_(False), preprocess, tokenize, device, precision)


def read_config(folder: Path) -> dict[str, Any]:
    """Return ``open_clip_config.json`` of a folder.

    Raises:
        ModelMissingError: It is missing or no configuration.
    """
    try:
        document = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelMissingError(
            f"{folder / CONFIG} cannot be read ({error}); name a folder of an open_clip model"
        ) from error
    if not isinstance(document, dict) or not {"vision_cfg", "text_cfg"} <= set(document.get("model_cfg") or ()):
        raise ModelMissingError(f"{folder / CONFIG} has no model_cfg with vision_cfg and text_cfg")
    return document


def folder_arguments(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the name and further arguments for ``open_clip.create_model_and_transforms`` that load a folder.

    open_clip wants an absolute path of a text tower that lies in the folder, wherever the folder was moved.

    Raises:
        ModelMissingError: The folder lacks its configuration or weights.
    """
    cfg = read_config(folder)
    if not _weights(folder):
        raise ModelMissingError(f"{folder} has a configuration but no weights (*.safetensors, *.bin or *.pth)")
    text = cfg["model_cfg"]["text_cfg"]
    told: dict[str, Any] = {}
    if "hf_model_name" in text and (folder / "config.json").is_file():
        told["text_cfg"] = {**text, "hf_model_name": str(folder), "hf_model_pretrained": False}
    return f"local-dir:{folder}", told


def _weights(folder: Path) -> list[Path]:
    return [path for suffix in ("safetensors", "bin", "pth") for path in folder.glob(f"*.{suffix}")]


def model_source(spec: ModelSpec) -> tuple[str, dict[str, Any]]:
    """Return open_clip's name of a model, and the further arguments of ``open_clip.create_model_and_transforms``.

    The mini model is put together, and a hub model fetched, if need be.

    Raises:
        ModelMissingError: It is not at hand.
    """
    if spec.scheme == "package":
        return folder_arguments(mini_model_folder())
    if spec.scheme == "local-dir":
        return folder_arguments(Path(spec.target))
    if spec.scheme == "hf-hub":
        return folder_arguments(_hub_folder(spec.target))
    name, _, weights = spec.target.partition("/")
    return name, {"pretrained": str(local_path(weights)), "weights_only": True}


def _hub_folder(target: str) -> Path:
    """Return the local copy of a hub model, downloaded only if there is none: the copy is what its digest is of."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    repository, _, revision = target.partition("@")
    cached = hub_snapshot(repository, revision)
    if cached and (cached / CONFIG).is_file() and _weights(cached):
        return cached
    wanted = cached.name if cached else revision or None  # a copy that lacks files is filled up, not replaced
    pinned = f" --revision {revision}" if revision else ""
    # safetensors where the repository has them: of the other formats one is enough.
    for weights in ("*.safetensors", "open_clip_pytorch_model.bin"):
        try:
            folder = Path(snapshot_download(repository, revision=wanted, allow_patterns=[*_HUB_FILES, weights]))
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise ModelMissingError(
                f"{repository} is not in this machine's hub cache and could not be fetched "
                f"({_one_line(error, _SHORT_LETTERS)}); `hf download {repository}{pinned}` brings it where there is a "
                "network, or name a copy as local-dir:PATH"
            ) from error
        if _weights(folder):
            break
    return folder


def create_model(name: str, told: dict[str, Any]) -> tuple[Any, Callable[[Image.Image], Tensor], Any]:
    """Return model (on the CPU, trainable), preprocessing of evaluation, and tokenizer, for what `model_source` says.

    Raises:
        ModelMissingError: It cannot be had, or its weights do not fit it.
    """
    from safetensors import SafetensorError

    try:
        with warnings.catch_warnings(), _open_clip_silent():
            warnings.simplefilter("ignore")  # deprecations inside timm and transformers say nothing to a user
            import open_clip

            if not name.startswith("local-dir:"):
                _check_tag(name, told["pretrained"])
                told = _from_cache(name, told)
            model, _, preprocess = open_clip.create_model_and_transforms(name, **told)
            return model, preprocess, open_clip.get_tokenizer(name)
    except (SafetensorError, *_NOT_HAD) as error:
        raise ModelMissingError(_why(error, name, told)) from error


@contextlib.contextmanager
def _open_clip_silent() -> Iterator[None]:
    """Drop what open_clip logs: it logs errors that it raises, to the root logger, and sets that up to be printed."""
    root, quiet = logging.getLogger(), logging.NullHandler()

    def is_others(record: logging.LogRecord) -> bool:
        return "open_clip" not in Path(record.pathname).parts

    root.addHandler(quiet)  # where there is a handler, logging adds none
    root.addFilter(is_others)
    try:
        yield
    finally:
        root.removeFilter(is_others)
        root.removeHandler(quiet)


def _from_cache(name: str, told: dict[str, Any]) -> dict[str, Any]:
    """Return arguments that load a tag of the hub from the file at hand, if there is one, and ask nobody.

    It is what the model's digest is of; open_clip would ask the hub first, and take what it serves by now. A file
    does not bring the tag's preprocessing along: that is handed over.
    """
    from open_clip.pretrained import get_pretrained_cfg

    tag = get_pretrained_cfg(name, told["pretrained"])
    weights = tag_weights(name, told["pretrained"]) if tag.get("hf_hub") else None
    if weights is None:
        return told
    return {**told, "pretrained": str(weights)} | {f"image_{field}": tag[field] for field in _TAG_PREPROCESS}


def _check_tag(name: str, weights: str) -> None:
    """Refuse names and tags that open_clip does not know, and tags that need another activation than the name has."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    config = open_clip.get_model_config(name)
    if config is None:
        raise ModelMissingError(f"open_clip has no model {name!r}; open_clip.list_models() lists them")
    tag = get_pretrained_cfg(name, weights)
    if not tag and not Path(weights).is_file():
        tags = ", ".join(list_pretrained_tags_by_model(name)) or "none"
        raise ModelMissingError(f"{weights!r} is neither a file nor a tag of {name} (tags: {tags})")
    if tag and bool(tag.get("quick_gelu")) != bool(config.get("quick_gelu")):
        other = name.removesuffix("-quickgelu") if config.get("quick_gelu") else f"{name}-quickgelu"
        raise ModelMissingError(
            f"the weights {weights!r} were trained with another activation; write {other}/{weights}"
        )


def _why(error: BaseException, name: str, told: dict[str, Any]) -> str:
    """Return in one line why a model could not be made."""
    text = str(error)
    if found := _SHAPES.search(text):
        return f"the weights do not fit: {found['name']} has shape {found['has']}, the model wants {found['wants']}"
    if found := _KEYS.search(text):
        names = found["names"].split(", ")
        return f"the weights do not fit: {len(names)} {found['what'].lower()} tensors, the first is {names[0]}"
    if name.startswith("local-dir:"):
        return f"{name.partition(':')[2]} cannot be loaded: {_one_line(error)}"
    if Path(told["pretrained"]).is_file():
        return f"{told['pretrained']} cannot be loaded as {name}: {_one_line(error)}"
    return (
        f"its weights are not in this machine's caches and could not be fetched ({_one_line(error, _SHORT_LETTERS)}); "
        f"`{_fetch(name, told['pretrained'])}` brings them where there is a network"
    )


def _fetch(name: str, weights: str) -> str:
    from open_clip.pretrained import get_pretrained_cfg

    repository = str(get_pretrained_cfg(name, weights).get("hf_hub") or "").rstrip("/")
    if repository:
        return f"hf download {repository}"
    return f"python -c \"import open_clip; open_clip.create_model('{name}', '{weights}')\""


def _one_line(error: BaseException, letters: int = _CAUSE_LETTERS) -> str:
    """Return what an error says, the innermost cause that open_clip quotes, as one short line."""
    text = " ".join(str(error).split()).rpartition("Last error: ")[2]
    return (text if len(text) <= letters else f"{text[: letters - 3]}...") or type(error).__name__

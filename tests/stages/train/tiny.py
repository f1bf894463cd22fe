"""A tiny open_clip model with random weights, and tars of tiny coloured pictures whose captions name the colours."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from manifests.models import resolve
from stages import torchvision_shim
from stages.tars import TarWriter
from stages.train.members import read_members
from stages.train.model import Trainee, load_trainee
from stages.train.samples import Samples
from stages.train.transforms import Transform

# Read when the hub client is imported, which is later: no test may wait for a network.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

MODEL = {
    "embed_dim": 64,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
WORDS = (
    "river forest harbor runway meadow desert bridge stadium island quarry orchard glacier canal vineyard dune reef"
).split()


def model_folder(path: Path, seed: int = 0, config: dict | None = None) -> Path:
    """Write a model with random weights as open_clip loads it."""
    torchvision_shim.declare()
    import open_clip
    import torch
    from safetensors.torch import save_file

    path.mkdir(parents=True)
    config = config or MODEL
    torch.manual_seed(seed)
    options = {**config, "vision_cfg": open_clip.CLIPVisionCfg(**config["vision_cfg"])}
    options["text_cfg"] = open_clip.CLIPTextCfg(**config["text_cfg"])
    model = open_clip.CLIP(**options)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path / "open_clip_model.safetensors"
    )
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}))
    return path


def tiny_trainee(folder: Path, **locks: bool) -> Trainee:
    return load_trainee(resolve(f"local-dir:{folder}", "train.model"), **locks)


def pair(number: int) -> tuple[bytes, str]:
    """Return a picture of 16 colours, and a caption of its own."""
    colours = np.random.default_rng(number).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(colours).resize((40, 36), Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue(), f"{WORDS[number % 16]} beside a {WORDS[number // 16 % 16]} number {number}"


def pairs(count: int, first: int = 0) -> list[tuple[bytes, str]]:
    return [pair(number) for number in range(first, first + count)]


def write_tar(
    path: Path, content: list[tuple[bytes, str]], suffixes=("img_content", "caption"), first: int = 0
) -> Path:
    """Write pairs as a released tar, or as one that open_clip reads with suffixes (png, txt)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TarWriter(path) as tar:
        for number, (picture, caption) in enumerate(content, first):
            key = f"{number:032x}"
            if suffixes[0] == "img_content":
                tar.add(f"{key}.img_name", f"name {number}".encode())
            tar.add(f"{key}.{suffixes[0]}", picture)
            tar.add(f"{key}.{suffixes[1]}", caption.encode())
    return path


def samples_of(trainee: Trainee, *tars: Path, transform: str = "eval", seed: int = 0) -> Samples:
    return Samples(read_members(tars), Transform(trainee.preprocess, transform, seed), trainee.tokenizer)

"""Open_clip models of a few thousand weights, random, in folders as open_clip loads them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from stages import torchvision_shim

PREPROCESS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic", "resize_mode": "shortest"}
_TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
VISION: dict[str, dict[str, Any]] = {
    "vit": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "timm": {"image_size": 32, "timm_model_name": "test_efficientnet", "timm_pool": "avg", "timm_proj": "linear"},
}


def tiny_model(folder: Path, vision: str = "vit", seed: int = 0, dimensions: int = 16) -> Path:
    """Make the folder of a random model with a ViT or a timm image tower."""
    torchvision_shim.declare()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import open_clip
        import torch
        from safetensors.torch import save_file

        torch.manual_seed(seed)
        torch.set_num_threads(1)
        cfg = {"embed_dim": dimensions, "vision_cfg": VISION[vision], "text_cfg": _TEXT}
        model = open_clip.CustomTextCLIP(**cfg) if vision == "timm" else open_clip.CLIP(**cfg)
    folder.mkdir(parents=True)
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    cfg["custom_text"] = vision == "timm"
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg, "preprocess_cfg": PREPROCESS}))
    return folder

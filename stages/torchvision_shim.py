"""Declares two operators that torchvision expects, so that it imports on a CPU-only torch. Import this first.

torchvision's Python package registers fake kernels for ``torchvision::nms`` and ``torchvision::qnms`` when it is
imported; its compiled half, which declares them, does not load beside a CPU build of torch, and the import dies with
"operator torchvision::nms does not exist". open_clip, timm and transformers all import torchvision. Declaring the two
schemas, without kernels, is enough: nothing here runs non-maximum suppression.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[Any] = []


def declare() -> None:
    """Declare the operators, once a process, where torch has no CUDA and torchvision was not built for that."""
    import torch

    if _kept or torch.version.cuda is not None or version("torchvision").endswith("+cpu"):
        return
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    _kept.append(library)  # the declaration lives as long as the object

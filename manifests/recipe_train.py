"""The table [train] of the recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Train(BaseModel):
    """Contrastive training from the released shards."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(default="mini", description="a shipped model, or open_clip:NAME/WEIGHTS, hf-hub:, local-dir:")
    lock_image: bool = Field(default=False, description="the image tower is frozen but for its projection")
    lock_text: bool = Field(default=False, description="the text tower is frozen but for its projection")
    transform: Literal["eval", "georsclip"] = Field(default="eval", description="eval: the model's own, no randomness")
    steps: Count = Field(default=0, description="optimiser steps; 0: as many as epochs give")
    epochs: Annotated[float, Field(gt=0)] = 1.0
    batch: Annotated[int, Field(ge=2)] = Field(
        default=32, description="pairs that are compared with one another in a step, over all ranks and accumulation"
    )
    accumulate: Annotated[int, Field(ge=1)] = Field(
        default=1, description="parts that each rank's share of a batch is done in, to save memory"
    )
    lr: Annotated[float, Field(gt=0)] = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.5
    beta1: Beta = 0.9
    beta2: Beta = 0.98
    eps: Annotated[float, Field(gt=0)] = 1e-6
    warmup_steps: Count = 0
    grad_clip_norm: Annotated[float, Field(ge=0)] = Field(default=0.0, description="0: none")
    precision: Literal["fp32", "amp_bf16", "amp_fp16"] = "fp32"
    val_pairs: Count = Field(
        default=5_000, description="pairs of the validation tars that recall is taken over; 0: all"
    )
    log_every_steps: Annotated[int, Field(ge=1)] = 10
    eval_every_steps: Count = Field(default=0, description="0: before the first step and after the last")
    checkpoint_every_steps: Count = Field(default=0, description="0: after the last step, and when stopped")
    keep_checkpoints: Count = Field(default=0, description="newest ones that stay; 0: all")


DECIDES = (
    "model", "lock_image", "lock_text", "transform", "steps", "epochs", "batch", "accumulate", "lr", "weight_decay",
    "beta1", "beta2", "eps", "warmup_steps", "grad_clip_norm", "precision", "val_pairs",
)  # fmt: skip
"""Keys that decide what a training comes to: in the fingerprint. The others say when it is looked at and kept."""

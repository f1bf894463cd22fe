"""The table [run] of the recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Run(BaseModel):
    """How the work is run; never part of a fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    executor: Literal["ray", "local"] = "ray"
    workers: Annotated[int, Field(ge=0)] = Field(default=0, description="0: the CPUs this process may use")
    rounds: Annotated[int, Field(ge=1)] = 3
    retries: Annotated[int, Field(ge=0)] = 2
    partition_deadline_s: Annotated[float, Field(gt=0)] = 3600.0
    time_limit_s: Annotated[float, Field(ge=0)] = Field(default=0.0, description="0: none; else drain after it")
    lock_beat_s: Annotated[float, Field(gt=0)] = 10.0
    scratch: str = Field(default="", description="folder for temporary files; empty: the system's")
    skip: list[str] = Field(default=[], description="step/partition that may stay failed; every report prints it")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: cuda where this machine has one")
    allow_mixed_profile: bool = Field(default=False, description="partitions of a step may differ in numeric profile")
    metrics_every_s: Annotated[float, Field(gt=0)] = Field(
        default=10.0, description="between two looks at the run's numbers; at least 30 on an object store"
    )
    metrics_file: str = Field(
        default="", description="also write them here, for node_exporter's textfile collector; may hold {scope}"
    )
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = Field(default=0, description="answer Prometheus; 0: do not")
    metrics_bind: str = Field(default="127.0.0.1", description="the address of metrics_port")
    stalled_after_s: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="a partition stands still after so long without a sign; 0: by its step's median"
    )
    wandb: str = Field(default="", description="project in Weights & Biases to log to; empty: none")
    ignore_space: bool = Field(default=False, description="start although disk or memory will not do by the price")
    gpu_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="Ray: share of a GPU that one task of a step with a model takes"
    )
    ray_resources: dict[str, dict[str, Annotated[float, Field(gt=0)]]] = Field(
        default={}, description='custom resources one task asks for, by step; "*": every step without its own'
    )
    ray_wait_s: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="a cluster that grows by itself: wait so long for a node that can do a step; 0: it is not",
    )

"""The recipe's table [cluster.kubernetes]: the pods of a RayJob."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# A name that Kubernetes accepts for a Secret or a service account (RFC 1123); empty: none.
_Name = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$")]
_Count = Annotated[int, Field(ge=0, le=10_000)]
_Some = Annotated[int, Field(ge=1, le=100_000)]


class Kubernetes(BaseModel):
    """What `submit --to kuberay` asks Kubernetes for; read by nothing else, never part of a fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    image: str = Field(
        default="", description="of docker/Dockerfile.cpu, where the cluster can pull it; by digest best"
    )
    gpu_image: str = Field(default="", description="of docker/Dockerfile.gpu, for workers with GPUs; empty: as image")
    pull_secret: _Name = Field(default="", description="Secret that opens the registry; empty: none is needed")
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")] = "default"
    service_account: _Name = Field(default="", description="pods run under it; empty: the namespace's default")
    secret: _Name = Field(
        default="", description="Secret whose entries all pods have as variables: AWS_ACCESS_KEY_ID and the like"
    )
    workers: _Count = Field(default=4, description="pods without GPUs, at most")
    workers_min: _Count = Field(default=4, description="pods without GPUs, at least; below workers: grows by itself")
    gpu_workers: _Count = Field(default=1, description="pods with GPUs, at most; none where no step wants a GPU")
    gpu_workers_min: _Count = Field(default=1, description="pods with GPUs, at least")
    nodes: dict[str, str] = Field(default={}, description="labels of the nodes that pods may stand on")
    gpu_nodes: dict[str, str] = Field(default={}, description="labels of the nodes of pods with GPUs")
    head_cpus: _Some = Field(default=4, description="cores of the pod that drives the build")
    head_memory_gb: _Some = Field(default=16, description="memory of the pod that drives the build")
    scratch_gb: _Some = Field(default=64, description="a pod's disk for images on their way; more: it is evicted")
    spill_gb: _Some = Field(default=16, description="a pod's disk for Ray's logs and spilled objects")
    retries: _Count = Field(default=3, description="times the build starts again, with new pods, where it ended")
    keep_s: _Count = Field(default=600, description="how long the pods stand after the end, for a look at their logs")

    @field_validator("*")
    @classmethod
    def _one_line(cls, value: object) -> object:
        texts = [*value, *value.values()] if isinstance(value, dict) else [value]
        for text in texts:
            if isinstance(text, str) and not text.isprintable():
                msg = f"one line of printable characters, not {text!r}"
                raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _from_least_to_most(self) -> Self:
        for key in ("workers", "gpu_workers"):
            if getattr(self, f"{key}_min") > getattr(self, key):
                msg = f"{key}_min is above {key}"
                raise ValueError(msg)
        return self

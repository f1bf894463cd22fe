"""The recipe's table [cluster]: where and how jobs are placed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from manifests.recipe_kubernetes import Kubernetes

NotNegative = Annotated[float, Field(ge=0)]


class Cluster(BaseModel):
    """The machines of a build, what they cost, and how `submit` places its jobs; never part of a fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    cpus: Annotated[int, Field(ge=0)] = Field(default=0, description="cores, all machines together; 0: run.workers")
    gpus: NotNegative = Field(default=0.0, description="GPUs, all machines together; 0: those of this machine")
    memory_gb: NotNegative = Field(default=0.0, description="memory of the largest machine; 0: this machine's")
    cpu_hour_cost: NotNegative = Field(default=0.0, description="of a core for an hour, any currency; 0: not told")
    gpu_hour_cost: NotNegative = Field(default=0.0, description="of a GPU for an hour; 0: not told")
    gb_month_cost: NotNegative = Field(default=0.0, description="of 1e9 bytes stored for a month; 0: not told")

    shape: Literal["arrays", "ray"] = Field(
        default="arrays",
        description="Slurm: a chain of job arrays without Ray; or one job that starts Ray on its nodes",
    )
    partition: str = Field(default="", description="Slurm partition; empty: the cluster's default")
    gpu_partition: str = Field(default="", description="Slurm partition of jobs with GPUs; empty: as partition")
    account: str = ""
    qos: str = ""
    constraint: str = Field(default="", description="Slurm node features, e.g. a100|h100")
    modules: list[str] = Field(default=[], description="environment modules to load")
    container: str = Field(default="", description="Apptainer image that commands run in; empty: none")
    scratch: str = Field(default="", description="folder on a node's local disk; may name variables: /scratch/$USER")
    array: Annotated[int, Field(ge=1, le=100_000)] = Field(default=16, description="tasks a map step is cut into")
    array_limit: Annotated[int, Field(ge=0)] = Field(default=0, description="tasks of an array at a time; 0: no limit")
    nodes: Annotated[int, Field(ge=1)] = Field(default=2, description="nodes of a Ray cluster")
    requeues: Annotated[int, Field(ge=0)] = Field(default=20, description="times a job starts again at its time limit")
    drain_s: Annotated[int, Field(ge=1, le=65_535)] = Field(
        default=120, description="at least so long before its time limit a job starts nothing new"
    )
    job_cpus: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default={}, description="cores of a job, by step; *: others"
    )
    job_memory_gb: dict[str, Annotated[int, Field(ge=1)]] = Field(default={}, description="memory of a job, by step")
    job_gpus: dict[str, Annotated[int, Field(ge=0)]] = Field(default={}, description="GPUs of a job, by step")
    job_hours: dict[str, Annotated[float, Field(gt=0)]] = Field(default={}, description="time limit of a job, by step")
    extra: list[str] = Field(default=[], description="further #SBATCH options, e.g. --mail-type=FAIL")
    setup: list[str] = Field(default=[], description="shell lines before the work, e.g. source /opt/env/bin/activate")
    ray_dashboard: str = Field(
        default="http://127.0.0.1:8265", description="of the Ray cluster that `submit --to ray` hands the build to"
    )
    kubernetes: Kubernetes = Kubernetes()

    @field_validator("*")
    @classmethod
    def _one_line(cls, value: object) -> object:
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not text.isprintable():
                msg = f"one line of printable characters, not {text!r}"
                raise ValueError(msg)
        return value

"""A Ray cluster that stands already: a script that hands the build to its dashboard as one job."""

from __future__ import annotations

import json

from pipeline.submit.order import RECIPE_FILE, HandOver, JobFile, Order
from pipeline.submit.shell import array, quoted

SCRIPT = "ray_job.sh"


def render(order: Order) -> list[JobFile]:
    """Return `SCRIPT`, which hands the build to the cluster whose dashboard the recipe names."""
    return [JobFile(SCRIPT, "\n".join(_lines(order)) + "\n", 0o755)]


def summary(order: Order) -> list[str]:
    """Return what is asked for: what tasks take of the cluster is Ray's to hand out."""
    return [f"one job, its tasks as the Ray cluster at {order.recipe.cluster.ray_dashboard} has room"]


def hand_over(order: Order) -> HandOver:
    """Return how the build reaches the cluster."""
    where = quoted(f"{order.folder}/{SCRIPT}")
    return HandOver("ray", ("bash", SCRIPT), f"ray is not here (pip install 'ray[default]'): run `bash {where}` there")


def _lines(order: Order) -> list[str]:
    address = quoted(order.recipe.cluster.ray_dashboard)
    drain_s = order.largest.drain_s
    # Where the job and the driver's own ray.init name the same field, the driver's is taken: it ships the code itself.
    variables = {"RAY_OVERRIDE_JOB_RUNTIME_ENV": "1", "RAY_JOB_STOP_WAIT_TIME_S": str(drain_s)}
    environment = {"env_vars": variables}
    return [
        "#!/usr/bin/env bash",
        f"# Hands the build {order.recipe.name} to a Ray cluster as one job, which drives it from the cluster's head.",
        "# Written by rs5m-build submit, which runs this. It can be run alone, and again once the job has ended: what",
        "# is done stays done. A second one at the same time is refused by the workdir's lock.",
        "#   follow:  ray job logs --follow ID, or the dashboard",
        f"#   stop:    ray job stop ID    drains: what runs is finished, for {drain_s} s at most",
        f"#   both with --address {address}",
        "# RAY_AUTH_TOKEN must hold the cluster's token, if it has one.",
        "# What must be there: rs5m-build on the PATH of the head's Ray, of the version that wrote this; workdir and",
        "# metadata under the same names on every node; keys of an object store in the environment of every node.",
        "set -euo pipefail",
        'cd -- "$(dirname -- "$0")"',
        "",
        f"# A folder with {RECIPE_FILE} and nothing else goes along.",
        "sent=$(mktemp -d)",
        "trap 'rm -rf -- \"$sent\"' EXIT",
        f'cp {RECIPE_FILE} "$sent"',
        "",
        "# How the job is handed over.",
        *array(
            "job",
            [
                "# The cluster's dashboard: cluster.ray_dashboard.",
                f"--address {address}",
                "# It goes on when this terminal is gone.",
                "--no-wait",
                "# The job starts in a copy of it.",
                '--working-dir "$sent"',
                "# RAY_OVERRIDE_JOB_RUNTIME_ENV: workers get the driver's code, not this folder.",
                "# RAY_JOB_STOP_WAIT_TIME_S: seconds to drain after `ray job stop`; Ray's own are 3. cluster.drain_s",
                f"--runtime-env-json {quoted(json.dumps(environment))}",
            ],
        ),
        "",
        "# What it runs.",
        *array(
            "run",
            [
                "rs5m-build run",
                f"--recipe {RECIPE_FILE}",
                f"--workdir {quoted(order.workdir)}",
                "--executor ray",
                "# The cluster that the job is part of.",
                "--ray-address auto",
            ],
        ),
        "",
        'ray job submit "${job[@]}" -- "${run[@]}"',
    ]

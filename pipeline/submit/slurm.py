"""Slurm: a chain of job arrays, or one job that starts Ray on its nodes; and the script that hands them over."""

from __future__ import annotations

from itertools import groupby

from pipeline.line import LINE
from pipeline.submit.order import HandOver, JobFile, JobNeed, Order
from pipeline.submit.shell import noted, quoted
from pipeline.submit.slurm_job import Job, job_text
from pipeline.submit.slurm_ray import ray_job_text

SCRIPT = "submit.sh"
_USUAL_ARRAY = 1000  # tasks; Slurm's default MaxArraySize is 1001


def render(order: Order) -> list[JobFile]:
    """Return the jobs of a build and `SCRIPT`, which hands them to sbatch."""
    if order.recipe.cluster.shape == "ray":
        name = "line.sbatch"
        return [JobFile(name, ray_job_text(order, name)), _script(order, [(name, "")])]
    jobs = chain(order)
    behind = ["", *("afterany" if job.slices else "afterok" for job in jobs)]
    files = [JobFile(job.file, job_text(order, job)) for job in jobs]
    return [*files, _script(order, list(zip([job.file for job in jobs], behind, strict=False)))]


def summary(order: Order) -> list[str]:
    """Return what the jobs ask for, and a line for what the cluster's own limits may refuse."""
    cluster, largest = order.recipe.cluster, order.largest
    if cluster.shape == "ray":
        return [f"one job of {cluster.nodes} nodes of {largest.size} each, at most {largest.hours:.3g} h"]
    lines = ["jobs:"]
    for step, need in order.needs.items():
        limits = f"at most {need.hours:.3g} h, each with {need.workers} workers"
        lines.append(f"  {step}: {need.tasks} of {need.size}, {limits}")
    most = max(job.slices for job in chain(order))
    if most > _USUAL_ARRAY:
        said = f"warning: an array of {most:,} tasks: Slurm takes it where MaxArraySize is above {most - 1:,}"
        lines.append(f"{said} (`scontrol show config`; 1,001 unless it says otherwise); else lower --array")
    return lines


def hand_over(order: Order) -> HandOver:
    """Return how the files reach Slurm."""
    return HandOver(
        "sbatch", ("bash", SCRIPT), f"sbatch is not here: run `bash {quoted(f'{order.folder}/{SCRIPT}')}` where it is"
    )


def chain(order: Order) -> list[Job]:
    """Return the jobs of the chain: an array for each map step, and behind it one job that settles and reduces."""
    jobs: list[Job] = []
    maps: list[str] = []
    for kind, steps in groupby(LINE, key=lambda step: step.kind):
        names = [step.name for step in steps]
        if kind == "reduce":
            jobs.append(_single(order, len(jobs) + 1, [*maps[-1:], *names], names[0]))
            continue
        for name in names:
            if maps and name != names[0]:
                jobs.append(_single(order, len(jobs) + 1, [maps[-1]], f"{maps[-1]}.settle"))
            jobs.append(Job(f"{len(jobs) + 1:02}-{name}.sbatch", name, (name,), order.needs[name], sliced=True))
            maps.append(name)
    return jobs


def _single(order: Order, number: int, steps: list[str], name: str) -> Job:
    return Job(f"{number:02}-{name}.sbatch", name, tuple(steps), _together([order.needs[step] for step in steps]))


def _together(needs: list[JobNeed]) -> JobNeed:
    """Return what one job needs that does several steps, one after the other; the first is all but done."""
    return JobNeed(
        cpus=max(need.cpus for need in needs),
        memory_gb=max(need.memory_gb for need in needs),
        gpus=max(need.gpus for need in needs),
        hours=max(need.hours for need in needs),
        workers=needs[0].workers,
        tasks=1,
        drain_s=max(need.drain_s for need in needs),
    )


def _script(order: Order, jobs: list[tuple[str, str]]) -> JobFile:
    lines = [
        "#!/usr/bin/env bash",
        f"# Hands the build {order.recipe.name} to Slurm: each job waits for the one before it. Written by rs5m-build",
        "# submit, which runs this; it can be run alone, and again: what is done stays done.",
        "#   afterany: when every task of the array has ended, however; the job behind it settles what one left undone",
        "#   afterok:  when the job before has settled its step; if it fails, what is behind it is cancelled",
        "# To stop it, with the numbers of all jobs that it prints, first what waits, then what runs, which drains:",
        "#   scancel --state=PENDING JOB...",
        "#   scancel --signal=TERM --batch JOB...",
        "# `scancel JOB` alone kills what has not ended after the cluster's KillWait (30 s); the next run resumes.",
        "set -euo pipefail",
        'cd -- "$(dirname -- "$0")"',
        noted("mkdir -p logs", "Slurm does not make it, and a job without its log fails"),
        "",
        "hand_over() {",
        "    local id",
        noted('    id=$(sbatch --parsable "$@") || exit', "prints ID, or ID;CLUSTER"),
        '    echo "${id%%;*}"',
        "}",
        "",
        "# A chain that ends in its midst waits in the queue as far as it goes.",
        "queued=()",
        "told() {",
        "    local code=$?",
        '    if [ "$code" -ne 0 ] && [ "${#queued[@]}" -gt 0 ]; then',
        '        echo "not all jobs were handed over; queued: ${queued[*]}" >&2',
        '        echo "cancel them before this is run again: scancel ${queued[*]}" >&2',
        "    fi",
        "}",
        "trap told EXIT",
        "",
    ]
    before = ""
    for number, (file, behind) in enumerate(jobs, 1):
        job = f"job{number:02}"
        waits = f'--dependency="{behind}:${before}" ' if before else ""
        lines += [f"{job}=$(hand_over {waits}{quoted(file)})", f'queued+=("${job}")', f'echo "${job} {file}"']
        before = job
    lines.append('echo "to stop: scancel --state=PENDING ${queued[*]}; scancel --signal=TERM --batch ${queued[*]}"')
    return JobFile(SCRIPT, "\n".join(lines) + "\n", 0o755)

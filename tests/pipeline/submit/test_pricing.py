"""The machines a build is priced on: those of the cluster that it is handed to."""

from __future__ import annotations

from manifests.recipe_files import load_recipe
from manifests.store import Store
from pipeline.price.machine import Machine
from pipeline.submit.kuberay import groups, summary
from pipeline.submit.needs import job_needs, placed
from pipeline.submit.order import Order
from pipeline.submit.pricing import machines, priced

PODS = (
    "run.device=cuda",
    "cluster.kubernetes.workers=9",
    "cluster.kubernetes.gpu_workers=3",
    'cluster.job_cpus={"*"=4}',
)


def _machines(to: str, *overrides: str) -> Machine:
    recipe = load_recipe("rs5m", overrides)
    return machines(recipe, job_needs(recipe), to)


def test_slurm_is_what_runs_at_a_time_or_what_is_declared():
    assert _machines("slurm", "cluster.array=10", 'cluster.job_cpus={"*"=4}').cores == 40
    assert _machines("slurm", "cluster.array=10", "cluster.array_limit=2", 'cluster.job_cpus={"*"=4}').cores == 8
    assert _machines("slurm", "cluster.cpus=77").cores == 77


def test_kuberay_is_the_pods_of_the_file():
    at = _machines("kuberay", *PODS)
    assert (at.cores, at.gpus) == ((9 + 3) * 4, 3)
    assert _machines("kuberay").gpus == 0


def test_a_cluster_that_stands_is_what_is_declared_of_it():
    at = _machines("ray", "cluster.cpus=77", "cluster.gpus=4", "run.device=cuda")
    assert (at.cores, at.gpus) == (77, 4)
    assert (_machines("ray").cores, _machines("ray", "cluster.gpus=4").gpus) == (1, 0)


def test_tasks_without_a_partition_do_not_make_it_faster(tmp_path):
    recipe = load_recipe("rs5m", ["cluster.array=100000"])
    prices, at = priced(recipe, Store(str(tmp_path)), "slurm", lambda _: None)
    jobs = job_needs(recipe, {price.step: price for price in prices})
    assert at.cores == max(job.tasks * job.cpus for job in jobs.values())
    assert at.cores < _machines("slurm", "cluster.array=100000").cores


def test_pods_are_named_with_their_sizes():
    recipe = load_recipe("rs5m", [*PODS, "cluster.kubernetes.workers_min=0"])
    needs = job_needs(recipe)
    lines = summary(Order(placed(recipe, needs), "s3://b/w", "/jobs", "/", ("rs5m-build",), needs))
    cpu, gpu = groups(recipe.cluster.kubernetes, needs)
    assert lines[0] == "pods:"
    assert lines[2] == f"  cpu: 0 to 9 of 4 cores, {cpu.memory_gb} GB"
    assert lines[3] == f"  gpu: 1 to 3 of 4 cores, 1 GPU, {gpu.memory_gb} GB"

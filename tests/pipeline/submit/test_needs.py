"""What jobs ask for: the recipe's word, then the price, then defaults; enough time, memory and warning."""

from __future__ import annotations

from dataclasses import replace

import pytest

from manifests.recipe_files import load_recipe
from pipeline.errors import UserError
from pipeline.line import LINE
from pipeline.price.needs import StepNeed
from pipeline.submit.needs import job_needs, placed

GIB = 1 << 30
FETCH = StepNeed(
    step="download.fetch", kind="map", partitions=40, rows=4_000_000, requests=4_000_000, stored_bytes=10**11,
    files=160, cpu_s=4_000.0, gpu_s=0.0, task_s=1_800.0, cpus=1, memory_bytes=GIB, gpus=0.0, is_estimate=False,
)  # fmt: skip


def _needs(price: StepNeed, *overrides: str):
    return job_needs(load_recipe("rs5m", overrides), {price.step: price})[price.step]


def test_every_step_of_the_line_has_defaults():
    assert list(job_needs(load_recipe("rs5m"))) == [step.name for step in LINE]


def test_memory_is_that_of_all_workers_of_a_job_and_of_the_process_that_leads_them():
    need = _needs(FETCH)
    assert (need.cpus, need.workers) == (4, 4)
    assert need.memory_gb == 4 * 1.25 + 1


def test_there_are_no_more_tasks_than_partitions():
    assert _needs(FETCH, "cluster.array=64").tasks == 40
    assert _needs(FETCH, "cluster.array=10").tasks == 10
    assert _needs(replace(FETCH, partitions=0)).tasks == 1


def test_time_is_for_the_turns_that_a_slice_takes_and_some_more():
    assert _needs(FETCH, "cluster.array=2").hours == 5 * 0.5 * 1.5
    assert _needs(FETCH, "cluster.array=10").hours == 1
    assert _needs(FETCH, "cluster.array=1", 'cluster.job_cpus={"*"=1}').hours == 24


def test_a_job_is_told_early_enough_to_finish_a_partition_and_not_before_half_its_time():
    assert _needs(FETCH, "cluster.array=2").drain_s == 1.2 * 1800
    assert _needs(FETCH, "cluster.array=10").drain_s == 1800
    assert _needs(replace(FETCH, task_s=10.0)).drain_s == 120
    assert _needs(FETCH, 'cluster.job_hours={"*"=0.01}').drain_s == 18


def test_the_recipe_says_the_last_word_by_step_or_for_all_others():
    need = _needs(FETCH, 'cluster.job_cpus={"download.fetch"=3, "*"=9}', 'cluster.job_memory_gb={"*"=77}')
    assert (need.cpus, need.memory_gb) == (3, 77)


def test_a_job_with_a_gpu_has_one_worker():
    price = replace(FETCH, step="outlier.embed", gpus=1.0, gpu_s=100.0)
    need = _needs(price, 'cluster.gpu_partition="gpu"')
    assert (need.gpus, need.workers, need.memory_gb) == (1, 1, 16)
    assert _needs(price, 'cluster.gpu_partition="gpu"', "run.device=cpu").gpus == 0


def test_nobody_waits_longer_for_a_partition_than_it_may_take():
    assert _needs(replace(FETCH, task_s=90_000.0), "run.partition_deadline_s=3600").drain_s == 3660


def test_a_step_that_is_to_run_on_a_gpu_must_have_one():
    def device(*overrides: str) -> str:
        recipe = load_recipe("rs5m", overrides)
        return placed(recipe, job_needs(recipe)).run.device

    some = 'cluster.job_gpus={"outlier.embed"=1}'
    with pytest.raises(UserError, match=r"give caption\.generate a GPU: cluster\.job_gpus, or set run\.device=cpu"):
        device(some)
    assert device(some, "run.device=cpu") == "cpu"
    assert device('cluster.job_gpus={"outlier.embed"=1, "caption.generate"=2}') == "cuda"


@pytest.mark.parametrize("table", ["job_cpus", "job_memory_gb", "job_gpus", "job_hours"])
def test_what_is_said_of_no_step_is_refused(table):
    with pytest.raises(UserError, match=rf"cluster\.{table}: 'outlier\.embedd' is no step; .*outlier\.embed"):
        job_needs(load_recipe("rs5m", [f'cluster.{table}={{"outlier.embedd"=1, "*"=1}}']))

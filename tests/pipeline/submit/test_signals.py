"""A job's shell and the signals Slurm sends it: what it passes on, when it comes back, with which code it ends."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from manifests.recipe_files import load_recipe
from pipeline.submit.needs import job_needs
from pipeline.submit.order import Order
from pipeline.submit.slurm import render
from tests.world_building import wait_for

# Runs until it is told to stop, as `run` does: 143 then. Or it ends at once with the code that it is given.
RUN = """#!/usr/bin/env bash
trap 'echo told >> "$CALLS"; exit 143' USR1 TERM
echo "$@" >> "$CALLS"
[ -z "${ENDS:-}" ] || exit "$ENDS"
while :; do sleep 0.05; done
"""
SCONTROL = '#!/usr/bin/env bash\necho "scontrol $*" >> "$CALLS"\nexit 1\n'


class Jobs:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in (("rs5m-build", RUN), ("scontrol", SCONTROL)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        recipe = load_recipe("nano", ["cluster.requeues=3"])
        order = Order(recipe, "/w", str(folder), str(folder), (str(folder / "rs5m-build"),), job_needs(recipe))
        for file in render(replace(order, overrides=())):
            (folder / file.name).write_text(file.text)

    def start(self, file: str, **variables: str) -> subprocess.Popen[bytes]:
        path = f"{self.folder}:{os.environ['PATH']}"
        told = {"CALLS": str(self.folder / "calls"), "PATH": path}
        told |= {"SLURM_JOB_ID": "5", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "1"}
        return subprocess.Popen(["bash", str(self.folder / file)], env={**os.environ, **told, **variables})

    def calls(self) -> list[str]:
        calls = self.folder / "calls"
        return calls.read_text().splitlines() if calls.exists() else []


@pytest.fixture
def jobs(tmp_path) -> Jobs:
    return Jobs(tmp_path)


def test_warned_of_its_limit_it_has_the_run_finish_and_goes_back_into_the_queue(jobs):
    job = jobs.start("03-download.fetch.sbatch")
    wait_for(lambda: len(jobs.calls()) == 1)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(10) == 143
    assert jobs.calls()[0].endswith("--stage download.fetch --slice 1/2")
    assert jobs.calls()[1:] == ["told", "scontrol requeue 5_1"]


def test_it_does_not_come_back_for_ever(jobs):
    job = jobs.start("03-download.fetch.sbatch", SLURM_RESTART_COUNT="3")
    wait_for(lambda: len(jobs.calls()) == 1)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(10) == 143
    assert jobs.calls()[1:] == ["told"]


def test_cancelled_it_stops_and_stays_away(jobs):
    job = jobs.start("03-download.fetch.sbatch")
    wait_for(lambda: len(jobs.calls()) == 1)
    job.terminate()
    assert job.wait(10) == 143
    assert jobs.calls()[1:] == ["told"]


@pytest.mark.parametrize(("ends", "steps"), [("0", 2), ("3", 1), ("4", 1)])
def test_a_reduce_step_runs_where_the_step_before_it_is_settled(jobs, ends, steps):
    assert jobs.start("02-filter.pool.sbatch", ENDS=ends).wait(10) == int(ends)
    assert [call.split("--stage ")[1] for call in jobs.calls()] == ["filter.match", "filter.pool"][:steps]

"""`rs5m-build submit`: what it prints, what it writes, and whom it asks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from manifests.recipe_files import load_recipe, parse_recipe
from pipeline.cli import app


@pytest.fixture
def submit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str):
        return CliRunner().invoke(app, ["submit", "--recipe", "nano", "--to", "slurm", *arguments])

    return call


def _without_slurm(monkeypatch, folder: Path) -> None:
    monkeypatch.setenv("PATH", str(folder))


def test_a_dry_run_prints_every_file_whole_and_writes_nothing(submit, tmp_path):
    done = submit("--dry-run", "--array", "3", "--set", "dedup.radius=6")
    assert done.exit_code == 0
    assert f"==> {tmp_path}/jobs/nano/recipe.toml <==" in done.stdout
    assert "#SBATCH --array=0-2" in done.stdout
    assert "# --set dedup.radius=6 --set cluster.array=3 included" in done.stdout
    assert "download.fetch: 3 of 1 cores" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_slurm_the_files_are_written_and_it_says_what_to_run_where(submit, tmp_path, monkeypatch):
    _without_slurm(monkeypatch, tmp_path)
    done = submit("--workdir", "here", "--set", "dedup.radius=6")
    assert done.exit_code == 3
    assert f"sbatch is not here: run `bash {tmp_path}/jobs/nano/submit.sh` where it is" in done.stderr
    written = parse_recipe((tmp_path / "jobs/nano/recipe.toml").read_text(), "written")
    wanted = load_recipe("nano", ["dedup.radius=6", "run.device=cpu"])
    assert written == wanted
    assert f"--workdir {tmp_path}/here" in (tmp_path / "jobs/nano/01-filter.match.sbatch").read_text()
    assert os.access(tmp_path / "jobs/nano/submit.sh", os.X_OK)


def test_the_recipe_of_jobs_that_may_be_queued_is_not_changed(submit, tmp_path, monkeypatch):
    _without_slurm(monkeypatch, tmp_path)
    assert submit().exit_code == 3
    assert submit().exit_code == 3
    other = submit("--set", "dedup.radius=6")
    assert other.exit_code == 2
    assert "give --out another folder" in other.stderr
    assert submit("--set", "dedup.radius=6", "--out", "jobs/other").exit_code == 3


def test_it_runs_the_script_a_person_would_run(submit, tmp_path, monkeypatch):
    calls = tmp_path / "calls"
    tool = tmp_path / "bin" / "sbatch"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$@" >> {calls}\nwc -l < {calls}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    assert submit("--out", "jobs").exit_code == 0
    lines = calls.read_text().splitlines()
    assert lines[0] == "--parsable 01-filter.match.sbatch"
    assert lines[1] == "--parsable --dependency=afterany:1 02-filter.pool.sbatch"
    assert lines[2] == "--parsable --dependency=afterok:2 03-download.fetch.sbatch"
    assert len(lines) == 16


def test_a_scheduler_that_refuses_a_job_ends_it_there(submit, tmp_path, monkeypatch):
    tool = tmp_path / "bin" / "sbatch"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'Invalid account' >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    done = submit()
    assert done.exit_code == 2
    assert "ended with 1" in done.stderr


def test_a_store_that_only_the_cluster_reaches_is_not_priced(submit, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    access = ("--set", "store.endpoint=http://127.0.0.1:9", "--set", "store.patience_s=0", "--set", "store.attempts=0")
    done = submit("--workdir", "s3://bucket/work", *access, "--dry-run")
    assert done.exit_code == 0
    assert "not priced, and every step submitted with default needs" in done.stderr
    assert "--workdir s3://bucket/work" in done.stdout
    unnamed = submit("--workdir", "s3://bucket/work", *access, "--recipe", "rs5m")
    assert unnamed.exit_code == 2
    assert "no metadata is named" in unnamed.stderr.splitlines()[-1]


def test_an_unknown_cluster_is_named(submit):
    done = submit("--to", "pbs")
    assert done.exit_code == 2
    assert "slurm, ray, kuberay" in done.stderr


def test_jobs_that_could_not_start_are_not_handed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = ("--recipe", "rs5m", "--set", 'sources.cc3m.metadata=["cc3m.tsv"]')
    run = CliRunner().invoke(app, ["run", *recipe])
    done = CliRunner().invoke(app, ["submit", "--to", "slurm", "--workdir", "build/rs5m", *recipe])
    assert (done.exit_code, run.exit_code) == (2, 2)
    assert run.stderr.splitlines()[-1] in done.stderr
    assert not (tmp_path / "jobs").exists()
    tried = CliRunner().invoke(app, ["submit", "--to", "slurm", "--dry-run", *recipe])
    assert tried.exit_code == 0
    assert "warning: these jobs would not be handed over: sources." in tried.stderr
    assert "price of what is to do" in tried.stderr


def test_a_chain_that_ends_in_its_midst_says_what_is_queued(submit, tmp_path, monkeypatch):
    tool = tmp_path / "bin" / "sbatch"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\necho >> {tmp_path}/n\n[ $(wc -l < {tmp_path}/n) -lt 3 ] && wc -l < {tmp_path}/n\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    assert submit().exit_code == 2
    told = subprocess.run(["bash", "jobs/nano/submit.sh"], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (1, "")
    (tmp_path / "n").unlink()
    told = subprocess.run(["bash", "jobs/nano/submit.sh"], capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "queued: 1 2\n" in told.stderr
    assert "scancel 1 2\n" in told.stderr


def test_an_array_that_slurm_may_not_take_is_warned_of(submit):
    assert "MaxArraySize is above 1,000" in submit("--dry-run", "--array", "1001").stderr
    assert "MaxArraySize" not in submit("--dry-run", "--array", "1000").stderr


def test_a_folder_that_cannot_be_written_is_named_in_one_line(submit, tmp_path, monkeypatch):
    _without_slurm(monkeypatch, tmp_path)
    (tmp_path / "jobs").write_text("a file")
    done = submit()
    assert done.exit_code == 2
    assert f"--out {tmp_path}/jobs/nano cannot be written" in done.stderr.splitlines()[-1]


def test_it_says_what_each_kind_of_cluster_is_asked_for(submit):
    nodes = submit("--dry-run", "--set", "cluster.shape=ray", "--set", "cluster.nodes=3").stderr
    assert "one job of 3 nodes of 1 cores" in nodes
    assert "jobs:" not in nodes
    pods = submit("--dry-run", "--to", "ray").stderr
    assert "one job, its tasks as the Ray cluster at http://127.0.0.1:8265 has room" in pods
    assert "jobs:" not in pods

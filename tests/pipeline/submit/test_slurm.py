"""Slurm's job files: what is handed over is what was reviewed; and bash and shellcheck have nothing to say."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from manifests.recipe_files import load_recipe
from pipeline.errors import UserError
from pipeline.submit.needs import job_needs, placed
from pipeline.submit.order import JobFile, Order
from pipeline.submit.slurm import render

GOLDEN = Path(__file__).with_name("golden")
SETTINGS = (
    'cluster.partition="cpu"',
    'cluster.gpu_partition="gpu"',
    'cluster.account="rs-lab"',
    'cluster.qos="long"',
    'cluster.constraint="a100|h100"',
    'cluster.modules=["gcc/12", "cuda/12.4"]',
    'cluster.container="/shared/images/rs5m build.sif"',
    'cluster.scratch="/scratch/$USER"',
    "cluster.array=64",
    "cluster.array_limit=8",
    'cluster.job_cpus={"download.fetch"=2}',
    'cluster.job_hours={"download.fetch"=47.5}',
    'cluster.extra=["--mail-type=FAIL", "--mail-user=me@example.org"]',
    'cluster.setup=["export RS5M_CACHE=/shared/cache"]',
    'sources.cc3m.metadata=["/data/cc3m/*.tsv"]',
)


def _order(*overrides: str, recipe: str = "rs5m", directory: str = "/home/me/builds") -> Order:
    settings = load_recipe(recipe, overrides)
    needs = job_needs(settings)
    return Order(
        recipe=placed(settings, needs),
        workdir="/lustre/rs5m",
        folder=f"{directory}/jobs/{recipe}",
        directory=directory,
        program=("rs5m-build",) if settings.cluster.container else ("/opt/env/bin/rs5m-build",),
        needs=needs,
        overrides=overrides[:2],
    )


def _files(order: Order) -> dict[str, JobFile]:
    return {file.name: file for file in render(order)}


@pytest.mark.parametrize(
    ("case", "overrides", "names"),
    [
        ("plain", (), ("01-filter.match.sbatch", "02-filter.pool.sbatch", "submit.sh")),
        (
            "settings",
            SETTINGS,
            ("03-download.fetch.sbatch", "04-download.fetch.settle.sbatch", "08-outlier.cut.sbatch"),
        ),
        ("ray", ('cluster.shape="ray"', "cluster.nodes=4"), ("line.sbatch", "submit.sh")),
        ("ray_settings", ('cluster.shape="ray"', *SETTINGS), ("line.sbatch",)),
    ],
)
def test_the_files_are_those_that_were_read_and_approved(case, overrides, names):
    """RS5M_WRITE_GOLDEN=1 writes them anew: read the difference before it is committed."""
    files = _files(_order(*overrides))
    for name in names:
        golden = GOLDEN / f"{case}.{name}.txt"
        if os.environ.get("RS5M_WRITE_GOLDEN"):
            golden.write_text(files[name].text, "utf-8")
        assert files[name].text == golden.read_text("utf-8")


@pytest.mark.parametrize("directory", ["/home/me/builds", "/home/me/two words/100%/it's; $HOME `x`"])
@pytest.mark.parametrize("overrides", [(), SETTINGS, ('cluster.shape="ray"',), ('cluster.shape="ray"', *SETTINGS)])
def test_bash_and_shellcheck_find_nothing_in_them(tmp_path, directory, overrides):
    for file in render(_order(*overrides, directory=directory)):
        (tmp_path / file.name).write_text(file.text, "utf-8")
    paths = sorted(str(path) for path in tmp_path.iterdir())
    for path in paths:
        checked = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    command = ["shellcheck", "--shell=bash", "--exclude=SC2016", *paths]  # SC2016: a $ in single quotes, which is data
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.stdout == ""


def test_every_step_is_run_whole_once_and_every_map_step_in_slices():
    files = _files(_order("cluster.array=5"))
    whole = [line.split()[2] for f in files.values() for line in f.text.splitlines() if line.startswith("work --stage")]
    slices = [f.text for f in files.values() if '--slice "$SLURM_ARRAY_TASK_ID/5"' in f.text]
    assert list(dict.fromkeys(whole)) == list(job_needs(load_recipe("rs5m")))
    assert len(slices) == 8
    assert all("#SBATCH --array=0-4 " in text for text in slices)


def test_jobs_on_a_gpu_go_to_its_partition_and_all_jobs_know_the_device():
    order = _order('cluster.partition="cpu"', 'cluster.gpu_partition="gpu"')
    on_gpu = {name for name, file in _files(order).items() if "--gres=gpu:1" in file.text}
    assert {name.split("-")[1] for name in on_gpu} == {
        "outlier.embed.sbatch", "outlier.cut.sbatch", "caption.generate.sbatch", "caption.generate.settle.sbatch",
    }  # fmt: skip
    assert all(("--partition=gpu" in f.text) == (name in on_gpu) for name, f in _files(order).items())
    assert order.recipe.run.device == "cuda"
    assert _order().recipe.run.device == "cpu"
    assert _order("run.device=cuda").needs["outlier.embed"].gpus == 1


def test_data_of_the_user_cannot_become_commands():
    order = _order('cluster.modules=["a; rm -rf /"]', directory="/home/$(id)/x")
    text = _files(order)["01-filter.match.sbatch"].text
    assert "module load 'a; rm -rf /'" in text
    assert "--recipe '/home/$(id)/x/jobs/rs5m/recipe.toml'" in text


@pytest.mark.parametrize("key", ["cluster.scratch"])
@pytest.mark.parametrize("value", ["/scratch/$(id)", "/scratch/`id`", '/a"; id; "', "/a b"])
def test_a_folder_that_may_name_variables_holds_nothing_else(key, value):
    with pytest.raises(UserError, match="variables as"):
        render(_order(f"{key}='{value}'"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ('cluster.setup=["a\\nb"]', "one line"),
        ('cluster.account="a\\nb"', "one line"),
        ("cluster.extra=['mail']", "is no option"),
        ("cluster.account='a\"b'", "a quote"),
    ],
)
def test_what_cannot_stand_in_a_job_file_is_refused(override, words):
    with pytest.raises(Exception, match=words):
        render(_order(override))

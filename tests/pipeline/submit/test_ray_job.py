"""The script that hands a build to a Ray cluster: as reviewed, and every word arrives as it was meant."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from manifests.recipe_files import load_recipe
from pipeline.errors import UserError
from pipeline.submit.needs import job_needs, placed
from pipeline.submit.order import Order
from pipeline.submit.ray_job import SCRIPT, hand_over, render

GOLDEN = Path(__file__).with_name("golden")
NASTY = 's3://bucket/it\'s; $HOME `id` "x" & two  words'


def _order(*overrides: str, workdir: str = "s3://bucket/rs5m", folder: str = "/home/me/jobs/rs5m") -> Order:
    settings = load_recipe("rs5m", overrides)
    needs = job_needs(settings)
    return Order(placed(settings, needs), workdir, folder, "/home/me", ("rs5m-build",), needs, overrides)


def _text(order: Order) -> str:
    (file,) = render(order)
    assert (file.name, file.mode) == (SCRIPT, 0o755)
    return file.text


def test_the_script_is_the_one_that_was_read_and_approved() -> None:
    """RS5M_WRITE_GOLDEN=1 writes it anew: read the difference before it is committed."""
    text = _text(_order('cluster.ray_dashboard="https://ray.example.org"', "cluster.drain_s=600"))
    golden = GOLDEN / "ray_job.sh.txt"
    if os.environ.get("RS5M_WRITE_GOLDEN"):
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")


def test_shellcheck_has_nothing_to_say(tmp_path: Path) -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    for workdir in ("s3://bucket/rs5m", NASTY):
        (tmp_path / SCRIPT).write_text(_text(_order(workdir=workdir)))
        linted = subprocess.run(
            ["shellcheck", "--severity=warning", tmp_path / SCRIPT], capture_output=True, text=True, check=False
        )
        assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("workdir", ["s3://bucket/rs5m", NASTY])
def test_every_word_arrives_at_ray_and_behind_it_at_the_run(tmp_path: Path, workdir: str) -> None:
    """Ray joins the words behind `--` into one line by shlex.join, which a shell of the head splits again."""
    (tmp_path / "ray").write_text('#!/bin/sh\nprintf "%s\\0" "$@"\nls "$7" >sent\n')
    (tmp_path / "ray").chmod(0o755)
    (tmp_path / "recipe.toml").write_text("")
    (tmp_path / SCRIPT).write_text(_text(_order('cluster.ray_dashboard="http://[::1]:8265"', workdir=workdir)))
    told = subprocess.run(
        ["bash", SCRIPT], cwd=tmp_path, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    words = told.stdout.split("\0")[:-1]
    split = words.index("--")
    job, run = words[:split], words[split + 1 :]
    assert job[:4] == ["job", "submit", "--address", "http://[::1]:8265"]
    assert job[4:6] == ["--no-wait", "--working-dir"]
    assert (tmp_path / "sent").read_text() == "recipe.toml\n", "nothing else goes along"
    assert not Path(job[6]).exists(), "and its copy here does not stay"
    environment = json.loads(job[job.index("--runtime-env-json") + 1])
    assert set(environment) == {"env_vars"}
    assert environment["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "120"
    assert run == [
        "rs5m-build", "run", "--recipe", "recipe.toml", "--workdir", workdir,
        "--executor", "ray", "--ray-address", "auto",
    ]  # fmt: skip


def test_a_line_break_cannot_get_into_a_script() -> None:
    with pytest.raises(UserError, match="line break"):
        render(_order(workdir="s3://bucket/a\nrm -rf x"))


def test_it_is_handed_over_by_ray() -> None:
    hand = hand_over(_order(folder="/home/me/two words"))
    assert (hand.tool, hand.command) == ("ray", ("bash", SCRIPT))
    assert "'/home/me/two words/ray_job.sh'" in hand.otherwise

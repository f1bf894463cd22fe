"""The command line: its commands, what goes to which stream, and how it finds recipe and workdir."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from tests.pipeline.read_commands import files_of_rows
from tests.world_building import QUICK


@pytest.fixture
def command():
    def call(*arguments: str):
        return CliRunner().invoke(app, list(arguments))

    return call


def _run(*arguments: str) -> list[str]:
    settings = [part for override in QUICK for part in ("--set", override)]
    return ["run", "--recipe", "nano", *settings, *arguments]


def test_help_names_every_command(command):
    done = command("--help")
    assert done.exit_code == 0
    assert all(f"\n  {name} " in done.stdout for name in ("run", "status", "report", "explain", "verify", "gc"))
    assert all(stage in done.stdout for stage in ("filter", "download", "dedup", "shard"))


@pytest.mark.parametrize(
    "arguments", [(), ("build",), ("run", "--bogus"), ("run", "--workers", "-1"), ("explain",), ("run", "extra")]
)
def test_usage_errors_are_exit_code_2(command, arguments):
    assert command(*arguments).exit_code == 2


def test_a_run_says_nothing_on_stdout_and_readers_say_json_alone_there(command, fresh):
    here = ("--workdir", str(fresh.path))
    ran = command(*_run(*here, "--until", "filter"))
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert "filter.pool: 1/1 partitions" in ran.stderr
    assert f"done: {files_of_rows(fresh) + 1} partitions committed in" in ran.stderr
    assert "staged: " in ran.stderr
    again = command(*_run(*here, "--until", "filter"))
    assert (again.exit_code, again.stdout) == (0, "")
    assert "nothing to do" in again.stderr
    status = command("status", *here, "--json")
    assert status.exit_code == 0
    steps = {step["step"]: step for step in json.loads(status.stdout)["steps"]}
    assert (steps["filter.match"]["done"], steps["filter.pool"]["done"]) == (files_of_rows(fresh), 1)
    assert steps["download.fetch"]["todo"] == 6


def test_the_readers_take_the_newest_runs_recipe_and_further_settings(command, fresh):
    here = ("--workdir", str(fresh.path))
    command(*_run(*here, "--until", "filter", "--set", "filter.max_text_bytes=45"))
    told = json.loads(command("status", *here, "--json").stdout)["steps"]
    assert told[0]["done"] == files_of_rows(fresh)
    other = json.loads(command("status", *here, "--json", "--set", "filter.max_text_bytes=99").stdout)["steps"]
    assert other[0]["why"] == [
        {"part": "recipe", "key": "filter.max_text_bytes", "was": 45, "now": 99, "partitions": files_of_rows(fresh)}
    ]


def test_a_plan_creates_nothing(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(*_run("--plan"))
    assert done.exit_code == 0
    assert "the nano world would be built first" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_json_without_a_plan_builds_nothing(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(*_run("--json"))
    assert (done.exit_code, done.stdout) == (2, "")
    assert "give --plan with it" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["s3://", "s3:///folder", "gs://"])
def test_an_object_store_without_a_bucket_is_refused_before_it_is_asked(command, uri):
    done = command("status", "--workdir", uri)
    assert done.exit_code == 2
    assert "names no bucket" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_workdir_is_below_build_under_the_recipes_name(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(*_run("--stage", "filter.match")).exit_code == 0
    assert (tmp_path / "build/nano/workdir.json").is_file()
    assert command("status", "--recipe", "nano").exit_code == 0


def test_a_slurm_array_task_takes_its_slice(command, fresh, monkeypatch):
    for name, value in {"COUNT": "4", "ID": "12", "MIN": "10"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    done = command(*_run("--workdir", str(fresh.path), "--stage", "filter"))
    assert done.exit_code == 0
    assert len(list((fresh.path / "commits/filter.match").iterdir())) == len(range(2, files_of_rows(fresh), 4))
    assert "filter.pool not run: waits for --slice runs map steps only" in done.stderr
    ours = command(*_run("--workdir", str(fresh.path), "--stage", "filter.match", "--slice", "2/4"))
    assert "nothing to do" in ours.stderr, "an option goes before the environment"


def test_one_source_is_limited_to_its_files(command, fresh):
    done = command(*_run("--workdir", str(fresh.path), "--stage", "filter", "--source", "laioncoco"))
    assert done.exit_code == 0
    names = {path.name.split("-")[0] for path in (fresh.path / "commits/filter.match").iterdir()}
    assert names == {"laioncoco"}


def test_a_partition_that_fails_is_named_and_the_exit_code_is_3(command, fresh):
    table = next(fresh.path.glob("world/metadata/coyo700m/*.parquet"))
    body = bytearray(table.read_bytes())
    body[4:400] = bytes(396)  # the footer is whole, the rows are not
    table.unlink()
    table.write_bytes(body)
    done = command(*_run("--workdir", str(fresh.path), "--stage", "filter", "--set", "run.retries=0"))
    assert (done.exit_code, done.stdout) == (3, "")
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("FAILED filter.match/coyo700m-")]
    assert [line for line in lines if line.startswith("filter.pool not run: waits for filter.match/coyo700m-")]
    assert not [line for line in lines if line.startswith("done")]
    status = command("status", "--workdir", str(fresh.path), "--json")
    assert json.loads(status.stdout)["steps"][0]["todo"] == 1


def test_the_console_script_and_the_module_are_the_same(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pipeline.cli", "status", "--workdir", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("rs5m-build: ")

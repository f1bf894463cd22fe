"""The wheel holds the three packages with the files they read, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    pytest.importorskip("hatchling")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pipeline", "stages", "manifests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copyfile(ROOT / name, source / name)
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_every_file_a_package_reads_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in ("pipeline", "stages", "manifests")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == wanted
    assert {"manifests/reasons.toml", "manifests/recipes/rs5m.toml", "stages/py.typed"} <= held


def test_it_has_its_command_its_licence_and_is_never_uploaded(wheel: zipfile.ZipFile) -> None:
    info = {name.rsplit("/", 1)[-1]: wheel.read(name).decode() for name in wheel.namelist() if ".dist-info/" in name}
    assert "rs5m-build = pipeline.cli:main" in info["entry_points.txt"]
    assert "Classifier: Private :: Do Not Upload" in info["METADATA"]
    assert "Apache License" in info["LICENSE"]
    assert "NOTICE" in info


def test_every_dependency_has_a_tried_pin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pins = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    wanted = [
        *project["dependencies"],
        *project["optional-dependencies"]["test"],
        *project["optional-dependencies"]["s3"],
    ]
    names = {w.split(">")[0].split("=")[0].split("[")[0].strip().lower() for w in wanted} - {"rs5m-build"}
    assert names <= pins

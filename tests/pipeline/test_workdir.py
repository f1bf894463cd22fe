"""The one file that says which recipe a workdir belongs to."""

import json

import fsspec
import pytest

from manifests.store import Store
from pipeline.workdir import WorkdirError, open_workdir, read_workdir


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    if request.param == "file":
        yield Store(str(tmp_path / "work"))
        return
    yield Store("memory://rs5m-workdir")
    fs = fsspec.filesystem("memory")
    if fs.exists("/rs5m-workdir"):
        fs.rm("/rs5m-workdir", recursive=True)


def test_a_new_one_is_created_once_and_opened_again(store):
    open_workdir(store, "mini", create=True)
    assert json.loads(store.read("workdir.json")) == {"format": 1, "recipe": "mini"}
    open_workdir(store, "mini", create=True)
    open_workdir(store, "mini", create=False)


def test_a_command_that_reads_creates_none(store):
    assert read_workdir(store) is None
    with pytest.raises(WorkdirError, match=r"is no workdir: there is no workdir\.json; run `rs5m-build run` first"):
        open_workdir(store, "mini", create=False)
    assert store.find("") == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"format": 1, "recipe": "nano"}', "belongs to recipe 'nano', not 'mini'; use another --workdir"),
        (b'{"format": 2, "recipe": "mini"}', "has format 2, this version writes format 1; use another --workdir"),
        (b"{}", "has format None"),
        (b'{"format": 1', "workdir.json is not readable"),
        (b"3", "workdir.json is not readable"),
        (b"\xff\xfe", "workdir.json is not readable"),
    ],
)
def test_another_recipe_or_format_is_refused(store, content, says):
    store.replace("workdir.json", content)
    with pytest.raises(WorkdirError, match=says):
        open_workdir(store, "mini", create=True)
    assert store.read("workdir.json") == content


def test_whoever_creates_it_first_decides(tmp_path):
    class Late(Store):
        """Another run makes the file between the look and the write."""

        def create(self, path, data):
            Store(self.uri).create(path, data.replace(b"mini", b"nano"))
            super().create(path, data)

    with pytest.raises(WorkdirError, match="belongs to recipe 'nano'"):
        open_workdir(Late(str(tmp_path / "work")), "mini", create=True)


def test_a_place_that_cannot_be_one(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="use another --workdir"):
        open_workdir(Store(str(tmp_path / "file")), "mini", create=True)

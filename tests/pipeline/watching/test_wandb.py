"""Graphs in Weights & Biases, by its own client offline: one graph a workdir, and no run is ever hurt by it."""

import sys

import pytest

from manifests.store import Store
from pipeline.errors import UserError
from pipeline.watching.snapshot import Snapshots
from pipeline.watching.tally import Tally
from pipeline.watching.wandb_log import WandbLog, numbers, require_wandb, run_id
from tests.pipeline.watching.test_tally import begun, of, rows
from tests.world_building import wait_for


def _now():
    tally = Tally()
    for event in (begun(3), of("started", "a"), of("done", "a", rows=rows(5, 4, dropped=1), seconds=1.0, bytes=9)):
        tally.take(event)
    tally.take({"event": "run_finished", "exit_code": 0})
    return Snapshots(tally, "run", 5.0).take(None)


def test_numbers_are_those_of_the_document():
    found = numbers(_now())
    assert {name: found[f"a.b/{name}"] for name in ("rows_in", "rows_kept", "rows_dropped", "partitions_todo")} == {
        "rows_in": 5, "rows_kept": 4, "rows_dropped": 1, "partitions_todo": 2,
    }  # fmt: skip
    assert all(isinstance(value, int | float) for value in found.values())


def test_a_resumed_workdir_goes_on_with_its_graph_and_a_slice_has_its_own():
    assert run_id("s3://b/w", "rs5m", "run") == run_id("s3://b/w", "rs5m", "run")
    assert len({run_id("s3://b/w", "rs5m", "run"), run_id("s3://b/v", "rs5m", "run"), run_id("a", "a", "0of2")}) == 3


def test_offline_the_real_client_writes_below_the_runs_folder(tmp_path, fresh, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    store, recipe = Store(str(tmp_path)), fresh.recipe('run.wandb="rs5m"')
    for folder in ("runs/one", "runs/two"):
        log = WandbLog(recipe, store, folder, "run")
        log.put(_now())
        log.close()
    id_ = run_id(store.uri, "nano", "run")
    files = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.wandb"))
    assert [file.split("/")[1] for file in files] == ["one", "two"]
    assert all(file.endswith(f"run-{id_}.wandb") for file in files)
    for file in files:  # its records are cut into blocks, so that a name may be cut in two
        wanted = [name.encode() for name in numbers(_now())]

        def known(file: str = file, wanted: list[bytes] = wanted) -> int:
            written = (tmp_path / file).read_bytes()
            return sum(name in written for name in wanted)

        # Offline, `finish` returns while the client's own process still writes.
        wait_for(lambda known=known, wanted=wanted: known() >= len(wanted) - 2, 30)


def test_nobody_is_asked_for_a_key(tmp_path, fresh, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(UserError, match="WANDB_MODE=offline"):
        WandbLog(fresh.recipe('run.wandb="rs5m"'), Store(str(tmp_path)), "runs/x", "run")


def test_without_the_package_a_run_says_how_to_install_it_before_it_begins(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'rs5m-build\[wandb\]'"):
        require_wandb()
    with pytest.raises(UserError, match=r"run\.wandb"):
        fresh.run('run.wandb="rs5m"')

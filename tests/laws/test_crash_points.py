"""Stop a build dead at any write, resume it, and the release and the ledgers are the bytes of an undisturbed build."""

import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from manifests.store import TEMPORARY_PREFIX, Store
from pipeline.line import LINE
from tests.world_building import Snapshot, Workdir

_BOOKKEEPING = ("locks/", "runs/", "cache/")
_STAGES = list(dict.fromkeys(step.name.split(".")[0] for step in LINE))
_FEWER_TARS = "shard.tars_per_split=1"
_FAST_BEATS = "run.lock_beat_s=0.02"


class SimulatedCrash(BaseException):
    """Nothing catches it but a finally; and the store it came from never writes again."""


class CrashingStore(Store):
    """Writes until its ``crash_at``-th write, then leaves half a temporary file and is dead.

    Attributes:
        calls: (method, path) of every write so far; those of locks, run folders and caches are not counted.
    """

    def __init__(self, path: Path, crash_at: int | None = None, *, after: bool = False) -> None:
        super().__init__(str(path))
        self.calls: list[tuple[str, str]] = []
        self._crash_at = crash_at
        self._after = after
        self._dead = False

    def create(self, path, data):
        self._write("create", path, lambda: super(CrashingStore, self).create(path, data))

    def replace(self, path, data):
        self._write("replace", path, lambda: super(CrashingStore, self).replace(path, data))

    def put(self, local, path):
        self._write("put", path, lambda: super(CrashingStore, self).put(local, path))

    def move(self, local, path):
        self._write("move", path, lambda: super(CrashingStore, self).move(local, path))

    def remove(self, path):
        self._write("remove", path, lambda: super(CrashingStore, self).remove(path))

    def rename(self, path, new):
        self._write("rename", path, lambda: super(CrashingStore, self).rename(path, new))

    def _write(self, method, path, write):
        if self._dead:
            return
        counted = threading.current_thread() is threading.main_thread() and not path.startswith(_BOOKKEEPING)
        crash = counted and len(self.calls) == self._crash_at
        if counted:
            self.calls.append((method, path))
        if crash and not self._after:
            self._dead = True
            if method in ("create", "move", "put", "replace"):
                torn = self.local_path(path).parent / f"{TEMPORARY_PREFIX}torn"
                torn.parent.mkdir(parents=True, exist_ok=True)
                torn.write_bytes(b"half a fi")
            raise SimulatedCrash
        write()
        if crash:
            self._dead = True
            raise SimulatedCrash


def _kind(call: tuple[str, str]) -> tuple[str, str]:
    """Return what a write is for: method and folder, the step included; a release file by its suffix."""
    method, path = call
    parts = path.split("/")
    return method, f"release/*{Path(path).suffix}" if parts[0] == "release" else "/".join(parts[:2])


def _points(calls: list[tuple[str, str]], seed: str) -> Iterator[tuple[int, bool]]:
    """Draw one write of every kind to stop before; for commits and release files, one to stop after too."""
    draw = random.Random(seed)
    for kind in sorted({_kind(call) for call in calls}):
        spots = [i for i, call in enumerate(calls) if _kind(call) == kind]
        yield draw.choice(spots), False
        if kind[1].startswith(("commits/", "release/")):
            yield draw.choice(spots), True


def _prefix(built: Workdir, path: Path, stage: str) -> Workdir:
    """Copy a build as it was before ``stage``."""
    workdir = Workdir(built.copy(path).path, (*built.overrides, _FAST_BEATS))
    for step in (step.name for step in LINE if _STAGES.index(step.name.split(".")[0]) >= _STAGES.index(stage)):
        for folder in ("commits", "data", "ledger"):
            shutil.rmtree(path / folder / step, ignore_errors=True)
    shutil.rmtree(path / "release")
    return workdir


def _crash(workdir: Workdir, point: int, after: bool, *overrides: str, until: str = "") -> tuple[str, str]:
    store = CrashingStore(workdir.path, point, after=after)
    with pytest.raises(SimulatedCrash):
        workdir.run(*overrides, store=store, until=until)
    return store.calls[point]


def _up_to(whole: Snapshot, stage: str) -> Snapshot:
    """Return the part of a snapshot that a build up to ``stage`` has."""
    known = _STAGES[: _STAGES.index(stage) + 1]

    def mine(by_name):
        return {name: value for name, value in by_name.items() if name.split(".")[0] in known}

    release = whole.release if stage == _STAGES[-1] else {}
    return Snapshot(release, mine(whole.outputs), mine(whole.ledgers), mine(whole.books))


@pytest.mark.parametrize("stage", _STAGES)
def test_a_first_build_resumes_to_the_same_bytes(built, reference, tmp_path, stage):
    base = _prefix(built, tmp_path / "base", stage)
    recorded = CrashingStore(base.copy(tmp_path / "recorded").path)
    Workdir(tmp_path / "recorded").run(store=recorded, until=stage)
    wanted = _up_to(reference, stage)
    points = list(_points(recorded.calls, stage))
    steps = [step.name for step in LINE if step.name.startswith(stage)]
    assert {f"commits/{step}" for step in steps} <= {_kind(recorded.calls[point])[1] for point, _ in points}
    for point, after in points:
        workdir = base.copy(tmp_path / f"{point}-{after}")
        stopped_at = _crash(workdir, point, after, until=stage)
        assert stopped_at == recorded.calls[point]
        assert workdir.run(until=stage).exit_code == 0
        assert workdir.snapshot() == wanted, (stopped_at, after)


@pytest.fixture(scope="module")
def fewer_tars(built: Workdir, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """What an undisturbed first build with one tar a split comes to."""
    workdir = _prefix(built, tmp_path_factory.mktemp("fewer") / "work", "shard")
    assert workdir.run(_FEWER_TARS).exit_code == 0
    return workdir.snapshot(_FEWER_TARS)


@pytest.mark.parametrize("back", [False, True], ids=["same settings", "old settings"])
def test_a_release_that_is_being_replaced_resumes_to_the_same_bytes(built, reference, fewer_tars, tmp_path, back):
    recorded = CrashingStore(built.copy(tmp_path / "recorded").path)
    Workdir(tmp_path / "recorded").run(_FEWER_TARS, store=recorded)
    points = list(_points(recorded.calls, f"replaced {back}"))
    kinds = {_kind(recorded.calls[point]) for point, _ in points}
    assert {("remove", "commits/shard.index"), ("remove", "release/*.tar"), ("move", "release/*.tar")} <= kinds
    for point, after in points:
        workdir = Workdir(built.copy(tmp_path / f"{point}-{after}").path, (*built.overrides, _FAST_BEATS))
        stopped_at = _crash(workdir, point, after, _FEWER_TARS)
        settings = () if back else (_FEWER_TARS,)
        assert workdir.run(*settings).exit_code == 0
        assert workdir.snapshot(*settings) == (reference if back else fewer_tars), (stopped_at, after)


def test_a_build_that_is_stopped_again_and_again_gets_there(fresh, reference):
    # More writes than the one task needs that must make them all anew: shard.index replaces released files.
    writes_of_the_index, stops = 20, 0
    while True:
        store = CrashingStore(fresh.path, writes_of_the_index)
        with suppress(SimulatedCrash):
            fresh.run(_FAST_BEATS, store=store)
            break
        stops += 1
        assert stops < 40, store.calls
    assert stops > 5
    assert fresh.snapshot() == reference

"""One run at a time on a workdir; a lock is alive while it beats, and dead when it does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from manifests.store import Entry, Store, StoreError
from pipeline.locks import DEAD_BEATS, Lock, LockHeldError, overlap
from tests.world_building import Workdir, wait_for

BEAT_S = 0.05


def quiet(_: str) -> None:
    pass


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("run", "run", True),
        ("run", "download.fetch.0of4", True),
        ("download.fetch.0of4", "download.fetch.1of4", False),
        ("download.fetch.0of4", "download.fetch.0of4", True),
        ("download.fetch.0of4", "download.fetch.1of8", True),
        ("download.fetch.0of4", "dedup.inspect.0of4", False),
        ("world", "run", False),
        ("world", "world", True),
    ],
)
def test_which_scopes_exclude_each_other(one: str, other: str, clash: bool) -> None:
    assert overlap(one, other) == overlap(other, one) == clash


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with Lock(store, "run", BEAT_S, quiet):
        with pytest.raises(LockHeldError, match="in use by process"), Lock(store, "run", BEAT_S, quiet):
            pass
        with pytest.raises(LockHeldError), Lock(store, "filter.match.0of2", BEAT_S, quiet):
            pass
    assert store.find("locks") == []


def test_slices_of_one_cut_run_side_by_side(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with Lock(store, "filter.match.0of2", BEAT_S, quiet), Lock(store, "filter.match.1of2", BEAT_S, quiet):
        assert len(store.find("locks")) == 2


def test_a_lock_that_stopped_beating_is_taken_over(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.replace("locks/run.json", b'{"token":"x","beat":3,"beat_s":0.05,"pid":1,"host":"gone","scope":"run"}')
    said: list[str] = []
    start = time.monotonic()
    with Lock(store, "run", BEAT_S, said.append):
        assert time.monotonic() - start >= DEAD_BEATS * BEAT_S
    assert "process 1 on gone" in said[0]


def test_whoever_was_taken_for_dead_learns_it(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with Lock(store, "run", BEAT_S, quiet) as lock:
        store.replace("locks/run.json", b'{"token":"another"}')
        wait_for(lambda: lock.lost, timeout_s=5)
    assert store.size("locks/run.json") is not None


def test_a_second_run_on_a_workdir_stops_with_exit_2(fresh: Workdir) -> None:
    with Lock(Store(str(fresh.path)), "run", BEAT_S, quiet):
        done = fresh.cli()
    assert done.returncode == 2
    assert "this workdir is in use by process" in done.stderr


class Lagging(Store):
    """Its lists show nothing of what was written within ``lag_s``; reads are up to date."""

    def __init__(self, uri: str, lag_s: float) -> None:
        super().__init__(uri)
        self._lag_s = lag_s
        self._born: dict[str, float] = {}

    def scan(self, folder: str) -> Iterator[Entry]:
        for entry in super().scan(folder):
            if time.monotonic() - self._born.setdefault(entry.path, time.monotonic()) >= self._lag_s:
                yield entry


@pytest.mark.parametrize("first", ["run", "filter.match.0of2"])
def test_where_a_list_lags_one_of_two_gives_way_and_one_goes_on(tmp_path: Path, first: str) -> None:
    second = "filter.match.0of2" if first == "run" else "run"
    stores = [Lagging(str(tmp_path), 1.5 * BEAT_S) for _ in range(2)]
    with Lock(stores[0], first, BEAT_S, quiet) as one, Lock(stores[1], second, BEAT_S, quiet) as other:
        wait_for(lambda: one.lost or other.lost, timeout_s=10)
        time.sleep(4 * DEAD_BEATS * BEAT_S)
        assert one.lost != other.lost
        assert len(stores[0].find("locks")) == 1
    assert list((tmp_path / "locks").iterdir()) == []


def test_a_newcomer_whose_list_lags_gives_way_to_one_that_settled(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with Lock(store, "run", BEAT_S, quiet) as lock:
        wait_for(lambda: b'"settled"' in store.read("locks/run.json"), timeout_s=5)
        with Lock(Lagging(str(tmp_path), BEAT_S / 2), "filter.match.0of2", BEAT_S, quiet) as newcomer:
            wait_for(lambda: newcomer.lost, timeout_s=5)
        assert not lock.lost


def test_a_holder_that_cannot_beat_asks_before_it_is_believed(tmp_path: Path) -> None:
    class Away(Store):
        away = False

        def replace(self, path: str, data: bytes) -> None:
            if self.away:
                raise StoreError("the store does not answer")
            super().replace(path, data)

    store = Away(str(tmp_path))
    with Lock(store, "run", BEAT_S, quiet) as lock:
        store.away = True
        time.sleep(DEAD_BEATS * BEAT_S)
        with pytest.raises(StoreError):
            _ = lock.lost
        Store(str(tmp_path)).replace("locks/run.json", b'{"token":"another"}')
        store.away = False
        assert lock.lost

"""A worker has one thread for its work, whatever the machine has: there are as many workers as CPUs."""

import os

import polars as pl
import pyarrow as pa

from manifests.store import Store
from pipeline.executors.processes import Processes
from pipeline.executors.threads import ENVIRONMENT


def _threads() -> tuple[int, int]:
    return pl.thread_pool_size(), pa.cpu_count()


def test_a_spawned_worker_has_one_thread_and_the_driver_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("POLARS_MAX_THREADS", "5")
    before = (dict(os.environ), _threads())
    pool = Processes(Store(str(tmp_path)), 1, 60)
    try:
        assert pool._pool.schedule(_threads).result(timeout=60) == (1, 1)
        assert os.environ["POLARS_MAX_THREADS"] == "1"
    finally:
        pool.close(kill=True)
    assert (dict(os.environ), _threads()) == before
    assert set(ENVIRONMENT) >= {"POLARS_MAX_THREADS"}

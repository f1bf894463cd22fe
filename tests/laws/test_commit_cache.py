"""What planning decides never depends on the cache of what commits say, nor on a listing of files that lags behind."""

from __future__ import annotations

import shutil

import pytest

from manifests.commits import CommitStore
from manifests.store import Store
from pipeline.line import LINE
from pipeline.metadata import metadata_slices
from pipeline.planner import Planner


def planned(workdir, *overrides, store=None):
    """Return everything that a plan says."""
    store, recipe = store or Store(str(workdir.path)), workdir.recipe(*overrides)
    planner = Planner(recipe, store, CommitStore(store), metadata_slices(recipe, store))
    plans = [planner.plan(step) for step in LINE]
    partitions = [
        (p.name, p.state, p.number, p.fingerprint, p.parts, p.inputs, p.params, p.manifest, p.prior, p.why)
        for plan in plans
        for p in plan.partitions
    ]
    return partitions, [(plan.names, plan.waiting, plan.corrupt) for plan in plans]


def _none(cache):
    shutil.rmtree(cache)


def _damaged(cache):
    for file in cache.iterdir():
        data = file.read_bytes()
        file.unlink()
        file.write_bytes(data[:100] + b"?" + data[101:])


def _swapped(cache):
    first, *rest = sorted(cache.iterdir())
    for file in rest:
        shutil.copy(first, file)


def _as_it_is(cache):
    assert len(list(cache.iterdir())) == len(LINE)


@pytest.mark.parametrize("change", [_as_it_is, _none, _damaged, _swapped])
@pytest.mark.parametrize("override", ["dedup.radius=4", "dedup.max_pixels=5000"])
def test_a_plan_is_the_same_whatever_the_cache_holds(settled, monkeypatch, change, override):
    wanted = planned(settled, override)
    cache = settled.path / "cache/commits"
    assert not cache.exists()
    monkeypatch.setattr("manifests.commits._MUCH_BYTES", 1)
    planned(settled)
    change(cache)
    assert planned(settled, override) == wanted


def test_a_cache_of_a_time_before_does_not_make_done_what_is_not(settled, monkeypatch):
    monkeypatch.setattr("manifests.commits._MUCH_BYTES", 1)
    planned(settled)
    for step in ("download.fetch", "geo.locate"):
        next((settled.path / "commits" / step).iterdir()).unlink()
    found = planned(settled)
    shutil.rmtree(settled.path / "cache/commits")
    assert found == planned(settled)
    assert {"open", "todo"} & {state for _, state, *_ in found[0]}


class Lagging(Store):
    """Its listings lack the files that workers wrote."""

    def scan(self, folder):
        return (entry for entry in super().scan(folder) if not entry.path.startswith(("data/", "ledger/", "release/")))


def test_a_file_that_a_listing_lacks_is_asked_for_before_it_is_called_gone(built):
    assert planned(built, store=Lagging(str(built.path))) == planned(built)

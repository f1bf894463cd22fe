"""An archive that changed is read anew, refusals included; one that did not change is not opened again."""

from pathlib import Path

import pytest

from manifests.manifest import Manifest
from manifests.recipe import Recipe, Source
from manifests.recipe_run import Run
from manifests.store import Store
from pipeline.build import Options, build, planner_over
from pipeline.line import step_named
from tests.stages.archive_making import V1, jpeg, pack, v1_members


@pytest.fixture
def work(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def fetched(work: Path, source: str, uri: str) -> tuple[Manifest, bool]:
    """Build up to the download; return its commit, and whether there was anything to do."""
    run = Run(executor="local", workers=1, lock_beat_s=0.05)
    recipe = Recipe(name="test", sources={source: Source(metadata=[uri])}, run=run)
    ended = build(recipe, Store(str(work)), Options(until="download"), lambda _: None)
    assert ended.exit_code == 0
    planner, _ = planner_over(recipe, Store(str(work)))
    (manifest,) = planner.plan(step_named("download.fetch")).settled().values()
    return manifest, ended.had_work


def test_a_band_that_is_put_back_makes_the_patch_an_image(work):
    pack(work, "ben", "folder", v1_members())
    band = work / f"ben/BigEarthNet-v1.0/{V1}/{V1}_B04.tif"
    body = band.read_bytes()
    band.unlink()
    without, _ = fetched(work, "ben", "ben")
    assert dict(without.rows["ben"].dropped) == {"download.missing_band": 1}
    assert not fetched(work, "ben", "ben")[1]
    band.write_bytes(body)
    whole, had_work = fetched(work, "ben", "ben")
    assert had_work
    assert (whole.rows["ben"].kept, whole.facts["fetched_urls"]) == (1, 1)


def test_other_bytes_under_the_same_name_are_taken_and_equal_ones_keep_their_place(work):
    names = [f"test/P000000{n}.jpg" for n in (1, 2)]
    pack(work, "set", "tar", dict(zip(names, [jpeg(1), jpeg(2)], strict=True)))
    first, _ = fetched(work, "millionaid", "set.tar")
    pack(work, "set", "tar", dict(zip(names, [jpeg(1), jpeg(3)], strict=True)))
    second, had_work = fetched(work, "millionaid", "set.tar")
    assert had_work
    assert second.facts["fetched_urls"] == 2
    assert second.outputs != first.outputs
    (work / "set.tar").rename(work / "moved.tar")
    assert fetched(work, "millionaid", "moved.tar")[0].fingerprint == second.fingerprint

"""An archive that changed is read anew, refusals included; one that did not is not opened again."""

import shutil

import pytest

from manifests.recipe import Recipe
from manifests.recipe_files import load_recipe
from manifests.store import Store
from pipeline.build import Options, build, planner_over
from pipeline.line import step_named
from tests.stages.archive_making import V1, fmow_members, jpeg, pack, v1_members

BAND = f"ben/BigEarthNet-v1.0/{V1}/{V1}_B04.tif"


@pytest.fixture
def work(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def recipe(source: str, uri: str) -> Recipe:
    own = [f'sources={{{source} = {{metadata = ["{uri}"]}}}}', 'world.name=""']
    return load_recipe("rs5m", ["run.executor=local", "run.workers=1", f'sources.{source}.metadata=["{uri}"]', *own[:0]])


def fetched(work, source, uri, **options):
    """Build up to the download; return what is known of each url, and how many were read."""
    settings = recipe(source, uri)
    settings = settings.model_copy(update={"sources": {source: settings.sources[source]}})
    build(settings, Store(str(work)), Options(until="download", **options), lambda _: None)
    planner, commits = planner_over(settings, Store(str(work)))
    del commits
    (manifest,) = planner.plan(step_named("download.fetch")).settled().values()
    return manifest

"""What docs/cluster.md shows is tried: its recipes load, its commands exist, its jobs can be written."""

import re
from pathlib import Path

import pytest

from manifests.recipe_files import load_recipe
from manifests.store import Store
from pipeline.cli import app
from pipeline.submit.command import submit_build

PAGE = (Path(__file__).parents[2] / "docs/cluster.md").read_text("utf-8")
RECIPES = dict(
    zip(["server", "slurm", "k8s"], re.findall(r"```toml\n(\[recipe\].*?)```", PAGE, re.DOTALL), strict=True)
)


@pytest.fixture
def recipe(tmp_path, request):
    """Load a recipe of the page, its metadata replaced by a file that is there."""
    metadata = tmp_path / "rows.jsonl"
    metadata.write_text('{"u": "http://a.example/1", "t": "an aerial view"}\n')
    own = f'[sources.mine]\nformat = "jsonl"\nmetadata = ["{metadata}"]\ncolumns = {{ url = "u", text = "t" }}'
    text = re.sub(r"\[sources\.laion2b\]\nmetadata = .*", own, RECIPES[request.param])
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    shipped = load_recipe("rs5m").sources
    return load_recipe(str(file), [f"sources.{key}.enabled=false" for key in shipped])


@pytest.mark.parametrize("name", RECIPES)
def test_its_recipes_load_as_they_stand(name, tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPES[name])
    assert load_recipe(str(file)).sources["laion2b"].metadata


@pytest.mark.parametrize(
    ("recipe", "to", "workdir"),
    [("slurm", "slurm", "work"), ("k8s", "kuberay", "s3://nowhere/build")],
    indirect=["recipe"],
)
def test_its_jobs_can_be_written(recipe, to, workdir, tmp_path, monkeypatch, capsys):
    for key, value in (("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_MAX_ATTEMPTS", "1")):
        monkeypatch.setenv(key, value)
    elsewhere = {"endpoint_url": "http://127.0.0.1:9", "patience_s": 0}  # nobody there: jobs are written all the same
    store = Store(workdir, elsewhere) if to == "kuberay" else Store(str(tmp_path / workdir))
    assert submit_build(recipe, store, to, str(tmp_path / "jobs"), [], dry_run=True) == 0
    assert f"jobs/{'submit.sh' if to == 'slurm' else 'rayjob.yaml'} <==" in capsys.readouterr().out


def test_its_commands_exist():
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert set(re.findall(r"^rs5m-build ([\w-]+)", PAGE, re.MULTILINE)) <= known

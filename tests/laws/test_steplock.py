"""The step lock: code that moved without its version fails here, and says what to do."""

import re
import shutil
from pathlib import Path

import pytest

import manifests
from manifests.steplock import StepLockError, acknowledge, complaints, current_steps, locked_steps
from pipeline.line import LINE

ROOT = Path(manifests.__file__).parent.parent
ALL = {step.name for step in LINE}


@pytest.fixture
def copy(tmp_path):
    for package in ("manifests", "stages"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    acknowledge(list(current_steps(tmp_path)), tmp_path)
    assert complaints(tmp_path) == []
    return tmp_path


def _edit(path, old, new):
    text = path.read_text()
    assert text.count(old) >= 1
    path.write_text(text.replace(old, new, 1))


def test_the_lock_is_what_the_code_is():
    assert not complaints(), "\n".join(complaints())


def test_the_lock_knows_every_step_and_its_version():
    assert {step.name: step.VERSION for step in LINE} == {n: s.version for n, s in locked_steps().items()}


def test_comments_docstrings_and_layout_do_not_count(copy):
    file = copy / "stages/dedup/near.py"
    text = file.read_text()
    first = text.index('"""')
    file.write_text('"""Other words."""\n\n# a comment\n' + text[text.index('"""', first + 3) + 3 :] + "\n\n\n")
    _edit(copy / "stages/dedup/cluster.py", '"""Cluster all inspected rows."""', '"""Do it."""')
    assert complaints(copy) == []


@pytest.mark.parametrize(
    ("file", "old", "moved", "still"),
    [
        (
            "stages/dedup/second_proof.py",
            r"BRIGHTNESS_LEVELS = 1",
            {"dedup.cluster"},
            {"dedup.inspect", "filter.match"},
        ),
        ("stages/tars.py", r"tarfile\.BLOCKSIZE", {"dedup.inspect", "download.fetch", "shard.pack"}, {"filter.pool"}),
        ("manifests/identity.py", r"rs5m-draw-1", {"filter.pool", "shard.plan"}, {"dedup.inspect", "shard.pack"}),
        ("manifests/gazetteer.py", r"-place\.population", {"geo.locate"}, ALL - {"geo.locate"}),
        ("manifests/templates.py", r"== most", {"geo.locate"}, ALL - {"geo.locate"}),
        ("manifests/vocabulary.py", r"\) < 2", {"caption.generate"}, ALL - {"caption.generate"}),
        ("manifests/lexicon.py", r"\(entry\) > 1", {"filter.match"}, {"dedup.inspect", "geo.locate", "shard.pack"}),
        ("manifests/models.py", r'with_name\("models', {"outlier.embed", "caption.generate"}, {"geo.locate"}),
        ("manifests/sources.py", r"source_hash needs", {"filter.match"}, {"dedup.cluster", "outlier.cut"}),
        ("stages/step.py", r"rows: int = 0", set(), ALL),
        ("manifests/local_objects.py", r"8 << 20", set(), ALL),
        ("manifests/ledger.py", r"def count_by_source", set(), ALL),
        ("manifests/schemas.py", r"for spec in _ALL", set(), ALL),
    ],
)
def test_a_constant_moves_the_steps_that_use_it_and_no_other(copy, file, old, moved, still):
    text = (copy / file).read_text()
    changed, edits = re.subn(old, lambda found: f"{found[0]}9", text, count=1)
    assert edits == 1
    (copy / file).write_text(changed)
    named = {line.split(":")[0] for line in complaints(copy)}
    assert moved <= named
    assert not still & named
    for line in complaints(copy):
        assert "raise VERSION" in line
        assert "make ack-step NAME=" in line


def test_the_same_output_is_acknowledged_and_a_new_version_recorded(copy):
    file = copy / "stages/filter/pool.py"
    file.write_text(file.read_text() + "\n_ADDED = 1\n")
    assert "its code changed and VERSION 1 did not" in complaints(copy)[0]
    acknowledge(["filter.pool"], copy)
    assert complaints(copy) == []
    _edit(file, "VERSION = 1", "VERSION = 2")
    assert "was raised to 2" in complaints(copy)[0]
    acknowledge(["filter.pool"], copy)
    assert locked_steps(copy)["filter.pool"].version == 2
    _edit(file, "VERSION = 2", "VERSION = 1")
    assert "only rise" in complaints(copy)[0]


def test_a_new_step_a_gone_step_and_a_wrong_name(copy):
    _edit(copy / "stages/filter/pool.py", 'name = "filter.pool"', 'name = "filter.gather"')
    assert [line.split(";")[0] for line in complaints(copy)] == [
        "filter.gather: is not in the lock",
        "filter.pool: is in the lock and no longer in the code",
    ]
    acknowledge(["filter.gather", "filter.pool"], copy)
    assert complaints(copy) == []
    with pytest.raises(StepLockError, match=r"no step is called 'filter\.pool'; the steps are caption\.choose"):
        acknowledge(["filter.pool"], copy)

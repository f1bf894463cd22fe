"""The committed files of the mini model, on pictures they were not trained on."""

import json
import os
from pathlib import Path

import pytest

from manifests.models import FOLDER
from pipeline.remake_mini.corpus import read_corpus
from pipeline.remake_mini.scores import FLOORS, held_out_scores, world_scores
from pipeline.world.pictures import other_pictures, tile_pictures
from pipeline.world.wheels import fetch_wheels, wheel_cache
from stages.detector import load_detector
from stages.encoder import Placement, load_encoder

SAID = json.loads((FOLDER / "mini" / "scores.json").read_text())


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("mini", Placement(), "k")


def agree(found, floors):
    assert {name: found[name] >= FLOORS[name] for name in floors} == dict.fromkeys(floors, True)
    assert {name: value for name, value in found.items() if abs(value - SAID[name]) > 0.005} == {}


def test_floors_on_held_out_pictures(encoder):
    if not os.environ.get("RS5M_TEST_DATA"):
        pytest.skip("RS5M_TEST_DATA is not set: no held-out pictures here")
    items = read_corpus(Path(os.environ["RS5M_TEST_DATA"]))
    found = held_out_scores(items, encoder, load_detector("mini", "k"))
    assert found["overhead_pictures"] > 550
    agree(found, [name for name in FLOORS if not name.startswith("world")])


def test_floor_on_the_worlds_tiles_against_its_photographs(encoder):
    wheels = fetch_wheels(wheel_cache(), lambda _: None)
    pictures = [(p.kind, p.image.body) for p in (*tile_pictures(wheels), *other_pictures(wheels, lambda _: None))]
    agree(world_scores(pictures, encoder, load_detector("mini", "k")), ["world_detector_auc_photo"])

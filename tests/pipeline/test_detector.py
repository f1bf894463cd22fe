import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from pipeline.detector import FitOptions, fit_detector
from pipeline.errors import UserError
from stages.detector import load_detector
from stages.nano_encoder import FEATURES, NanoEncoder
from stages.step import ModelMissingError


def picture(seed, *, busy, kind="PNG"):
    """A noisy picture, or a smooth one: what the features of the nano encoder can tell apart."""
    draw = np.random.default_rng(seed)
    cells = draw.integers(0, 256, (24, 24, 3) if busy else (2, 2, 3)).astype(np.uint8)
    if not busy:
        cells //= 4
    out = io.BytesIO()
    Image.fromarray(cells).resize((32, 32), Image.Resampling.BICUBIC).save(out, kind)
    return out.getvalue()


@pytest.fixture
def folders(tmp_path):
    """Forty pictures of each kind, some of them deeper down."""
    for name, busy in (("overhead", True), ("other", False)):
        deep = tmp_path / name / "deep"
        deep.mkdir(parents=True)
        for number in range(40):
            folder = deep if number % 3 == 0 else deep.parent
            (folder / f"{number}.png").write_bytes(picture(number + 100 * busy, busy=busy))
    return tmp_path


def options(folders, **changed):
    given = {"positive": [str(folders / "overhead")], "negative": [str(folders / "other")], "encoder": "nano",
             "out": str(folders / "head.safetensors"), "device": "cpu"}  # fmt: skip
    return FitOptions(**given | changed)


def fit(folders, capsys, **changed):
    assert fit_detector(options(folders, **changed), as_json=True) == 0
    return json.loads(capsys.readouterr().out)


def test_a_detector_is_fitted_evaluated_and_written(folders, capsys):
    document = fit(folders, capsys)
    assert document["images"] == {"positive": {"train": 28, "val": 4, "test": 8},
                                  "negative": {"train": 28, "val": 4, "test": 8}}  # fmt: skip
    assert document["test"]["auc"] > 0.95
    assert document["test"]["images"] == {"positive": 8, "negative": 8}
    assert json.loads((folders / "head.json").read_text()) == document
    head = load_detector(str(folders / "head.safetensors"), "outlier.detector")
    assert head.weight.shape == (FEATURES,)
    assert (head.metadata["encoder"], head.metadata["seed"]) == ("nano", "2023")
    assert json.loads(head.metadata["images"]) == document["images"]
    found = dict(NanoEncoder().bodies([(busy, picture(999, busy=busy)) for busy in (True, False)]))
    assert head.probability(found[True].trunk[None])[0] > 0.5 > head.probability(found[False].trunk[None])[0]


def test_the_same_pictures_give_the_same_head_wherever_they_lie(folders, capsys):
    first, one = fit(folders, capsys), load_detector(str(folders / "head.safetensors"), "")
    (folders / "overhead").rename(folders / "moved")
    second = fit(folders, capsys, positive=[str(folders / "moved" / "deep"), str(folders / "moved")])
    other = load_detector(str(folders / "head.safetensors"), "")
    assert np.array_equal(one.weight, other.weight)
    assert (one.bias, one.metadata, first) == (other.bias, other.metadata, second)


def test_another_seed_is_another_split(folders, capsys):
    one, other = fit(folders, capsys), fit(folders, capsys, seed=1)
    assert one["validation_loss"] != other["validation_loss"]


def test_what_is_left_out_is_said(folders, capsys):
    (folders / "overhead" / "text.jpg").write_bytes(b"no picture")
    (folders / "overhead" / "copy.png").write_bytes((folders / "overhead" / "1.png").read_bytes())
    (folders / "overhead" / "notes.txt").write_text("not looked at")
    (folders / "overhead" / ".hidden.png").write_bytes(b"not looked at")
    assert fit_detector(options(folders), as_json=True) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert (document["unreadable"], document["copies"]) == (1, 1)
    assert sum(document["images"]["positive"].values()) == 40
    assert re.search(r"left out .*text\.jpg: ", printed.err)
    assert "encoded 81 of 81 images" in printed.err


def test_the_printed_tables(folders, capsys):
    assert fit_detector(options(folders), as_json=False) == 0
    out = capsys.readouterr().out
    assert re.search(r"^positive +28 +4 +8$", out, re.MULTILINE)
    assert re.search(r"^  AUC +(1\.0|0\.9)", out, re.MULTILINE)
    assert "false positive rate at 0.5" in out
    assert re.search(r"^0\.9 to 1\.0 +\d+ ", out, re.MULTILINE)


def test_too_few_pictures(folders):
    for file in sorted((folders / "other").rglob("*.png"))[8:]:
        file.write_bytes(b"no picture")
    with pytest.raises(UserError, match="--negative: 8 distinct images; a split of 7:1:2 needs at least 10 of each"):
        fit_detector(options(folders), as_json=True)
    assert not (folders / "head.safetensors").exists()


def test_one_picture_cannot_be_both(folders):
    (folders / "other" / "again.png").write_bytes((folders / "overhead" / "1.png").read_bytes())
    with pytest.raises(
        UserError, match=r"1\.png and .*again\.png hold the same bytes, once positive and once negative"
    ):
        fit_detector(options(folders), as_json=True)


@pytest.mark.parametrize(("changed", "message"), [
    ({"positive": ["/no/such/folder"]}, "--positive /no/such/folder: no such folder"),
    ({"out": "head.bin"}, r"--out head\.bin: name a file ending in \.safetensors"),
    ({"out": "/no/such/head.safetensors"}, "in a folder that exists"),
])  # fmt: skip
def test_what_cannot_be_asked(folders, changed, message):
    with pytest.raises(UserError, match=message):
        fit_detector(options(folders, **changed), as_json=True)


def test_a_folder_without_pictures(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"--negative .*empty: no file ends in \.jpg"):
        fit_detector(options(folders, negative=[str(tmp_path / "empty")]), as_json=True)


def test_an_encoder_that_is_not_there(folders):
    with pytest.raises(ModelMissingError, match="--encoder"):
        fit_detector(options(folders, encoder="nanno"), as_json=True)

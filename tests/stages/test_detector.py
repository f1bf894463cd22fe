import hashlib
import json
import struct
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from stages.detector import Detector, detector_digest, load_detector, save_detector
from stages.step import ModelMissingError


def head(path, **told):
    save_detector(path, told.pop("weight", [1.0, -2.0]), told.pop("bias", 0.5), {"encoder": "mini", **told})
    return path


def test_probability_is_the_sigmoid_of_the_weighted_sum():
    detector = Detector(np.array([1.0, -2.0]), 0.5, {})
    found = detector.probability(np.array([[0, 0], [3, 1], [1e6, 0], [-1e6, 0]], dtype=np.float32))
    assert found.dtype == np.float32
    assert found == pytest.approx([1 / (1 + np.exp(-0.5)), 1 / (1 + np.exp(-1.5)), 1, 0])
    assert detector.probability(np.empty((0, 2), dtype=np.float32)).shape == (0,)


def test_nan_stays_nan_and_touches_no_other_row():
    detector = Detector(np.array([1.0, -2.0]), 0.5, {})
    found = detector.probability(np.array([[np.nan, 0], [3, 1]], dtype=np.float32))
    assert np.isnan(found).tolist() == [True, False]


def test_what_is_saved_is_loaded(tmp_path):
    loaded = load_detector(str(head(tmp_path / "a.safetensors", positives="tiles")), "outlier.detector")
    assert loaded.weight.tolist() == [1.0, -2.0]
    assert loaded.bias == 0.5
    assert loaded.metadata == {"encoder": "mini", "features": "2", "positives": "tiles"}


def test_equal_heads_are_equal_bytes(tmp_path):
    told = dict.fromkeys("abcdefgh", "x")
    digests = {detector_digest(str(head(tmp_path / f"{n}.safetensors", **told))) for n in range(6)}
    assert len(digests) == 1
    assert digests == {hashlib.sha256((tmp_path / "0.safetensors").read_bytes()).hexdigest()}
    assert detector_digest(str(head(tmp_path / "other.safetensors", bias=0.6))) not in digests


def test_shipped_heads():
    assert len(load_detector("mini", "k").weight) == 1280
    assert load_detector("mini", "k").metadata["encoder"] == "mini"
    assert len(load_detector("nano", "k").weight) == 14
    assert len({detector_digest("mini"), detector_digest("nano")}) == 2


@pytest.mark.parametrize("call", [lambda name: load_detector(name, "outlier.detector"), detector_digest])
@pytest.mark.parametrize("name", ["", "minni", "/no/such/file.safetensors"])
def test_a_head_that_is_not_there_says_how_to_make_one(call, name):
    with pytest.raises(ModelMissingError, match=r"outlier\.detector.*rs5m-build detector fit"):
        call(name)


def test_files_that_are_no_heads(tmp_path):
    (tmp_path / "text").write_text("no safetensors")
    save_file({"weight": np.zeros((2, 2), np.float32), "bias": np.zeros(1, np.float32)}, tmp_path / "square")
    save_file({"weight": np.zeros(2, np.float32)}, tmp_path / "no bias")
    save_file({"weight": np.array([np.nan], np.float32), "bias": np.zeros(1, np.float32)}, tmp_path / "nan")
    for path in tmp_path.iterdir():
        with pytest.raises(ModelMissingError, match="k = "):
            load_detector(str(path), "k")


def test_features_of_another_encoder_are_refused(tmp_path):
    detector = load_detector(str(head(tmp_path / "a.safetensors")), "k")
    with pytest.raises(ModelMissingError, match=r"takes 2 features \(fitted on mini\), the encoder gives 3"):
        detector.probability(np.zeros((1, 3), dtype=np.float32))


@pytest.mark.parametrize(("told", "encoder", "digest", "said"), [
    ({}, "mini", "d1", ""),
    ({}, "nano", "d1", "fitted on 'mini': it cannot judge 'nano'"),
    ({"encoder": ""}, "nano", "d1", "an encoder that it does not name"),
    ({"encoder_digest": "d1"}, "mini", "d1", ""),
    ({"encoder_digest": "d1"}, "local-dir:/a copy", "d1", ""),
    ({"encoder_digest": "d1"}, "mini", "d2", "'mini' with the digest d1, and 'mini' here has the digest d2"),
    ({"encoder_digest": "d1"}, "hf-hub:yet/to-fetch", "", ""),
    ({}, "hf-hub:yet/to-fetch", "", "cannot judge"),
])  # fmt: skip
def test_the_encoder_must_be_the_one_it_was_fitted_on(tmp_path, told, encoder, digest, said):
    path = tmp_path / "a.safetensors"
    save_detector(path, [1.0], 0.0, {"encoder": "mini", **told})
    detector, refused = load_detector(str(path), "outlier.detector"), ""
    try:
        detector.require_encoder(encoder, digest, "outlier.detector")
    except ModelMissingError as error:
        refused = str(error)
        assert refused.startswith(f"outlier.detector = '{path}' ")
        assert refused.endswith(f"rs5m-build detector fit --positive DIR --negative DIR --encoder {encoder}")
        assert "\n" not in refused
    assert said in refused
    assert bool(said) == bool(refused)


def test_metadata_and_tensors_of_any_shape_are_refused_in_a_line(tmp_path):
    tensors = {"weight": np.ones(2, np.float32), "bias": np.zeros(1, np.float32)}
    for place, text in enumerate(("[1,2]", "3", "null", '"x"', "{", "[" * 100_000, '{"a":' * 100_000)):
        save_file(tensors, tmp_path / f"{place}", metadata={"detector": text})
    save_file({**tensors, "weight": np.ones(2, np.int64)}, tmp_path / "integers")
    save_file({**tensors, "bias": np.ones(1, np.bool_)}, tmp_path / "booleans")
    header = json.dumps({"weight": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
                         "bias": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}).encode()  # fmt: skip
    (tmp_path / "bf16").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    for path in tmp_path.iterdir():
        with pytest.raises(ModelMissingError, match=r"^k = .* is no detector head \(.+\); rs5m-build") as caught:
            load_detector(str(path), "k")
        assert "\n" not in str(caught.value)
    save_file(tensors, tmp_path / "plain")
    assert load_detector(str(tmp_path / "plain"), "k").metadata == {}


@pytest.mark.parametrize(("weight", "bias"), [([[1.0]], 0.0), ([np.inf], 0.0), ([1.0], np.nan)])
def test_a_head_without_sense_is_not_written(tmp_path, weight, bias):
    with pytest.raises(ValueError, match="finite"):
        save_detector(tmp_path / "a.safetensors", weight, bias, {"encoder": "mini"})
    assert list(tmp_path.iterdir()) == []


def test_no_torch_is_needed():
    code = (
        "import sys\nfrom stages.detector import *\nload_detector('mini', 'k'), detector_digest('mini')\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

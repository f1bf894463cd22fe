import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stages.encoder import Placement, load_encoder, model_digest, numeric_profile, resolve_device
from stages.step import ModelMissingError
from tests.stages.tiny_models import tiny_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny") / "vit")


def altered(tiny, folder, change):
    """A copy of a model's folder with other weights."""
    folder.mkdir()
    for path in tiny.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "open_clip_model.safetensors")
    change(weights)
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def test_a_model_is_loaded_once_a_process(tiny):
    name = f"local-dir:{tiny}"
    one, again = (load_encoder(name, Placement(batch=4), key) for key in ("outlier.encoder", "caption.rank"))
    other = load_encoder(name, Placement(batch=2), "outlier.encoder")
    assert one is again
    assert other is not one
    assert np.array_equal(other.texts(["a port"]), other.texts(["a port"]))


def test_a_folder_whose_files_changed_is_loaded_anew(tiny, tmp_path):
    folder = altered(tiny, tmp_path / "model", dict)
    first = load_encoder(f"local-dir:{folder}", Placement(batch=2), "k").texts(["a port"])
    weights = load_file(folder / "open_clip_model.safetensors")
    save_file({n: w * 2 if n == "text_projection" else w[::-1].copy() if w.ndim else w for n, w in weights.items()},
              folder / "open_clip_model.safetensors")  # fmt: skip
    second = load_encoder(f"local-dir:{folder}", Placement(batch=2), "k").texts(["a port"])
    assert not np.allclose(first, second)


def test_weights_of_another_shape_name_the_tensor_and_both_shapes(tiny, tmp_path):
    folder = altered(tiny, tmp_path / "m", lambda w: w.update({"visual.proj": np.zeros((32, 8), np.float32)}))
    said = r"outlier\.encoder.*visual\.proj has shape \[32, 8\], the model wants \[32, 16\]"
    with pytest.raises(ModelMissingError, match=said):
        load_encoder(f"local-dir:{folder}", Placement(), "outlier.encoder")


def test_missing_and_surplus_tensors_are_counted_and_named(tiny, tmp_path):
    lacking = altered(tiny, tmp_path / "a", lambda w: w.pop("visual.proj"))
    surplus = altered(tiny, tmp_path / "b", lambda w: w.update({"extra": np.zeros(1, np.float32)}))
    with pytest.raises(ModelMissingError, match=r'1 missing tensors, the first is "visual\.proj"'):
        load_encoder(f"local-dir:{lacking}", Placement(), "k")
    with pytest.raises(ModelMissingError, match='1 unexpected tensors, the first is "extra"'):
        load_encoder(f"local-dir:{surplus}", Placement(), "k")


def test_folders_that_hold_no_model(tiny, tmp_path):
    config = json.loads((tiny / "open_clip_config.json").read_text())
    for place, (text, weights, said) in enumerate((
        ("{", b"", "cannot be read"),
        ("[]", b"", "has no model_cfg"),
        ('{"model_cfg": {"embed_dim": 1}}', b"", "has no model_cfg with vision_cfg"),
        (json.dumps(config), None, "no weights"),
        (json.dumps(config), b"no safetensors", "cannot be loaded"),
        (json.dumps({"model_cfg": config["model_cfg"] | {"vision_cfg": {"odd": 1}}}), b"x", "cannot be loaded"),
    )):  # fmt: skip
        folder = tmp_path / str(place)
        folder.mkdir()
        (folder / "open_clip_config.json").write_text(text)
        if weights is not None:
            (folder / "open_clip_model.safetensors").write_bytes(weights)
        with pytest.raises(ModelMissingError, match=said) as caught:
            load_encoder(f"local-dir:{folder}", Placement(), "caption.rank")
        assert str(caught.value).startswith("caption.rank = 'local-dir:")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("minni", "did you mean mini"),
        ("local-dir:/no/such", "has no open_clip_config.json"),
        ("open_clip:ViT-B-3/openai", "open_clip has no model 'ViT-B-3'"),
        ("open_clip:ViT-B-32/none", "neither a file nor a tag of ViT-B-32 .tags: openai"),
        ("open_clip:ViT-B-32/openai", "write ViT-B-32-quickgelu/openai"),
        ("open_clip:ViT-B-32/no/such.pt", r"no/such\.pt"),
    ],
)
def test_names_that_cannot_be_loaded(name, said):
    with pytest.raises(ModelMissingError, match=said) as caught:
        load_encoder(name, Placement(), "outlier.encoder")
    assert "outlier.encoder" in str(caught.value)


def test_a_weights_file_of_another_model(tiny):
    weights = tiny / "open_clip_model.safetensors"
    with pytest.raises(ModelMissingError, match=r"safetensors cannot be loaded as ViT-S-32-alt: |do not fit: "):
        load_encoder(f"open_clip:ViT-S-32-alt/{weights}", Placement(batch=2), "k")


def test_a_digest_without_loading(tiny):
    assert model_digest(f"local-dir:{tiny}", "k") != model_digest("mini", "k")
    with pytest.raises(ModelMissingError, match=r"caption\.rank"):
        model_digest("minni", "caption.rank")


def test_a_device_that_is_not_there_or_not_known():
    with pytest.raises(ModelMissingError, match="use cpu or cuda"):
        load_encoder("nano", Placement(device="tpu"), "k")
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("cuda") == "cuda"
    assert resolve_device("auto") == ("cuda" if nvidia() else "cpu")


def nvidia():
    from importlib.metadata import version

    nodes = [path for path in Path("/dev").iterdir() if re.fullmatch(r"nvidia\d+.*", path.name)]
    return bool(nodes) and not version("torch").endswith("+cpu")


def test_no_gpu_is_said_in_one_line(tiny):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ModelMissingError, match=r"run\.device is cuda, but torch finds no GPU"):
        load_encoder(f"local-dir:{tiny}", Placement("cuda", "bf16"), "outlier.encoder")


def test_the_profile_holds_what_numbers_depend_on():
    profile = numeric_profile(Placement("cuda", "bf16", 32))
    assert {"torch", "open_clip_torch", "timm", "pillow", "numpy", "transformers", "tokenizers"} <= set(profile)
    assert {"jpg", "libtiff", "webp", "zlib"} <= set(profile)
    assert (profile["device"], profile["precision"], profile["batch"]) == ("cuda", "bf16", "32")
    assert all(value and value != "absent" for value in profile.values())


def test_on_a_cpu_every_precision_is_one_profile_and_one_model(tiny):
    asked = [Placement("cpu", precision, 8) for precision in ("fp32", "bf16", "fp16")]
    assert {numeric_profile(placement)["precision"] for placement in asked} == {"fp32"}
    assert len({id(load_encoder(f"local-dir:{tiny}", placement, "k")) for placement in asked}) == 1


def run_offline(tmp_path, code):
    env = {**os.environ, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)


def test_planning_imports_no_torch(tmp_path):
    code = (
        "import sys\nfrom stages.encoder import *\nmodel_digest('mini', 'k'); resolve_device('auto')\n"
        "numeric_profile(Placement())\n"
        "sys.exit(bool({'torch', 'open_clip', 'transformers', 'timm'} & set(sys.modules)))"
    )
    run_offline(tmp_path, code)


def test_hub_models_without_a_network(tiny, tmp_path):
    commit = "0123abcd" * 5
    cached = tmp_path / "hub" / "hub" / "models--some--model"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    altered(tiny, tmp_path / "copy", dict)
    (cached / "snapshots").mkdir()
    (tmp_path / "copy").rename(cached / "snapshots" / commit)
    code = f"""
from stages.encoder import *
from stages.step import ModelMissingError
for name in ("hf-hub:some/model", "hf-hub:some/model@{commit}"):
    print(load_encoder(name, Placement(batch=2), "k").dimensions)
for name in ("hf-hub:no/model@v1", "open_clip:ViT-B-32/laion2b_s34b_b79k"):
    try:
        load_encoder(name, Placement(), "outlier.encoder")
    except ModelMissingError as error:
        print(error)
"""
    done = run_offline(tmp_path, code)
    first, pinned, hub, tag = done.stdout.splitlines()
    assert (first, pinned) == ("16", "16")
    assert hub.startswith("outlier.encoder = 'hf-hub:no/model@v1': no/model is not in this machine's hub cache")
    assert "hf download no/model --revision v1" in hub
    assert tag.startswith("outlier.encoder = 'open_clip:ViT-B-32/laion2b_s34b_b79k': its weights are not in this")
    assert "hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K" in tag


def test_a_model_that_cannot_be_fetched_is_one_short_line_and_open_clip_says_nothing(tmp_path):
    code = """
import logging
from stages.encoder import *
from stages.step import ModelMissingError
try:
    load_encoder("clip-vit-h-14", Placement(), "outlier.encoder")
except ModelMissingError as error:
    print(error)
print(logging.getLogger().handlers, logging.getLogger().filters)
"""
    done = run_offline(tmp_path, code)
    line, left = done.stdout.splitlines()
    assert left == "[] []"
    assert done.stderr == ""
    head, _, told = line.partition("'clip-vit-h-14': ")
    assert head == "outlier.encoder = "
    assert "`hf download laion/CLIP-ViT-H-14-laion2B-s32B-b79K`" in told
    assert len(told.partition("; `")[0]) <= 200


def test_a_hub_copy_is_loaded_as_it_is_and_the_hub_not_asked(tiny, tmp_path, monkeypatch):
    from manifests.models import resolve
    from stages.open_clip_load import model_source

    def asked(*_, local_files_only=False, **__):
        assert local_files_only, "the hub was asked for what is at hand"
        return str(tiny)

    monkeypatch.setattr("huggingface_hub.snapshot_download", asked)
    assert model_source(resolve("hf-hub:some/model", "k")) == (f"local-dir:{tiny}", {})


def test_a_tag_at_hand_is_loaded_from_the_file_its_digest_is_of(tiny, tmp_path, monkeypatch):
    """The tag's own preprocessing comes along."""
    from open_clip.pretrained import get_pretrained_cfg

    from stages.open_clip_load import _from_cache

    commit = "a" * 40
    repository = str(get_pretrained_cfg("ViT-B-16-SigLIP2", "webli")["hf_hub"]).rstrip("/")
    home = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    altered(tiny, tmp_path / "copy", dict)
    (home / "snapshots").mkdir()
    (tmp_path / "copy").rename(home / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    told = _from_cache("ViT-B-16-SigLIP2", {"pretrained": "webli", "weights_only": True})
    assert told["pretrained"] == str(home / "snapshots" / commit / "open_clip_model.safetensors")
    assert (told["image_mean"], told["image_resize_mode"]) == ((0.5, 0.5, 0.5), "squash")
    uncached = {"pretrained": "laion2b_s34b_b79k", "weights_only": True}
    assert _from_cache("ViT-B-32", uncached) == uncached

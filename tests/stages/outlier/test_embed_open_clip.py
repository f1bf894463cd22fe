"""The outlier scores of a real open_clip model, tiny and untrained, against open_clip called by hand."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from manifests.store import Store
from stages import torchvision_shim
from stages.detector import save_detector
from stages.outlier.embed import Embed
from stages.prompts import prompts
from tests.stages.handing import Before, Handed, perform, rows_of, store_images

DIMENSIONS = 16
CONFIG = {
    "model_cfg": {
        "embed_dim": DIMENSIONS,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16, "head_width": 32},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}


def picture(seed, width=50, height=40):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


BODIES = {f"{n}": picture(n, 40 + n) for n in range(7)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder of an open_clip model with random weights, and a head for its features."""
    torchvision_shim.declare()
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("tiny")
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    torch.manual_seed(0)
    torch.set_num_threads(1)
    built = open_clip.CLIP(**CONFIG["model_cfg"])
    save_file({k: v.contiguous() for k, v in built.state_dict().items()}, folder / "open_clip_model.safetensors")
    save_detector(folder / "head.st", np.linspace(-2, 2, DIMENSIONS), 0.1, {"encoder": f"local-dir:{folder}"})
    return folder


@pytest.fixture
def tables(tmp_path):
    store = Store(str(tmp_path))
    bodies = {**BODIES, "bad": b"no picture", "again": BODIES["3"]}
    places = store_images(store, "images.tar", *bodies.values())
    fetched = [
        {"sample_id": key, "tar": p.tar, "offset": p.offset, "length": p.length, "sha256": p.sha256}
        for key, p in zip(bodies, places, strict=True)
    ]
    return Handed(store, {
        ("dedup.cluster", "survivors"): rows_of("survivors", *({"sample_id": k, "source": "cc3m"} for k in bodies)),
        ("download.fetch", "fetched"): rows_of("fetched", *fetched),
    })  # fmt: skip


def score(tables, model, batch, **more):
    chosen = {"outlier.encoder": f"local-dir:{model}", "outlier.detector": str(model / "head.st"),
              "run.device": "cpu", "outlier.batch": batch}  # fmt: skip
    return perform(Embed(), tables, chosen, **more)


def by_hand(model):
    """Return {key: (cosine to the prompts' mean, P)} by open_clip's own calls."""
    import open_clip
    import torch

    clip, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{model}")
    clip.eval()
    with torch.inference_mode():
        texts = clip.encode_text(open_clip.get_tokenizer(f"local-dir:{model}")(list(prompts("rs5m-33"))))
        mean = torch.nn.functional.normalize(torch.nn.functional.normalize(texts, dim=-1).mean(0), dim=0)
        features = {
            k: clip.encode_image(preprocess(Image.open(io.BytesIO(b)).convert("RGB"))[None])[0]
            for k, b in BODIES.items()
        }
    weight = np.linspace(-2, 2, DIMENSIONS)
    return {
        k: (float(torch.nn.functional.normalize(f, dim=0) @ mean), 1 / (1 + np.exp(-(f.numpy() @ weight + 0.1))))
        for k, f in features.items()
    }


def test_the_scores_are_open_clips_own(tables, model):
    done = score(tables, model, 4)
    for key, (cosine, chance) in by_hand(model).items():
        row = done.row("scores", key)
        assert row["vlm"] == pytest.approx(cosine, abs=2e-4)
        assert row["detector"] == pytest.approx(chance, abs=2e-4)
    assert done.row("scores", "again")["vlm"] == done.row("scores", "3")["vlm"]
    assert done.row("scores", "bad")["vlm"] is None
    assert (done.result.facts["scored_images"], done.result.facts["unscored_images"]) == (8, 1)
    vector = np.frombuffer(done.row("embeddings", "0")["embedding"], "<f2").astype(np.float64)
    assert vector.shape == (DIMENSIONS,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=2e-3)


def test_the_same_batch_gives_the_same_scores_whatever_was_scored_before(tables, model):
    whole = score(tables, model, 4)
    some = {key: frame.head(4) for key, frame in ((k, tables.frame(*k)) for k in (
        ("dedup.cluster", "survivors"), ("download.fetch", "fetched")))}  # fmt: skip
    first = score(Handed(tables.store, some), model, 4)
    second = score(tables, model, 4, prior=Before([first.earlier()]))
    assert second.result.facts["recorded_images"] == 4
    for output in ("scores", "embeddings"):
        assert second.table(output).equals(whole.table(output))

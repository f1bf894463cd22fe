"""``python -m pipeline.remake_mini --data DIR --out DIR``: trains the mini model's projection and detector head.

The towers stay frozen: their features are computed once, the heads are trained over them with this project's own loss,
optimiser and schedule, and everything is evaluated on held-out pictures through the same encoder that a build uses.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from manifests.models import ModelSpec, resolve
from pipeline.remake_mini.corpus import CorpusError, Item, read_corpus
from pipeline.remake_mini.scores import below_floor, encode, held_out_scores, world_scores
from pipeline.remake_mini.views import texts, views
from pipeline.world.errors import WorldError
from pipeline.world.pictures import other_pictures, tile_pictures
from pipeline.world.wheels import fetch_wheels, wheel_cache
from stages import torchvision_shim
from stages.detector import Detector, load_detector, save_detector
from stages.encoder import Encoder, Placement, load_encoder
from stages.mini_model import assemble
from stages.step import ModelMissingError
from stages.wheels import WheelError

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.remake_mini.heads import Features

_KEY = "remake_mini"
_BATCH = 64
_DETECTOR_C = 0.01  # inverse strength of the ridge penalty, on standardised features
_VIEWS = 9


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, evaluate, write. Returns 0; 2 for bad input; 4 where a score is below its floor (nothing is written)."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.remake_mini", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with rs-pairs/ and photos/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two files and scores.json")
    told = parser.parse_args(arguments)
    try:
        return _remake(told.data, told.out)
    except (CorpusError, ModelMissingError, WorldError, WheelError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _remake(data: Path, out: Path) -> int:
    torchvision_shim.declare()
    from safetensors.torch import save

    from pipeline.remake_mini.heads import Settings, train_heads

    spec = resolve("mini", _KEY)
    items = read_corpus(data)
    training = [item for item in items if not item.held_out]
    _say(f"{len(training)} pictures to learn from, {len(items) - len(training)} held out")
    with tempfile.TemporaryDirectory() as scratch:
        features = _features(spec, training, Path(scratch))
        heads = train_heads(features, spec.dimensions or 0, Settings(), _say)
        projection = {name: tensor.half() for name, tensor in heads.named_as_in_open_clip().items()}
        (made := Path(scratch, "made")).mkdir()
        encoder = _encoder(made / "model", {name: tensor.float() for name, tensor in projection.items()})
        detector = _detector(features, training, made / "detector.safetensors")
        scores = _scores(items, encoder, detector)
        for name, value in scores.items():
            _say(f"{name}: {value:.4f}")
        if low := below_floor(scores):
            sys.stderr.write("\n".join([*low, "nothing was written", ""]))
            return 4
        out.mkdir(parents=True, exist_ok=True)
        (out / "projection.safetensors").write_bytes(save(dict(sorted(projection.items()))))
        (out / "detector.safetensors").write_bytes((made / "detector.safetensors").read_bytes())
        rounded = {name: round(value, 4) for name, value in scores.items()}
        (out / "scores.json").write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")
    return 0


def _encoder(folder: Path, projection: dict[str, Tensor]) -> Encoder:
    folder.mkdir()
    assemble(folder, projection)
    return load_encoder(f"local-dir:{folder}", Placement(batch=_BATCH), _KEY)


def _features(spec: ModelSpec, training: Sequence[Item], scratch: Path) -> Features:
    """Run the frozen towers over all views and texts."""
    from pipeline.remake_mini.heads import Features, Heads

    untrained = Heads(spec.features or 0, 384, spec.dimensions or 0).named_as_in_open_clip()
    encoder = _encoder(scratch / "untrained", untrained)
    shown = [list(views(item)) for item in training]
    _say(f"{sum(map(len, shown))} views through the image tower")
    trunks = iter(encode(encoder, [body for bodies in shown for body in bodies]))
    rows = [np.stack([next(trunks).trunk for _ in bodies]) for bodies in shown]
    images = np.stack([row[np.arange(_VIEWS) % len(row)] for row in rows])
    told = [texts(item) for item in training]
    listed = sorted({text for choices in told for text, _ in choices})
    place = {text: row for row, text in enumerate(listed)}
    choices = []
    for options in told:
        shares = np.array([share for _, share in options])
        choices.append((np.array([place[text] for text, _ in options]), shares / shares.sum()))
    names = sorted({(item.kind, item.label) for item in training})
    labels = np.array([names.index((item.kind, item.label)) for item in training])
    _say(f"{len(listed)} texts through the text tower")
    photos = np.array([item.kind == "photo" for item in training])
    return Features(images, _text_features(scratch / "untrained", listed), choices, labels, photos)


def _text_features(folder: Path, listed: Sequence[str]) -> NDArray[np.float32]:
    """Return the pooled features of the text tower before its head, [texts, T]."""
    import torch

    from stages.open_clip_load import load_towers

    spec = resolve(f"local-dir:{folder}", _KEY)
    towers = load_towers(spec, spec.digest, "cpu", "fp32")
    text: Any = towers.model.text
    rows = []
    with torch.inference_mode():
        for start in range(0, len(listed), _BATCH):
            tokens = towers.tokenize(list(listed[start : start + _BATCH]))
            mask = (tokens != text.config.pad_token_id).long()
            rows.append(text.pooler(text.transformer(input_ids=tokens, attention_mask=mask), mask).numpy())
    return np.concatenate(rows)


def _detector(features: Features, training: Sequence[Item], path: Path) -> Detector:
    """Fit the head on all views, standardised, and write it with the standardisation folded in."""
    from sklearn.linear_model import LogisticRegression

    rows = features.images.reshape(-1, features.images.shape[2]).astype(np.float64)
    overhead = np.repeat([item.kind == "overhead" for item in training], features.images.shape[1])
    mean, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    model = LogisticRegression(C=_DETECTOR_C, class_weight="balanced", max_iter=2000)
    model.fit((rows - mean) / spread, overhead)
    weight = model.coef_[0] / spread
    bias = float(model.intercept_[0] - weight @ mean)
    save_detector(path, weight, bias, {"encoder": "mini", "positives": "AID", "negatives": "ImageNet samples"})
    return load_detector(str(path), _KEY)


def _scores(items: Sequence[Item], encoder: Encoder, detector: Detector) -> dict[str, float]:
    wheels = fetch_wheels(wheel_cache(), _say)
    pictures = [(p.kind, p.image.body) for p in (*tile_pictures(wheels), *other_pictures(wheels, _say))]
    return held_out_scores(items, encoder, detector) | world_scores(pictures, encoder, detector)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())

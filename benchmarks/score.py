"""Images a second of the outlier stage beside the bare model, in one run: same weights, same batch, same threads.

The stage is the task that a worker runs: it reads JPEGs out of a tar of the image store, checks their digests, decodes,
prepares, encodes, scores by prompts and detector head, and stores both tables. The bare model gets tensors that are
prepared already and lie in memory. The two take turns in every round, so that a busy machine hurts them alike.

On a CPU: the mini model where it is at hand, else its image tower with random weights (the speed does not depend on
them). With a GPU (and a CUDA build of torch): ViT-B-32 and convnext_xxlarge with random weights, bf16, and what 4.0
million images cost. usage: score.py [--images N] [--rounds N]
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from manifests.recipe import Recipe
from manifests.schemas import TABLES
from manifests.store import Store
from manifests.tables import empty_frame, write_table
from pipeline.worker import InputFile, TaskSpec, run_task
from stages import torchvision_shim
from stages.detector import save_detector
from stages.encoder import Placement, load_encoder, resolve_device
from stages.outlier import embed
from stages.step import ModelMissingError, StoredFile
from stages.tars import TarWriter

CPU_FLOOR, GPU_FLOOR = 0.95, 0.85
DISTINCT = 256
PAPER_IMAGES = 4_000_000


class Clock:
    """Wall time, and CPU time of this thread, since it was made."""

    def __init__(self):
        self._wall, self._cpu = time.perf_counter(), time.thread_time()

    @property
    def wall_s(self):
        return time.perf_counter() - self._wall

    def rates(self, images):
        """Return images per second of wall time and per second of this thread's CPU time."""
        return images / self.wall_s, images / (time.thread_time() - self._cpu)


def photo_like(number):
    """A JPEG with detail at every scale, about as large as the mean picture of PUB11 (522 x 403 pixels)."""
    draw = np.random.default_rng(number)
    width, height = int(draw.integers(300, 745)), int(draw.integers(240, 566))
    total = np.zeros((height, width, 3))
    for cells in (4, 8, 16, 32, 64):
        coarse = Image.fromarray(draw.integers(0, 256, (cells, cells, 3)).astype(np.uint8))
        total += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64) * 4 / cells
    total = (total - total.min()) / (total.max() - total.min()) * 255
    out = io.BytesIO()
    Image.fromarray(total.astype(np.uint8)).save(out, "JPEG", quality=85)
    return out.getvalue()


def image_store(folder, images):
    """Put JPEGs into a tar of the image store, with the tables that lead to them; return the task's inputs."""
    distinct = [photo_like(number) for number in range(min(images, DISTINCT))]
    # What follows the end of a JPEG is not looked at: other bytes, the same work.
    bodies = [distinct[n % len(distinct)] + n.to_bytes(4, "big") for n in range(images)]
    digests = [hashlib.sha256(body).hexdigest() for body in bodies]
    with TarWriter(folder / "images.tar") as tar:
        offsets = {digest: tar.add(f"{digest}.jpg", body) for digest, body in zip(digests, bodies, strict=True)}
    columns = {
        "sample_id": [f"{n:032x}" for n in range(images)], "source": ["cc3m"] * images, "split_group": [""] * images,
        "url": [f"http://a.org/{n}" for n in range(images)], "tar": ["images.tar"] * images,
        "offset": [offsets[digest] for digest in digests], "length": [len(body) for body in bodies],
        "sha256": digests, "media_type": ["jpeg"] * images, "hash_verdict": ["unknown"] * images,
    }  # fmt: skip
    inputs = []
    for step, table in (("dedup.cluster", "survivors"), ("download.fetch", "fetched")):
        schema = empty_frame(TABLES[table]).schema
        data = {n: pl.Series(n, columns.get(n, [None] * images), dtype=d) for n, d in schema.items()}
        written = write_table(TABLES[table], pl.DataFrame(data), folder / f"{table}.parquet")
        stored = StoredFile("web-0000", f"{table}.parquet", written.sha256, written.bytes, images)
        inputs.append(InputFile(step, table, stored))
    return inputs, bodies


def random_weights(name, placement, model_config=None):
    """Return an encoder of an open_clip architecture with random weights."""
    torchvision_shim.declare()
    import open_clip
    import torch

    from stages.open_clip_encoder import OpenClipEncoder
    from stages.open_clip_load import Towers

    if placement.device == "cpu":
        torch.set_num_threads(1)
    if model_config:
        model = open_clip.CLIP(**model_config)
        side, tokenize = model_config["vision_cfg"]["image_size"], open_clip.SimpleTokenizer()
    else:
        model, tokenize = open_clip.create_model(name, pretrained=None), open_clip.get_tokenizer(name)
        side = open_clip.get_model_config(name)["vision_cfg"]["image_size"]
    preprocess = open_clip.image_transform(side, is_train=False)
    model.to(placement.device)
    model.visual.to(memory_format=torch.channels_last)
    towers = Towers(model.eval().requires_grad_(False), preprocess, tokenize, placement.device, placement.precision)
    return OpenClipEncoder(towers, placement.batch)


MINI_TOWER = {
    "embed_dim": 256,
    "vision_cfg": {"image_size": 160, "timm_model_name": "tf_efficientnet_lite0", "timm_model_pretrained": False,
                   "timm_pool": "avg", "timm_proj": "mlp"},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}  # fmt: skip


def on_cpu(batch):
    placement = Placement("cpu", "fp32", batch)
    try:
        return "the mini model", load_encoder("mini", placement, "outlier.encoder"), placement
    except ModelMissingError as error:
        print(f"the mini model is not at hand ({error});\nits image tower with random weights instead")
        return "EfficientNet-Lite0 at 160 px", random_weights("", placement, MINI_TOWER), placement


def bare_model(encoder, bodies, seconds):
    """Return what measures the model alone for so long, on a prepared batch that lies in the device's memory."""
    import torch

    # The same weights in the same context as the stage's, but without its decoding, queueing and scoring.
    towers, batch, running = encoder._towers, encoder._batch, encoder._running  # noqa: SLF001
    pictures = [towers.preprocess(Image.open(io.BytesIO(body)).convert("RGB")) for body in bodies[:batch]]
    pixels = torch.stack(pictures).to(towers.device, memory_format=torch.channels_last)

    def forward():
        with running():
            towers.model.encode_image(pixels)
        if towers.device == "cuda":
            torch.cuda.synchronize()

    forward()

    def measured():
        start, done = Clock(), 0
        while start.wall_s < seconds or not done:
            forward()
            done += batch
        return start.rates(done)

    return measured


def measure(name, encoder, placement, images, rounds, floor):
    """Measure one model; return whether its floor held."""
    embed.load_encoder = lambda *_: encoder
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        inputs, bodies = image_store(folder, images)
        ((_, first),) = encoder.bodies([("a", bodies[0])])
        # The step asks whether the head is its encoder's: both take the name of a shipped model here.
        save_detector(folder / "head.safetensors", np.zeros(len(first.trunk)), 0.0, {"encoder": "mini"})
        settings = {"outlier.encoder": "mini", "outlier.prompts": "rs5m-33", "outlier.batch": placement.batch,
                    "outlier.detector": str(folder / "head.safetensors"), "outlier.precision": placement.precision,
                    "run.device": placement.device}  # fmt: skip
        defaults = Recipe(name="score").flat()
        step = embed.Embed()
        settings = {key: settings.get(key, defaults[key]) for key in (*step.reads, *step.asks)}
        spec = TaskSpec(step.name, "web-0000", settings, {"batch": placement.batch}, True, inputs)
        store = Store(place)

        def stage():
            start = Clock()
            done = run_task(store, spec)
            assert done.facts["scored_images"] == images
            assert done.facts["unscored_images"] == 0
            return start.rates(images)

        warm, at_once = stage()[0], bare_model(encoder, bodies, 0.0)()[0]
        print(f"\n{name}, {placement.device}, {placement.precision}, batch {placement.batch}, {images} JPEGs a round, "
              f"mean {sum(map(len, bodies)) / images / 1000:.0f} kB; first pass {warm:,.0f} images/s")  # fmt: skip
        bare = bare_model(encoder, bodies, images / at_once / 2)
        rounds_of = []
        for number in range(rounds):
            before, through, after = bare(), stage(), bare()
            alone = [(a + b) / 2 for a, b in zip(before, after, strict=True)]
            rounds_of.append((through[0], through[0] / alone[0], through[1] / alone[1]))
            print(f"  round {number + 1}: stage {through[0]:7,.1f} images/s, bare model {alone[0]:7,.1f}, "
                  f"ratio {rounds_of[-1][1]:.3f}; load of the machine {os.getloadavg()[0]:.1f}")  # fmt: skip
    rate, ratio, by_cpu = (statistics.median(column) for column in zip(*rounds_of, strict=True))
    held = ratio >= floor
    print(
        f"  median: {rate:,.0f} images/s, {ratio:.3f} of the bare model; floor {floor}: {'held' if held else 'MISSED'}"
    )
    if placement.device == "cpu":
        print(f"  by CPU time of the model's thread {by_cpu:.3f}: what is left where another core is free to decode")
    if placement.device == "cuda":
        print(f"  {PAPER_IMAGES:,} images: {PAPER_IMAGES / rate / 3600:.1f} GPU-hours")
    return held


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if resolve_device("auto") == "cpu":
        print("no GPU, or a CPU build of torch: no claim about one")
        name, encoder, placement = on_cpu(64)
        return 0 if measure(name, encoder, placement, given.images, given.rounds, CPU_FLOOR) else 1
    held = []
    for name, batch, images in (("ViT-B-32", 256, 8 * given.images), ("convnext_xxlarge", 128, 2 * given.images)):
        placement = Placement("cuda", "bf16", batch)
        encoder = random_weights(name, placement)
        held.append(measure(name, encoder, placement, images, given.rounds, GPU_FLOOR))
        del encoder
        embed._direction.cache_clear()  # noqa: SLF001
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())

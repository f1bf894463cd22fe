"""Training speed: `rs5m-build train`'s loop beside open_clip_train.main, on the same tars, model, batch and precision.

Each run is a process of its own; the two take turns, so that a busy machine hurts them alike. Timed are whole steps,
data included, from the start of one step to that of a later one; set-up, first steps and the last checkpoint are not.
Ours augments more (turns and flips beside the crop that both make). Then our reader alone, on one core.
usage: train.py [--rounds N] [--only tiny|vit-b-32]
"""

import argparse
import importlib.util
import io
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
import types
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

FLOOR = 0.95
TARS = 4
PICTURES = 256
WARM_UP = 2
PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
TINY = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": 4, "width": 192, "patch_size": 16},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 4},
}
B_32 = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}


@dataclass(frozen=True)
class Case:
    """A model with its batch size and number of timed steps, on the CPU and on a GPU."""

    name: str
    config: dict
    cpu: tuple[int, int]
    gpu: tuple[int, int]


CASES = (Case("tiny", TINY, (64, 16), (1024, 60)), Case("vit-b-32", B_32, (8, 3), (512, 60)))


def photo_like(number):
    """A picture with detail at every scale, 400 x 520."""
    draw = np.random.default_rng(number)
    total = np.zeros((400, 520, 3))
    for cells in (4, 8, 16, 32, 64, 128):
        coarse = Image.fromarray(draw.integers(0, 256, (cells, cells, 3)).astype(np.uint8))
        total += np.asarray(coarse.resize((520, 400), Image.Resampling.BICUBIC), np.float64) * 4 / cells
    total = (total - total.min()) / (total.max() - total.min()) * 255
    out = io.BytesIO()
    Image.fromarray(total.astype(np.uint8)).save(out, "JPEG", quality=85)
    return out.getvalue()


def write_tars(folder):
    from stages.tars import TarWriter

    for number in range(TARS):
        with TarWriter(folder / f"part-{number:04d}.tar") as tar:
            for picture in range(number, PICTURES, TARS):
                tar.add(f"{picture:08d}.jpg", photo_like(picture))
                tar.add(f"{picture:08d}.txt", f"an aerial image of place {picture} beside a river".encode())


def write_model(folder, config):
    """Write random weights as a folder that open_clip loads, and the config by itself."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    torch.manual_seed(0)
    towers = {"vision_cfg": open_clip.CLIPVisionCfg(**config["vision_cfg"])}
    towers["text_cfg"] = open_clip.CLIPTextCfg(**config["text_cfg"])
    weights = open_clip.CLIP(embed_dim=config["embed_dim"], **towers).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}))
    (folder.parent / f"bench-{folder.name}.json").write_text(json.dumps(config))


def ours(told):
    """Time the steps of our loop."""
    from manifests.models import resolve
    from stages.train.fit import fit
    from stages.train.job import Job, Surroundings
    from stages.train.members import read_members
    from stages.train.model import load_trainee
    from stages.train.ranks import Ranks
    from stages.train.samples import Samples
    from stages.train.transforms import Transform

    tars = sorted(Path(told["tars"]).glob("*.tar"))
    trainee = load_trainee(resolve(f"local-dir:{told['model']}", "model"))
    samples = Samples(read_members(tars), Transform(trainee.preprocess, "georsclip", 0), trainee.tokenizer)
    job = Job(
        told["steps"], told["batch"], lr=1e-4, weight_decay=0.2, warmup_steps=2, log_every_steps=10,
        precision=told["precision"],
    )  # fmt: skip
    ends = []
    around = Surroundings(
        Ranks(told["device"]), Path(told["out"]), told["workers"], stop=lambda: bool(ends.append(now(told)))
    )
    fit(trainee, samples, None, job, around)
    return ends


def theirs(told):
    """Time the steps of open_clip's trainer, whose main does everything."""
    import open_clip

    if importlib.util.find_spec("pandas") is None:  # open_clip's trainer reads CSV files with it, and nothing else
        sys.modules["pandas"] = types.ModuleType("pandas")
    from open_clip_train import main as trainer

    open_clip.add_model_config(told["config"])
    starts, epoch = [], trainer.train_one_epoch

    def timed(model, data, loss, number, optimiser, scaler, scheduler, *rest, **named):
        def schedule(step):
            starts.append(now(told))
            return scheduler(step)

        return epoch(model, data, loss, number, optimiser, scaler, schedule, *rest, **named)

    trainer.train_one_epoch = timed
    pattern = f"{told['tars']}/part-{{0000..{TARS - 1:04d}}}.tar"
    arguments = {
        "model": Path(told["config"]).stem,
        "dataset-type": "webdataset",
        "train-data": pattern,
        "train-num-samples": told["steps"] * told["batch"],
        "batch-size": told["batch"],
        "epochs": 1,
        "workers": told["workers"],
        "precision": told["precision"],
        "device": told["device"],
        "lr": 1e-4,
        "wd": 0.2,
        "beta1": 0.9,
        "beta2": 0.98,
        "eps": 1e-6,
        "warmup": 2,
        "logs": told["out"],
        "log-every-n-steps": 10,
        "name": "bench",
    }
    trainer.main([word for name, value in arguments.items() for word in (f"--{name}", str(value))])
    return starts


def now(told):
    import torch

    if told["device"] == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measured(way, case, room, number):
    """Return images/s of one run in a process of its own."""
    import torch

    gpu = torch.cuda.is_available()
    batch, steps = case.gpu if gpu else case.cpu
    told = {
        "tars": str(room / "tars"), "model": str(room / case.name), "config": str(room / f"bench-{case.name}.json"),
        "out": str(room / f"out-{way}-{case.name}-{number}"), "batch": batch, "steps": steps + WARM_UP,
        "precision": "amp_bf16" if gpu else "fp32", "device": "cuda" if gpu else "cpu", "workers": TARS if gpu else 1,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, __file__, "--way", way, "--told", json.dumps(told)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    stamps = json.loads(done.stdout.splitlines()[-1])[WARM_UP - 1 :]
    return batch * (len(stamps) - 1) / (stamps[-1] - stamps[0])


def reader(room, transform):
    """Return images a second of CPU time, of our reader alone: tar to normalised tensors and tokens."""
    import torch

    from manifests.models import resolve
    from stages.train.loader import Loader
    from stages.train.members import read_members
    from stages.train.model import load_trainee
    from stages.train.order import Shares
    from stages.train.samples import Samples
    from stages.train.transforms import Transform

    torch.set_num_threads(1)
    trainee = load_trainee(resolve(f"local-dir:{room / 'vit-b-32'}", "model"))
    tars = sorted((room / "tars").glob("*.tar"))
    samples = Samples(read_members(tars), Transform(trainee.preprocess, transform, 0), trainee.tokenizer)
    with closing(iter(Loader(samples, Shares(32), 32, 0))) as batches:
        next(batches)
        start_s = time.process_time()  # of this one thread: a busy machine does not count
        count = sum(len(batch.images) for batch in itertools.islice(batches, 24))
    return count / (time.process_time() - start_s)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--way", default="")
    parser.add_argument("--told", default="{}")
    asked = parser.parse_args()
    from stages import torchvision_shim

    torchvision_shim.declare()
    if asked.way:
        stamps = {"ours": ours, "open_clip_train": theirs}[asked.way](json.loads(asked.told))
        print(json.dumps(stamps))
        return
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        (room / "tars").mkdir()
        write_tars(room / "tars")
        worst = 1e9
        print("model      ours images/s   open_clip_train images/s   ratio")
        for case in CASES:
            write_model(room / case.name, case.config)
            if asked.only not in ("", case.name):
                continue
            rates = {"ours": [], "open_clip_train": []}
            for number in range(asked.rounds):
                for way, found in rates.items():
                    found.append(measured(way, case, room, number))
            own, other = (statistics.median(found) for found in rates.values())
            worst = min(worst, own / other)
            print(f"{case.name:10} {own:13.1f} {other:26.1f} {own / other:7.2f}", flush=True)
        for transform in ("eval", "georsclip"):
            print(
                f"reader alone, {transform}, 400 x 520 JPEG to 224 px: {reader(room, transform):.0f} images/s per core"
            )
    print(f"lowest ratio {worst:.2f}, floor {FLOOR}")
    sys.exit(worst < FLOOR)


if __name__ == "__main__":
    main()

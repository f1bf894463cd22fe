"""Captions per second of the whole chain: candidates, rank, rank again, rotation rule.

    python benchmarks/caption.py [--images N] [--encoder NAME] [--candidates N] [--batch N] [--device auto|cpu|cuda]
                                 [--model FOLDER_OR_HUB_ID --precision fp16 [--rerank NAME]]

Without --model captions are composed (the mini recipe's captioner); with it they are written by BLIP-2. Pictures are
noise at a range of scales, drawn from a seed: what they show does not change the work, except that BLIP-2 may stop
early on pictures it knows. Figures are medians of --rounds rounds, least and greatest beside them.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

import numpy as np
from PIL import Image

from manifests.recipe import Recipe, Settings
from stages.caption.settings import KEYS, CaptionSettings
from stages.encoder import Placement, resolve_device

# fMoW, BigEarthNet and MillionAID as published: 727,144 + 344,385 + 990,848.
RS3_IMAGES = 2_062_377
SIDE = 256


def picture(seed):
    draw = np.random.default_rng(seed)
    total = np.zeros((SIDE, SIDE, 3))
    for cells in (4, 16, 64):
        coarse = Image.fromarray(draw.integers(0, 256, (cells, cells, 3)).astype(np.uint8))
        total += np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64) / 3
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


def chain_settings(asked):
    recipe = Recipe(name="benchmark").flat()
    changed = {
        "caption.captioner": "blip2" if asked.model else "compose",
        "caption.model": asked.model,
        "caption.candidates": asked.candidates,
        "caption.rank": asked.encoder,
        "caption.rerank": asked.rerank or asked.encoder,
        "caption.rotate": asked.encoder,
    }
    return CaptionSettings.read(Settings({key: changed.get(key, recipe[key]) for key in KEYS}))


def timed(images, batch, captioner, judge):
    """Seconds for the candidates and for judging them, and how many candidates there were."""
    drawing = judging = 0.0
    written = 0
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        begin = time.perf_counter()
        drawn = captioner.candidates(part)
        middle = time.perf_counter()
        numbered = [[(n, c) for n, c in enumerate(mine) if c.text] for mine in drawn]
        some = [place for place, mine in enumerate(numbered) if mine]
        judge.judge([part[place][1] for place in some], [numbered[place] for place in some])
        drawing, judging = drawing + middle - begin, judging + time.perf_counter() - middle
        written += sum(map(len, numbered))
    return drawing, judging, written


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--encoder", default="mini", help="ranks, and looks at the rotated views")
    parser.add_argument("--rerank", default="", help="ranks again; default: the same")
    parser.add_argument("--model", default="", help="BLIP-2: a folder or a hub id; default: compose")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    return parser.parse_args()


def main():
    asked = arguments()
    settings, device = chain_settings(asked), resolve_device(asked.device)
    placement = Placement(device, asked.precision, asked.batch)
    captioner, judge = settings.make_captioner(placement), settings.make_judge(placement)
    images = [(f"{number:032x}", picture(number)) for number in range(asked.images)]
    timed(images[: asked.batch], asked.batch, captioner, judge)
    rounds = [timed(images, asked.batch, captioner, judge) for _ in range(asked.rounds)]
    written = rounds[0][2]
    print(
        f"{settings.captioner} {asked.model or ''} on {device} {asked.precision}, batch {asked.batch}; "
        f"{asked.images} images, {written} candidates; rank {settings.rank}, rerank {settings.rerank}, "
        f"rotate {settings.rotate}"
    )
    rates = [written / (drawing + judging) for drawing, judging, _ in rounds]
    print(f"chain      {min(rates):8.1f} /{statistics.median(rates):8.1f} /{max(rates):8.1f} candidates/s")
    for name, place in (("drawing", 0), ("judging", 1)):
        seconds = [each[place] / asked.images for each in rounds]
        print(f"{name:<10} {min(seconds):8.4f} /{statistics.median(seconds):8.4f} /{max(seconds):8.4f} s an image")
    if device != "cuda":
        print(f"{RS3_IMAGES:,} images x 20 candidates: no claim, there is no GPU here")
        return
    import torch

    seconds = statistics.median((drawing + judging) / asked.images for drawing, judging, _ in rounds)
    print(f"one {torch.cuda.get_device_name()}: {RS3_IMAGES * seconds / 3600:,.0f} GPU-hours for {RS3_IMAGES:,} images "
          f"x {asked.candidates} candidates at this rate")  # fmt: skip


if __name__ == "__main__":
    main()

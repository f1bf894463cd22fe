"""The first steps against open_clip's own trainer: same weights, same batches, same losses."""

import itertools
import math
from contextlib import closing
from types import SimpleNamespace

import pytest
import torch

from stages import torchvision_shim
from stages.train.loader import Loader
from stages.train.log import read_log
from stages.train.order import Shares
from tests.stages.train.tiny import pairs, samples_of, tiny_trainee, write_tar
from tests.stages.train.training import JOB, train

torchvision_shim.declare()
STEPS = 10


class Recorded(list):
    """What open_clip's loop reads from: batches, and how many there are."""

    num_batches, num_samples = STEPS, STEPS * JOB["batch"]


def open_clips(folder, tar, clip):
    """Return the losses of open_clip_train's own loop over the batches that ours reads, set up as its main does."""
    import open_clip
    from open_clip_train.scheduler import cosine_lr
    from open_clip_train.train import train_one_epoch

    loader = Loader(
        samples_of(tiny_trainee(folder), tar, seed=5, transform="georsclip"), Shares(JOB["batch"]), JOB["batch"], 5
    )
    with closing(iter(loader)) as batches:
        read = Recorded((batch.images, batch.tokens) for batch in itertools.islice(batches, STEPS))
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}", output_dict=True)
    left_out = [
        p for n, p in model.named_parameters() if p.ndim < 2 or any(w in n for w in ("bn", "ln", "bias", "logit_scale"))
    ]
    rest = [p for p in model.parameters() if all(p is not other for other in left_out)]
    optimiser = torch.optim.AdamW(
        [{"params": left_out, "weight_decay": 0.0}, {"params": rest, "weight_decay": JOB["weight_decay"]}],
        lr=JOB["lr"], betas=(0.9, 0.98), eps=1e-6,
    )  # fmt: skip
    losses, loss = [], open_clip.ClipLoss()

    def recorded(**features):
        found = loss(**features)
        losses.append(float(next(iter(found.values())).detach()))
        return found

    arguments = SimpleNamespace(
        device="cpu", precision="fp32", distill=False, accum_freq=1, skip_scheduler=False, horovod=False, rank=0,
        local_rank=0, log_local=False, batch_size=JOB["batch"], world_size=1, log_every_n_steps=1, wandb=False,
        grad_clip_norm=clip or None,
    )  # fmt: skip
    data = {"train": SimpleNamespace(set_epoch=lambda _: None, dataloader=read)}
    schedule = cosine_lr(optimiser, JOB["lr"], JOB["warmup_steps"], STEPS)
    train_one_epoch(model, data, recorded, 0, optimiser, None, schedule, None, arguments)
    return losses, model.state_dict()


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_the_first_ten_losses_are_open_clips(folder, tmp_path, clip):
    from safetensors.torch import load_file

    tar = write_tar(tmp_path / "a.tar", pairs(64), ("jpg", "txt"))
    theirs, state = open_clips(folder, tar, clip)
    done = train(tmp_path / "out", folder, tar, steps=STEPS, grad_clip_norm=clip)
    own = [record["loss"] for record in read_log(tmp_path / "out" / "log.jsonl") if "loss" in record]
    assert own == pytest.approx(theirs, abs=1e-4)
    assert math.isclose(max(own), max(theirs), abs_tol=1e-4)
    assert own[-1] < own[0]
    weights = load_file(done.checkpoint / "open_clip_model.safetensors")
    assert max(float((weights[name] - tensor).abs().max()) for name, tensor in state.items()) < 1e-4

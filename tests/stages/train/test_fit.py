import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from stages.train.checkpoint import checkpoints, read_progress
from stages.train.job import DivergedError
from stages.train.log import read_log
from tests.stages.train.tiny import pair, pairs, samples_of, tiny_trainee, write_tar
from tests.stages.train.training import train

ROOT = Path(__file__).parents[3]
FILES = ("open_clip_model.safetensors", "optimiser.safetensors", "open_clip_config.json", "progress.json")
NO_NETWORK = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def tar(tmp_path):
    return write_tar(tmp_path / "a.tar", [*pairs(40), (b"no picture", "a caption"), *pairs(12, 40)])


def contents(checkpoint):
    return {name: (checkpoint / name).read_bytes() for name in FILES}


def losses(out):
    return [(r["step"], r["loss"], r["grad_norm"], r["lr"]) for r in read_log(out / "log.jsonl") if "loss" in r]


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_stopped_and_gone_on_is_bit_for_bit_a_run_that_never_stopped(folder, tar, tmp_path, stop):
    whole = train(tmp_path / "whole", folder, tar, steps=8)
    part = train(tmp_path / "parts", folder, tar, steps=8, stop_after=stop)
    assert (part.complete, part.steps) == (False, stop)
    rest = train(tmp_path / "parts", folder, tar, steps=8)
    assert (rest.complete, rest.steps, rest.skipped) == (True, 8, whole.skipped)
    assert contents(rest.checkpoint) == contents(whole.checkpoint)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == 8


def run(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, Path(__file__).with_name("training.py"), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **NO_NETWORK, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def test_a_killed_training_goes_on_from_its_last_checkpoint(folder, tar, tmp_path):
    process = run(tmp_path / "killed", folder, tar, 8, 2)
    for line in process.stdout:
        if "'step': 5," in line:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert 4 <= read_progress(checkpoints(tmp_path / "killed")[-1]).step < 8
    rest = train(tmp_path / "killed", folder, tar, steps=8, checkpoint_every_steps=2)
    whole = train(tmp_path / "whole", folder, tar, steps=8)
    assert contents(rest.checkpoint) == contents(whole.checkpoint)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_two_ranks_train_as_one(folder, tmp_path):
    tar = write_tar(tmp_path / "a.tar", pairs(64))
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    started = [run(tmp_path / "two", folder, tar, 3, 0, RANK=r, LOCAL_RANK=r, **meeting) for r in "01"]
    for process in started:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    one = train(tmp_path / "one", folder, tar, steps=3)
    two = checkpoints(tmp_path / "two")[-1]
    for own, theirs in zip(losses(tmp_path / "two"), losses(tmp_path / "one"), strict=True):
        assert own == pytest.approx(theirs, abs=1e-5, rel=1e-5)
    weights, expected = (load_file(path / FILES[0]) for path in (two, one.checkpoint))
    worst = max(float((weights[name] - tensor).abs().max()) for name, tensor in expected.items())
    assert worst < 1e-5
    assert len(read_progress(two).positions) == 2


def test_a_batch_done_in_parts_is_the_batch(folder, tmp_path):
    tar = write_tar(tmp_path / "a.tar", pairs(64))
    whole = train(tmp_path / "whole", folder, tar, steps=4)
    parts = train(tmp_path / "parts", folder, tar, steps=4, accumulate=4)
    for own, theirs in zip(losses(tmp_path / "parts"), losses(tmp_path / "whole"), strict=True):
        assert own == pytest.approx(theirs, abs=1e-5, rel=1e-5)
    weights, expected = (load_file(done.checkpoint / FILES[0]) for done in (parts, whole))
    assert max(float((weights[name] - tensor).abs().max()) for name, tensor in expected.items()) < 1e-5


def test_sixty_four_pairs_can_be_learnt_by_heart(folder, tmp_path):
    tar = write_tar(tmp_path / "a.tar", pairs(64))
    done = train(
        tmp_path / "out", folder, tar, steps=45, batch=64, transform="eval", validation=tar, grad_clip_norm=0.0
    )
    before, after = done.recall[0], done.recall[45]
    assert before["image_to_text_R@1"] < 0.1
    assert (after["image_to_text_R@1"], after["text_to_image_R@1"], after["pairs"]) == (1.0, 1.0, 64)


def test_what_is_logged_and_kept(folder, tar, tmp_path):
    records = []
    done = train(
        tmp_path / "out", folder, tar, steps=7, validation=tar, log_every_steps=2, eval_every_steps=3,
        checkpoint_every_steps=2, keep_checkpoints=2, listen=records.append,
    )  # fmt: skip
    assert records == read_log(tmp_path / "out" / "log.jsonl")
    assert [r["step"] for r in records if "loss" in r] == [2, 4, 6, 7]
    assert [r["step"] for r in records if "recall" in r] == [0, 3, 6, 7]
    assert set(records[1]) == {
        "step", "steps", "batch", "epoch", "loss", "lr", "logit_scale", "grad_norm", "skipped", "images_per_s",
    }  # fmt: skip
    assert records[1]["images_per_s"] > 0
    assert [path.name for path in checkpoints(tmp_path / "out")] == ["checkpoint-0000006", "checkpoint-0000007"]
    assert done.skipped == {"undecodable": 3, "empty_caption": 0}  # once an epoch
    assert not list((tmp_path / "out").glob(".tmp*"))


def test_a_done_training_is_only_looked_at(folder, tar, tmp_path):
    first = train(tmp_path / "out", folder, tar, steps=3)
    before = contents(first.checkpoint)
    records = []
    again = train(tmp_path / "out", folder, tar, steps=3, listen=records.append)
    assert (again.steps, again.complete, records) == (3, True, [])
    assert contents(again.checkpoint) == before


def test_a_damaged_checkpoint_is_set_aside_and_made_again(folder, tar, tmp_path):
    whole = contents(train(tmp_path / "out", folder, tar, steps=4, checkpoint_every_steps=2).checkpoint)
    newest = checkpoints(tmp_path / "out")[-1]
    raw = bytearray((newest / "optimiser.safetensors").read_bytes())
    raw[-1] ^= 1
    (newest / "optimiser.safetensors").write_bytes(raw)
    records = []
    again = train(tmp_path / "out", folder, tar, steps=4, checkpoint_every_steps=2, listen=records.append)
    assert "checkpoint-0000004 is damaged" in records[0]["note"]
    assert contents(again.checkpoint) == whole
    assert (tmp_path / "out" / "checkpoint-0000004.corrupt").is_dir()


def test_a_loss_that_is_no_number_stops_the_training_without_a_checkpoint(folder, tar, tmp_path):
    with pytest.raises(DivergedError, match=r"lower train\.lr"):
        train(tmp_path / "out", folder, tar, steps=4, lr=1e30, grad_clip_norm=0.0, warmup_steps=0)
    assert checkpoints(tmp_path / "out") == []


def test_mixed_precision_learns_too(folder, tmp_path):
    tar = write_tar(tmp_path / "a.tar", pairs(32))
    train(tmp_path / "out", folder, tar, steps=12, batch=32, transform="eval", precision="amp_bf16")
    found = [loss for _, loss, _, _ in losses(tmp_path / "out")]
    assert found[-1] < found[0] - 1


def test_frozen_towers_stay_as_they_are(folder, tar, tmp_path):
    done = train(tmp_path / "out", folder, tar, steps=2, locks={"lock_image": True})
    before, after = (load_file(path / FILES[0]) for path in (folder, done.checkpoint))
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert "visual.proj" in changed
    assert "text_projection" in changed
    assert not any(name.startswith("visual.") for name in changed - {"visual.proj"})
    done = train(tmp_path / "text", folder, tar, steps=2, locks={"lock_text": True})
    after = load_file(done.checkpoint / FILES[0])
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert {name for name in changed if not name.startswith("visual.")} == {"text_projection", "logit_scale"}


def test_a_checkpoint_loads_in_plain_open_clip_with_equal_features(folder, tar, tmp_path):
    import open_clip

    done = train(tmp_path / "out", folder, tar, steps=3)
    moved = done.checkpoint.rename(tmp_path / "moved elsewhere")
    assert json.loads((moved / "open_clip_config.json").read_text())["model_cfg"]["quick_gelu"] is True
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{moved}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{moved}")
    trainee = tiny_trainee(moved)
    chunk = samples_of(trainee, tar)[0, [0, 1, 2]]
    pictures = torch.stack([preprocess(Image.open(io.BytesIO(pair(n)[0])).convert("RGB")) for n in range(3)])
    assert torch.equal(pictures, chunk.images)
    with torch.inference_mode():
        trainee.model.eval()
        own = trainee.model(chunk.images, chunk.tokens)
        assert torch.equal(model.eval().encode_image(pictures, normalize=True), own["image_features"])
        texts = tokenizer([pair(n)[1] for n in range(3)])
        assert torch.equal(model.encode_text(texts, normalize=True), own["text_features"])

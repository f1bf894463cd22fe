import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from manifests.commits import CommitStore
from manifests.fingerprint import Parts
from manifests.manifest import LedgerReceipt, Manifest, Receipt
from manifests.recipe_files import dump_recipe, load_recipe, provenance
from manifests.recipe_train import DECIDES, Train
from manifests.store import Store
from pipeline.commands_train import TrainingView, end_lines, plan_lines, run_train
from pipeline.errors import UserError
from pipeline.train import STEP, Watcher, plan_training, train
from pipeline.train_shards import at_hand, named_shards, released_shards
from pipeline.workdir import WorkdirError, open_workdir
from stages.train.checkpoint import checkpoints
from stages.train.log import read_log
from tests.stages.train.tiny import model_folder, pairs, write_tar

ROOT = Path(__file__).parents[2]
QUIET = Watcher(lambda _: None)
NO_NETWORK = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@pytest.fixture(autouse=True)
def small_machine(monkeypatch, tmp_path):
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RS5M_CACHE", str(tmp_path / "cache"))
    for name, value in NO_NETWORK.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("tiny") / "model")


def recipe_of(folder, **changed):
    values = {"model": f'"local-dir:{folder}"', "steps": 3, "batch": 8, "lr": 1e-3, "log_every_steps": 1, **changed}
    overrides = [f"train.{name}={value}" for name, value in values.items()]
    return load_recipe("nano", [*overrides, "run.workers=1", "run.lock_beat_s=0.05"])


def release(store, train_pairs=24, val_pairs=6):
    """Write what shard.index leaves: tars, checksums, and its commit."""
    root, lines = Path(store.uri), []
    for split, content, first in (("train", pairs(train_pairs), 0), ("val", pairs(val_pairs, 500), 500)):
        tar = write_tar(root / f"release/{split}/pub11-{split}-0000.tar", content, first=first)
        lines.append(f"{hashlib.sha256(tar.read_bytes()).hexdigest()}  {split}/{tar.name}\n")
    lines.append(f"{'0' * 64}  metafile/samples.parquet\n")
    text = "".join(lines).encode()
    store.replace("release/checksums.sha256", text)
    digest = hashlib.sha256(text).hexdigest()
    output = Receipt(
        name="checksums", path="release/checksums.sha256", sha256=digest, rows_digest=digest, bytes=len(text), rows=3
    )
    parts = Parts(inputs=[], recipe={}, code=1, pins={"tars": digest})
    CommitStore(store).commit(
        Manifest(
            step="shard.index", partition="all", fingerprint=parts.fingerprint, row_fingerprint=parts.fingerprint,
            parts=parts, open=False, outputs=[output], rows={}, facts={},
            ledger=LedgerReceipt(path="x", sha256="x", bytes=0, rows=0),
        ), 0,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "work"))
    open_workdir(store, "nano", create=True)
    release(store)
    return store


def manifests(store):
    commits = CommitStore(store)
    return [commits.read(name) for name in commits.step(STEP).all()]


def test_the_commit_says_which_tars_made_which_checkpoint(store, model):
    done = train(recipe_of(model), store, "", QUIET)
    (manifest,) = manifests(store)
    assert manifest.parts.inputs == sorted(
        (
            "shard.pack",
            f"{split}/pub11-{split}-0000.tar",
            hashlib.sha256(store.read(f"release/{split}/pub11-{split}-0000.tar")).hexdigest(),
        )
        for split in ("train", "val")
    )
    folder = f"train/{manifest.fingerprint[:16]}/checkpoint-0000003"
    names = {"open_clip_config.json", "open_clip_model.safetensors", "optimiser.safetensors", "progress.json"}
    assert {output.path for output in manifest.outputs} == {f"{folder}/{name}" for name in names}
    for output in manifest.outputs:
        assert hashlib.sha256(store.read(output.path)).hexdigest() == output.sha256
        assert store.size(output.path) == output.bytes
    assert store.size(manifest.ledger.path) == manifest.ledger.bytes
    assert (manifest.open, manifest.rows, manifest.facts["steps"]) == (False, {}, 3)
    assert manifest.facts["recall"].keys() == {"0", "3"}
    assert {f"train.{name}" for name in DECIDES} | {"seed"} == manifest.parts.recipe.keys()
    assert done.fitted.complete


def test_run_again_there_is_nothing_to_do(store, model, capsys):
    recipe = recipe_of(model)
    assert run_train(recipe, store, "", plan=False) == 0
    said = capsys.readouterr().err
    assert "validation recall over 6 pairs, before -> after: image_to_text_R@1" in said
    assert "open_clip loads it as local-dir:" in said
    before = {entry.path: store.read(entry.path) for entry in store.find("train")}
    assert run_train(recipe, store, "", plan=False) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert {entry.path: store.read(entry.path) for entry in store.find("train")} == before
    assert train(recipe_of(model, log_every_steps=2, keep_checkpoints=1), store, "", QUIET).fitted is None
    assert train(recipe_of(model, lr=2e-3), store, "", QUIET).fitted.complete
    assert len(manifests(store)) == 2


def test_a_checkpoint_that_is_gone_is_made_again(store, model):
    recipe = recipe_of(model, checkpoint_every_steps=1)
    train(recipe, store, "", QUIET)
    (first,) = manifests(store)
    weights = next(output for output in first.outputs if output.path.endswith("model.safetensors"))
    store.remove(weights.path)
    assert train(recipe, store, "", QUIET).fitted.complete
    assert hashlib.sha256(store.read(weights.path)).hexdigest() == weights.sha256
    again = manifests(store)
    assert [manifest.outputs for manifest in again] == [first.outputs, first.outputs]


def test_a_release_that_is_not_complete_is_refused(tmp_path, model):
    store = Store(str(tmp_path / "other"))
    with pytest.raises(WorkdirError, match="rs5m-build run"):
        train(recipe_of(model), store, "", QUIET)
    open_workdir(store, "nano", create=True)
    with pytest.raises(UserError, match=r"shard\.index is not committed; run `rs5m-build run` first"):
        train(recipe_of(model), store, "", QUIET)


def test_a_tar_that_is_not_what_was_released_is_refused(store, model):
    path = "release/train/pub11-train-0000.tar"
    raw = bytearray(store.read(path))
    raw[600] ^= 1
    store.replace(path, bytes(raw))
    with pytest.raises(UserError, match=r"train-0000\.tar is not what .*rs5m-build run"):
        train(recipe_of(model), store, "", QUIET)
    store.remove(path)
    with pytest.raises(UserError, match=r"train-0000\.tar cannot be read.*rs5m-build run"):
        train(recipe_of(model), store, "", QUIET)
    store.replace("release/checksums.sha256", b"")
    with pytest.raises(UserError, match="is not what was committed"):
        train(recipe_of(model), store, "", QUIET)
    assert manifests(store) == []
    assert store.find("locks") == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"batch": 9, "accumulate": 2}, r"train\.batch = 9 cannot be cut into 1 ranks x 2 parts"),
        ({"batch": 26}, "hold 24 pairs and train.batch is 26"),
        ({"precision": '"amp_fp16"'}, "needs a GPU"),
        ({"model": '"open_clip:ViT-B-32-quickgelu/openai"'}, r"train\.model = "),
        ({"model": '"min"'}, r"train\.model = 'min' is no shipped model; did you mean mini"),
        ({"lr": 1e30}, r"the loss is nan at step [23]: lower train\.lr"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(store, model, changed, said):
    with pytest.raises(UserError, match=said) as caught:
        train(recipe_of(model, **changed), store, "", QUIET)
    assert "\n" not in str(caught.value)
    assert manifests(store) == []


def test_tars_of_ones_own(tmp_path, model):
    for number in range(2):
        write_tar(
            tmp_path / f"mine/part-train-000{number}.tar", pairs(10, 10 * number), ("jpg", "txt"), first=10 * number
        )
    write_tar(tmp_path / "mine/part-val-0000.tar", pairs(4, 50), ("jpg", "txt"))
    pattern = str(tmp_path / "mine" / "part-{train,val}-{0000..0001}.tar")
    assert [shard.name for shard in named_shards(pattern)] == [
        "train/part-train-0000.tar", "train/part-train-0001.tar", "val/part-val-0000.tar",
    ]  # fmt: skip
    store = Store(str(tmp_path / "work"))
    done = train(recipe_of(model), store, pattern, QUIET)
    assert (done.planned.pairs, done.planned.validation_pairs) == (20, 4)
    assert {step for step, _, _ in manifests(store)[0].parts.inputs} == {"shards"}
    for wrong in ("nothing*.tar", "part-{train"):
        with pytest.raises(UserError, match="--shards"):
            named_shards(str(tmp_path / "mine" / wrong))
    with pytest.raises(UserError, match="no training tars"):
        train(recipe_of(model), store, str(tmp_path / "mine" / "*val*.tar"), QUIET)


@pytest.mark.parametrize(
    ("path", "split"),
    [("val/a.tar", "val"), ("validation/a.tar", "val"), ("x/rs3-val-0001.tar", "val"), ("x/RS5M_rs3_val.tar", "val"),
     ("x/interval.tar", "train"), ("train/a.tar", "train"), ("x/valley-train.tar", "train")],
)  # fmt: skip
def test_which_tars_are_for_validation(tmp_path, path, split):
    write_tar(tmp_path / path, [])
    assert [shard.split for shard in named_shards(str(tmp_path / path))] == [split]


def test_a_plan_says_steps_and_memory_and_writes_nothing(store, model):
    recipe = recipe_of(model, steps=0, epochs=2.0)
    before = [entry.path for entry in store.find("")]
    planned = plan_training(recipe, store, "", lambda _: None)
    text = "\n".join(plan_lines(planned))
    assert "6 steps of 8 pairs; an epoch has 3" in text
    assert f"fingerprint {planned.parts.fingerprint[:16]}: to do" in text
    assert "memory of a rank: about" in text
    assert "train.lr = 0.001" in text
    assert [entry.path for entry in store.find("")] == before
    train(recipe, store, "", QUIET)
    assert plan_training(recipe, store, "", lambda _: None).committed


def test_a_workdir_that_is_not_local(store, model):
    def remote():
        return Store("memory://train-test")

    far = remote()
    for entry in store.find(""):
        far.replace(entry.path, store.read(entry.path))
    said = []
    watcher = Watcher(said.append)
    done = train(recipe_of(model), far, "", watcher)
    assert sum("fetching train/pub11-train-0000.tar" in line for line in said) == 1
    (manifest,) = manifests(remote())
    here = train(recipe_of(model), store, "", QUIET)
    assert [output.sha256 for output in manifest.outputs] == [output.sha256 for output in manifests(store)[0].outputs]
    assert all(far.size(output.path) == output.bytes for output in manifest.outputs)
    assert far.size(f"{done.planned.folder}/log.jsonl")
    assert train(recipe_of(model), far, "", watcher).fitted is None
    assert here.fitted.complete
    # Another machine finds the checkpoint in the workdir, and tars it fetched are checked.
    (shard, _) = released_shards(far, CommitStore(far))
    (cached,) = at_hand(far, [shard], lambda _: None, check=True)
    cached.write_bytes(b"damaged")
    with pytest.raises(UserError, match="is not what"):
        at_hand(far, [shard], lambda _: None, check=True)
    assert not cached.exists()


SCRIPT = """
import sys
from manifests.recipe_files import parse_recipe
from manifests.store import Store
from pipeline.commands_train import run_train
from pathlib import Path
recipe = parse_recipe(Path(sys.argv[1]).read_text(), "test")
sys.exit(run_train(recipe, Store(sys.argv[2]), "", plan=False))
"""


def start(recipe, store, folder, **environment):
    (folder / "recipe.toml").write_text(dump_recipe(recipe))
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder / "recipe.toml"), store.uri],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def test_two_ranks_make_one_commit(store, model, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    started = [start(recipe_of(model), store, tmp_path, RANK=rank, LOCAL_RANK=rank, **meeting) for rank in "01"]
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert "trained 3 steps" in said[0]
    assert said[1] == ""
    (manifest,) = manifests(store)
    assert manifest.parts.profile["ranks"] == "2"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_with_a_checkpoint_and_the_next_run_goes_on(store, model, tmp_path, number, code):
    recipe = recipe_of(model, steps=15)
    with start(recipe, store, tmp_path) as process:
        for line in process.stderr:
            if line.startswith("step 3/15"):
                process.send_signal(number)
                break
        rest = process.stderr.read()
    assert process.returncode == code, rest
    assert "run the same command again to go on" in rest
    assert manifests(store) == []
    (folder,) = Path(store.uri, "train").iterdir()
    stopped = int(checkpoints(folder)[-1].name.rpartition("-")[2])
    assert 3 <= stopped < 15
    records = []
    done = train(recipe, store, "", Watcher(lambda _: None, record=records.append))
    assert done.fitted.complete
    assert [r["step"] for r in records if "loss" in r] == list(range(stopped + 1, 16))
    assert [r["step"] for r in read_log(folder / "log.jsonl") if "loss" in r] == list(range(1, 16))


def test_the_view_shows_rows_on_a_terminal_and_lines_elsewhere(store, model):
    for terminal in (True, False):
        out = io.StringIO()
        with TrainingView(Console(file=out, force_terminal=terminal, width=140)) as view:
            done = train(
                recipe_of(model, lr=1e-3 + terminal), store, "", Watcher(lambda _: None, view.planned, view.record)
            )
        text = out.getvalue()
        assert "24 pairs in 1 training tars" in text
        assert "step 0: 6 validation pairs: image_to_text_R@1" in text
        assert "3/3" in text
        assert ("step 2/3, epoch 0, loss " in text) is not terminal
        assert "trained 3 steps" in end_lines(done, store)[-1]


def test_the_recipe_of_georsclip():
    recipe = load_recipe("georsclip-b32")
    settings = recipe.train
    assert (settings.lr, settings.weight_decay, settings.batch, settings.epochs) == (1e-6, 0.5, 700, 20.0)
    assert (settings.model, settings.transform, recipe.name) == ("clip-vit-b-32", "georsclip", "rs5m")
    said = provenance("georsclip-b32")
    assert set(said) == {f"train.{name}" for name in Train.model_fields}
    assert set(said.values()) <= {"paper", "inferred", "ours"}

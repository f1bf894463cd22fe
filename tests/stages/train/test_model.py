import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from manifests.models import resolve
from stages.step import ModelMissingError
from stages.train.memory import estimate_memory
from stages.train.model import load_trainee
from tests.stages.train.tiny import MODEL, tiny_trainee


@pytest.fixture
def own(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "own")


def change(folder, edit):
    weights = load_file(folder / "open_clip_model.safetensors")
    edit(weights)
    save_file(weights, folder / "open_clip_model.safetensors")


def test_every_weight_is_the_files(folder):
    trainee = tiny_trainee(folder)
    state, weights = trainee.model.state_dict(), load_file(folder / "open_clip_model.safetensors")
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.items())
    assert all(p.requires_grad and p.dtype == torch.float32 for p in trainee.model.parameters())


def test_weights_of_the_wrong_shape_or_name_are_refused(own):
    change(own, lambda weights: weights.update({"visual.proj": torch.zeros(64, 32)}))
    with pytest.raises(ModelMissingError, match=r"train\.model = .*visual\.proj has shape"):
        tiny_trainee(own)
    change(own, lambda weights: weights.pop("visual.proj"))
    with pytest.raises(ModelMissingError, match=r"train\.model = .*missing"):
        tiny_trainee(own)


def test_a_folder_without_weights_is_refused_and_not_trained_from_scratch(own):
    (own / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelMissingError, match=r"train\.model = .*no weights"):
        tiny_trainee(own)


def test_weights_that_cannot_be_had_offline_say_what_to_do():
    with pytest.raises(ModelMissingError, match=r"train\.model = 'open_clip:ViT-B-32-quickgelu/openai'"):
        load_trainee(resolve("open_clip:ViT-B-32-quickgelu/openai", "train.model"))


def test_a_model_that_is_no_model_is_refused():
    with pytest.raises(ModelMissingError, match=r"train\.model = 'nano' has nothing to train"):
        load_trainee(resolve("nano", "train.model"))


def test_frozen_towers_do_not_wake_up(folder):
    trainee = tiny_trainee(folder, lock_image=True, lock_text=True)
    left = {name for name, p in trainee.model.named_parameters() if p.requires_grad}
    assert left == {"visual.proj", "text_projection", "logit_scale"}
    trainee.train_mode()
    assert trainee.model.training
    assert not trainee.model.visual.training
    assert not trainee.model.transformer.training


def text_tower(path):
    """Write the parts of a tiny transformers tower: its config and its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "river", "forest"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(path)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertConfig(vocab_size=len(words), max_position_embeddings=16, pad_token_id=0, **sizes).save_pretrained(path)


def test_a_checkpoint_with_a_transformers_tower_is_whole_wherever_it_lies(folder, tmp_path):
    import open_clip

    from stages.train.checkpoint import Progress, save_checkpoint
    from stages.train.loader import Position
    from stages.train.optimise import adamw

    made = tmp_path / "hf"
    made.mkdir()
    text_tower(made)
    config = {
        "embed_dim": 64,
        "vision_cfg": MODEL["vision_cfg"],
        "text_cfg": {
            "hf_model_name": str(made), "hf_tokenizer_name": str(made), "hf_model_pretrained": False,
            "hf_proj_type": "linear", "hf_pooler_type": "mean_pooler", "context_length": 16,
        },
    }  # fmt: skip
    vision = open_clip.CLIPVisionCfg(**config["vision_cfg"])
    text = open_clip.CLIPTextCfg(**config["text_cfg"])
    model = open_clip.CustomTextCLIP(embed_dim=64, vision_cfg=vision, text_cfg=text)
    save_file({n: t.contiguous() for n, t in model.state_dict().items()}, made / "open_clip_model.safetensors")
    (made / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    trainee = tiny_trainee(made)
    progress = Progress(1, (Position(),), {})
    saved = save_checkpoint(tmp_path / "out", trainee, adamw(trainee.model, 1e-3, 0.1), progress)
    shutil.rmtree(made)
    moved = saved.rename(tmp_path / "moved")
    assert str(tmp_path) not in (moved / "open_clip_config.json").read_text()
    again = tiny_trainee(moved)
    tokens = again.tokenizer(["river forest", "forest"])
    assert tokens.tolist() == trainee.tokenizer(["river forest", "forest"]).tolist()
    assert torch.equal(again.model.eval().encode_text(tokens), trainee.model.eval().encode_text(tokens))


def test_memory_is_weights_state_and_what_a_pair_keeps(folder):
    trainee = tiny_trainee(folder)
    found = estimate_memory(trainee, "fp32", 8)
    count = sum(p.numel() for p in trainee.model.parameters())
    assert (found.parameters, found.trainable, found.state) == (count, count, 16 * count)
    assert found.total == found.state + 8 * found.per_pair
    assert 50_000 < found.per_pair < 5_000_000
    locked = estimate_memory(tiny_trainee(folder, lock_image=True), "fp32", 8)
    assert locked.trainable < count
    assert locked.per_pair < found.per_pair

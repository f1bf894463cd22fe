import json
import shutil

import numpy as np
import pytest
from PIL import Image

from stages.caption.blip2 import Blip2
from stages.caption.captioner import Sampling, candidate_seed
from stages.encoder import Placement
from stages.step import ModelMissingError, OutOfMemoryError
from tests.stages.caption.tiny_blip2 import write_tiny_blip2

pytestmark = [
    pytest.mark.usefixtures("offline"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),  # peft's own call
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("blip2")
    write_tiny_blip2(path)
    return path


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3)).astype(np.uint8))


IMAGES = [(f"sample {seed}", picture(seed)) for seed in range(11)]


def blip2(folder, *, batch=8, prompt="", lora="", max_tokens=12, candidates=4, precision="fp32", **sampling):
    placement = Placement("cpu", "fp32", batch)
    object.__setattr__(placement, "precision", precision)  # a placement on the CPU has fp32: this is what a GPU does
    return Blip2(str(folder), lora, prompt, max_tokens, Sampling(2023, candidates, **sampling), placement)


def test_batches_of_one_and_of_eight_give_the_same_captions(folder):
    eights = blip2(folder, batch=8, candidates=20).candidates(IMAGES)
    ones = blip2(folder, batch=1, candidates=20).candidates(IMAGES)
    assert eights == ones
    assert [len(mine) for mine in eights] == [20] * len(IMAGES)
    assert len({candidate.text for mine in eights for candidate in mine}) > 200


def test_an_image_gets_the_same_in_any_company_and_order(folder):
    whole = blip2(folder).candidates(IMAGES)
    assert blip2(folder).candidates(IMAGES[7:2:-2]) == whole[7:2:-2]
    assert blip2(folder).candidates([]) == []


def test_captions_depend_on_picture_sample_and_seed(folder):
    one = picture(1)
    (first,), (same,), (renamed,), (other,) = (
        blip2(folder).candidates([image])
        for image in [("a", one), ("a", one.copy()), ("b", one), ("a", picture(2))]
    )  # fmt: skip
    assert first == same
    assert [candidate.seed for candidate in first] == [candidate_seed(2023, "a", number) for number in range(4)]
    assert {candidate.seed for candidate in renamed}.isdisjoint(candidate.seed for candidate in first)
    assert [candidate.text for candidate in renamed] != [candidate.text for candidate in first]
    assert [candidate.text for candidate in other] != [candidate.text for candidate in first]


@pytest.mark.parametrize("prompt", ["", "an aerial image of"])
def test_near_temperature_zero_it_is_the_models_own_greedy_caption_without_the_prompt(folder, prompt):
    from transformers import Blip2ForConditionalGeneration, Blip2Processor

    model = Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    processor = Blip2Processor.from_pretrained(folder)
    captions = set()
    for name, image in IMAGES:
        given = processor(images=image, text=prompt or None, return_tensors="pt")
        tokens = model.generate(**given, do_sample=False, max_new_tokens=12)
        theirs = processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
        assert theirs.startswith(prompt)
        (ours,) = blip2(folder, prompt=prompt, temperature=1e-6).candidates([(name, image)])
        assert {candidate.text for candidate in ours} == {theirs.removeprefix(prompt).strip()}
        captions.add(theirs)
    assert len(captions) > 2


def test_the_prompt_steers_and_the_length_is_bounded(folder):
    plain, prompted = (blip2(folder, prompt=prompt).candidates(IMAGES[:1]) for prompt in ("", "a photo of"))
    assert plain != prompted
    (short,) = blip2(folder, max_tokens=1, candidates=20).candidates(IMAGES[:1])
    assert max(len(candidate.text) for candidate in short) < 12
    assert len({candidate.text for candidate in short}) > 3


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_where_the_query_former_stays_in_full(folder, precision):
    captioner = blip2(folder, precision=precision, candidates=20)
    assert {str(weight.dtype) for weight in captioner._model.vision_model.parameters()} != {"torch.float32"}
    halves, whole = captioner.candidates(IMAGES[:2]), blip2(folder, candidates=20).candidates(IMAGES[:2])
    assert [[one.seed for one in mine] for mine in halves] == [[one.seed for one in mine] for mine in whole]
    # Rounded weights write mostly what the exact ones do.
    equal = sum(a == b for mine, theirs in zip(halves, whole, strict=True) for a, b in zip(mine, theirs, strict=True))
    assert equal > 10


def test_lora_weights_change_what_is_written(folder, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Blip2ForConditionalGeneration

    # The settings of the published fine-tuning.
    config = LoraConfig(
        r=16, lora_alpha=16, lora_dropout=0.05, bias="none", target_modules=["self_attn.qkv", "self_attn.projection"]
    )
    tuned = get_peft_model(Blip2ForConditionalGeneration.from_pretrained(folder), config)
    torch.manual_seed(1)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    tuned.save_pretrained(tmp_path)
    plain = blip2(folder).candidates(IMAGES[:2])
    assert blip2(folder, lora=str(tmp_path)).candidates(IMAGES[:2]) != plain
    assert blip2(folder).candidates(IMAGES[:2]) == plain
    shutil.move(tmp_path / "adapter_model.safetensors", tmp_path / "adapter_model.bin")
    with pytest.raises(ModelMissingError, match=r"caption\.lora = .* has no adapter_model\.safetensors"):
        blip2(folder, lora=str(tmp_path))


def test_lora_weights_of_another_model_are_refused(folder, tmp_path):
    from peft import LoraConfig, get_peft_model

    other = tmp_path / "other"
    wide = write_tiny_blip2(other, hidden_size=64, word_embed_proj_dim=64)
    config = LoraConfig(r=2, target_modules=["q_proj"])
    get_peft_model(wide, config).save_pretrained(tmp_path / "lora")
    with pytest.raises(ModelMissingError, match=r"caption\.lora = .* does not fit the model"):
        blip2(folder, lora=str(tmp_path / "lora"))


def weights_of(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def write_weights(folder, weights):
    from safetensors.torch import save_file

    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_that_lack_a_layer_are_refused(copy):
    weights = weights_of(copy)
    del weights["language_projection.weight"]
    write_weights(copy, weights)
    with pytest.raises(ModelMissingError, match=r"caption\.model.*lacks 1 of the model's weights.*language_projection"):
        blip2(copy)


def test_weights_of_the_wrong_shape_are_refused(copy):
    import torch

    write_weights(copy, weights_of(copy) | {"language_projection.weight": torch.zeros(3, 3)})
    with pytest.raises(ModelMissingError, match=r"caption\.model.*does not load as BLIP-2"):
        blip2(copy)


@pytest.mark.parametrize("body", [b"", b"no weights", None])
def test_weights_that_are_damaged_or_gone_are_refused(copy, body):
    file = copy / "model.safetensors"
    file.unlink() if body is None else file.write_bytes(body)
    with pytest.raises(ModelMissingError, match=r"caption\.model.*does not load as BLIP-2"):
        blip2(copy)


def test_pickled_weights_are_not_read(copy):
    import torch

    torch.save(weights_of(copy), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelMissingError, match="does not load as BLIP-2 in safetensors"):
        blip2(copy)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "clip"}, "is clip; wanted is a BLIP-2"),
        ({"use_decoder_only_language_model": False}, "wanted is a BLIP-2 with a decoder"),
        (None, r"no config\.json that can be read"),
    ],
)
def test_another_kind_of_model_is_refused(copy, change, words):
    file = copy / "config.json"
    config = file.read_text()
    file.write_text("{" if change is None else json.dumps(json.loads(config) | change))
    with pytest.raises(ModelMissingError, match=words):
        blip2(copy)


def test_out_of_memory_is_told_apart(folder, monkeypatch):
    import torch

    captioner = blip2(folder, batch=3, candidates=5)

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(captioner._model.vision_model), "forward", full)
    with pytest.raises(OutOfMemoryError, match=r"3 images x 5 candidates do not fit \(caption\.batch\)"):
        captioner.candidates(IMAGES[:1])

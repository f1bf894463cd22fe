import dataclasses
import io
import warnings

import numpy as np
import pytest
from PIL import Image

from manifests.models import resolve
from stages import torchvision_shim
from stages.encoder import Encoded, NotEncoded, Placement, load_encoder
from stages.open_clip_encoder import OpenClipEncoder
from stages.open_clip_load import load_towers
from stages.step import OutOfMemoryError
from tests.stages.tiny_models import tiny_model


def picture(seed, width=50, height=40):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def file_of(image, kind="PNG"):
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


PICTURES = [picture(seed, 30 + 7 * seed, 60 - 5 * seed) for seed in range(7)]
BODIES = [(f"p{place}", file_of(image)) for place, image in enumerate(PICTURES)]


@pytest.fixture(scope="module", params=["vit", "timm"])
def folder(request, tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny") / request.param, request.param)


@pytest.fixture
def encoder(folder):
    return load_encoder(f"local-dir:{folder}", Placement(batch=4), "k")


def towers_of(folder):
    spec = resolve(f"local-dir:{folder}", "k")
    return load_towers(spec, spec.digest, "cpu", "fp32")


def encoded(encoder, bodies=BODIES):
    found = dict(encoder.bodies(iter(bodies)))
    assert all(isinstance(one, Encoded) for one in found.values())
    return found


def test_numbers_are_those_of_plain_open_clip(folder, encoder):
    torchvision_shim.declare()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import open_clip
        import torch

        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["an aerial image of a port", "snow"])
    model.eval()
    with torch.inference_mode():
        pixels = torch.stack([preprocess(image) for image in PICTURES])
        images = model.encode_image(pixels, normalize=True).numpy()
        texts = model.encode_text(tokens, normalize=True).numpy()
        before = model.visual.trunk(pixels) if hasattr(model.visual, "trunk") else model.encode_image(pixels)
    found = encoded(encoder)
    assert np.stack([one.embedding for one in found.values()]) == pytest.approx(images, abs=2e-6)
    assert np.stack([one.trunk for one in found.values()]) == pytest.approx(before.numpy(), abs=1e-5)
    assert encoder.pictures(PICTURES) == pytest.approx(images, abs=2e-6)
    assert encoder.texts(["an aerial image of a port", "snow"]) == pytest.approx(texts, abs=2e-6)


def test_unit_vectors_in_float32(encoder):
    found = encoded(encoder)
    assert encoder.dimensions == 16
    for one in found.values():
        assert one.embedding.shape == (16,)
        assert one.embedding.dtype == one.trunk.dtype == np.float32
        assert np.linalg.norm(one.embedding) == pytest.approx(1, abs=1e-6)
    assert encoder.pictures([]).shape == encoder.texts([]).shape == (0, 16)
    assert list(encoder.bodies([])) == []


def test_numbers_do_not_depend_on_how_full_a_batch_is(encoder):
    whole = encoded(encoder)
    for count in (1, 3, 4, 5):
        part = encoded(encoder, BODIES[:count])
        assert all(np.array_equal(part[key].embedding, whole[key].embedding) for key in part)
        assert all(np.array_equal(part[key].trunk, whole[key].trunk) for key in part)
    assert np.array_equal(encoder.texts(["a", "b", "c", "d", "e"])[:2], encoder.texts(["a", "b"]))


def test_order_is_kept_and_bad_pictures_take_no_place(encoder):
    bad = [("empty", b""), ("text", b"no picture"), ("cut", BODIES[0][1][:80])]
    mixed = [bad[0], *BODIES[:2], bad[1], *BODIES[2:], bad[2]]
    found = list(encoder.bodies(iter(mixed)))
    assert [key for key, _ in found] == [key for key, _ in mixed]
    alone = encoded(encoder)
    for key, one in found:
        if key in alone:
            assert np.array_equal(one.embedding, alone[key].embedding)
        else:
            assert isinstance(one, NotEncoded)
            assert one.detail
    only_bad = list(encoder.bodies([(n, b"") for n in range(20)]))
    assert only_bad == [(n, NotEncoded("0 bytes")) for n in range(20)]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_is_taken(encoder, mode):
    image = (
        Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40))
        if mode == "I;16"
        else PICTURES[0].convert(mode)
    )
    found = encoded(encoder, [("a", file_of(image, "TIFF"))])
    assert np.isfinite(found["a"].embedding).all()


def test_odd_shapes_are_taken(encoder):
    shapes = [(1, 1), (1, 3000), (3000, 1), (2, 500)]
    found = encoded(encoder, [(shape, file_of(picture(1, *shape))) for shape in shapes])
    assert all(np.isfinite(one.embedding).all() for one in found.values())


def test_any_text_is_taken(encoder):
    texts = ["", "word " * 3000, "вид сверху на порт", "航拍图像", "🛰️ \x00 \n", "<end_of_text> <start_of_text>"]
    rows = encoder.texts(texts)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(texts)), abs=1e-5)
    assert np.array_equal(encoder.texts(["word " * 3000]), encoder.texts(["word " * 40]))


def test_decoding_runs_ahead_but_not_away(encoder):
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield taken[-1], BODIES[0][1]

    coming = encoder.bodies(endless())
    assert [next(coming)[0] for _ in range(9)] == list(range(9))
    assert 9 < len(taken) <= 9 + 6 * 4
    coming.close()


def test_an_error_of_the_source_comes_through(encoder):
    def breaking():
        yield BODIES[0]
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        list(encoder.bodies(breaking()))


SAID_OF_MEMORY = (
    "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate",
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate",
)


@pytest.mark.parametrize("said", ["", *SAID_OF_MEMORY, "shapes cannot be multiplied"])
def test_out_of_memory_is_told_apart(folder, said):
    import torch

    towers = towers_of(folder)

    class Full(torch.nn.Module):
        def encode_image(self, _):
            raise RuntimeError(said) if said else torch.OutOfMemoryError("no room")

        def encode_text(self, tokens):
            return torch.ones(len(tokens), 3)

    full = Full()
    full.visual = torch.nn.Identity()
    encoder = OpenClipEncoder(dataclasses.replace(towers, model=full), 4)
    kind, words = (RuntimeError, "shapes") if "shapes" in said else (OutOfMemoryError, "a batch of 4")
    with pytest.raises(kind, match=words):
        list(encoder.bodies(BODIES))
    with pytest.raises(kind, match=words):
        encoder.pictures(PICTURES)


def test_nan_comes_through_as_nan(folder):
    import torch

    towers = towers_of(folder)

    class Broken(torch.nn.Module):
        def encode_image(self, pixels):
            rows = torch.ones(len(pixels), 3)
            rows[1] = torch.nan
            return rows

        def encode_text(self, tokens):
            return torch.ones(len(tokens), 3)

    broken = Broken()
    broken.visual = torch.nn.Identity()
    encoder = OpenClipEncoder(dataclasses.replace(towers, model=broken), 8)
    found = [one.embedding for _, one in encoder.bodies(BODIES)]
    assert [bool(np.isnan(row).all()) for row in found] == [False, True, *[False] * 5]


def test_a_preprocessing_of_another_kind_is_used_whole(folder, encoder):
    towers = towers_of(folder)
    whole = dataclasses.replace(towers, preprocess=lambda image: towers.preprocess(image))
    rows = OpenClipEncoder(whole, 4).pictures(PICTURES)
    assert rows == pytest.approx(encoder.pictures(PICTURES), abs=1e-6)


def test_the_cpu_computes_on_one_thread(encoder):
    import torch

    assert encoder.dimensions
    assert torch.get_num_threads() == 1


def test_memory_short_for_a_picture_is_never_recorded_of_it(encoder, monkeypatch):
    def short(*_, **__):
        raise MemoryError

    monkeypatch.setattr(encoder, "_prepare", short)
    with pytest.raises(OutOfMemoryError):
        list(encoder.bodies(BODIES))
    with pytest.raises(OutOfMemoryError):
        encoder.pictures(PICTURES)
    monkeypatch.undo()
    monkeypatch.setattr("stages.pictures._rgb", short)
    with pytest.raises(OutOfMemoryError):
        list(encoder.bodies(BODIES))

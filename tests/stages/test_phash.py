import os
from pathlib import Path

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from stages.decode import decode
from stages.phash import phash, phash_d4, texture

PICTURES = hnp.arrays(np.uint8, (32, 32))
X, Y = np.mgrid[0:32, 0:32]


def reference(picture):
    return int(str(imagehash.phash(picture)), 16)


def turned(luma, index):
    return np.ascontiguousarray(np.rot90(np.fliplr(luma) if index >= 4 else luma, index % 4))


def many(kind, count=700):
    draw = np.random.default_rng(7)
    for k in range(count):
        if kind == "random":
            yield draw.integers(0, 256, (32, 32)).astype(np.uint8)
        elif kind == "flat":
            yield np.full((32, 32), k % 256, np.uint8)
        elif kind == "gradient":
            a, b, c = draw.uniform(-8, 8), draw.uniform(-8, 8), draw.uniform(0, 255)
            yield np.clip(X * a + Y * b + c, 0, 255).astype(np.uint8)
        elif kind == "stripes":
            yield (X * (k % 9) % 256).astype(np.uint8)
        elif kind == "black and white":
            yield (draw.random((32, 32)) < draw.random()).astype(np.uint8) * 255
        elif kind == "blocks":
            yield np.kron(draw.integers(0, 256, (4, 4)), np.ones((8, 8))).astype(np.uint8)
        else:
            coarse = Image.fromarray(draw.integers(0, 256, (7, 7)).astype(np.uint8))
            fine = np.asarray(coarse.resize((32, 32), Image.Resampling.BICUBIC)).astype(float)
            yield np.clip(fine + draw.normal(0, 9, fine.shape), 0, 255).astype(np.uint8)


KINDS = ["random", "flat", "gradient", "stripes", "black and white", "blocks", "photo-like"]


@pytest.mark.parametrize("kind", KINDS)
def test_equals_imagehash_bit_for_bit(kind):
    assert all(phash(luma) == reference(Image.fromarray(luma)) for luma in many(kind))


@given(PICTURES)
def test_equals_imagehash_on_any_picture(luma):
    assert phash(luma) == reference(Image.fromarray(luma))


@pytest.mark.parametrize("kind", ["random", "flat", "stripes", "black and white", "photo-like"])
def test_turned_hashes_equal_hashing_the_turned_picture(kind):
    for luma in many(kind, 150):
        assert phash_d4(luma) == tuple(phash(turned(luma, index)) for index in range(8))


@pytest.mark.parametrize("kind", ["gradient", "blocks"])
def test_turned_hashes_of_symmetric_pictures_agree_to_within_rounding(kind):
    # Frequencies that are 0 but for rounding lie on the median or beside it; which side depends on the order of sums.
    for luma in many(kind, 150):
        for index, ours in enumerate(phash_d4(luma)):
            assert (ours ^ phash(turned(luma, index))).bit_count() <= 16


@given(PICTURES)
def test_first_turn_is_the_picture_itself(luma):
    hashes = phash_d4(luma)
    assert len(hashes) == 8
    assert hashes[0] == phash(luma)


def test_turning_twice_is_a_group_action():
    luma = next(iter(many("random", 1)))
    assert sorted(phash_d4(turned(luma, 3))) == sorted(phash_d4(luma))
    assert len(set(phash_d4(luma))) == 8


@pytest.mark.parametrize("folder", ["rs-pairs", "photos"])
def test_equals_imagehash_on_real_pictures(folder):
    root = os.environ.get("RS5M_TEST_DATA")
    if not root or not Path(root, folder).is_dir():
        pytest.skip(f"RS5M_TEST_DATA names no folder with {folder}/: real pictures are not compared")
    for file in sorted(Path(root, folder).rglob("*.jpg"))[::5]:
        luma = decode(file.read_bytes(), 10**8).luma32
        with Image.open(file) as image:
            assert phash(luma) == reference(image), file.name
        assert phash_d4(luma) == tuple(phash(turned(luma, index)) for index in range(8)), file.name


def test_refuses_another_shape():
    with pytest.raises(ValueError, match="32 x 32"):
        phash(np.zeros((16, 16), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        phash_d4(np.zeros((32, 32), np.float32))


def test_texture_of_known_pictures():
    assert texture(np.full((16, 16), 200, np.uint8)) == 0.0
    half = np.zeros((16, 16), np.uint8)
    half[:8] = 255
    assert texture(half) == 127.5


@given(hnp.arrays(np.uint8, (16, 16)), st.randoms(use_true_random=False))
def test_texture_is_the_standard_deviation_in_any_order(thumbnail, shuffler):
    pixels = thumbnail.ravel().tolist()
    shuffler.shuffle(pixels)
    assert texture(np.array(pixels, np.uint8)) == texture(thumbnail)
    assert texture(thumbnail) == pytest.approx(float(thumbnail.astype(np.float64).std()), abs=1e-4)
    assert np.float32(texture(thumbnail)) == texture(thumbnail)

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.pictures import PictureError, open_picture

GRADIENT = np.linspace(0, 255, 40 * 30, dtype=np.uint8).reshape(30, 40)


def file_of(image, kind="PNG", **told):
    out = io.BytesIO()
    image.save(out, kind, **told)
    return out.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr", "LAB"])
def test_every_mode_becomes_rgb(mode):
    if mode in ("I;16", "I", "F"):
        kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
        image = Image.fromarray(GRADIENT.astype(kinds[mode]))
    else:
        image = Image.fromarray(GRADIENT).convert("RGB").convert(mode)
    picture = open_picture(file_of(image, "TIFF"))
    assert (picture.mode, picture.size) == ("RGB", (40, 30))


def test_a_palette_with_transparency_in_bytes_does_not_warn():
    image = Image.fromarray(GRADIENT).convert("P")
    assert open_picture(file_of(image, transparency=bytes(range(256)))).mode == "RGB"


def test_alpha_is_dropped():
    image = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert open_picture(file_of(image)).getpixel((0, 0)) == (10, 20, 30)


def test_deep_grey_keeps_its_upper_bits():
    levels = np.array([[0, 255, 256, 65_535]], dtype=np.uint16)
    grey = np.asarray(open_picture(file_of(Image.fromarray(levels))))[:, :, 0]
    assert grey.tolist() == [[0, 0, 1, 255]]


def test_floats_are_grey_levels_and_never_crash():
    levels = np.array([[-5.0, 17.4, 1e30, np.nan, np.inf]], dtype=np.float32)
    grey = np.asarray(open_picture(file_of(Image.fromarray(levels), "TIFF")))[:, :, 0]
    assert grey.tolist() == [[0, 17, 255, 0, 255]]


def test_the_exif_turn_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_picture(file_of(Image.fromarray(GRADIENT), "JPEG", exif=exif)).size == (40, 30)


def test_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    body = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_picture(body).getpixel((0, 0)) == (255, 0, 0)


def test_a_line_of_pixels_is_cut_to_its_middle():
    line = np.zeros((1, 5001, 3), dtype=np.uint8)
    line[0, 2500] = 255
    picture = open_picture(file_of(Image.fromarray(line)))
    assert picture.size == (32, 1)
    assert np.asarray(picture).max() == 255
    assert open_picture(file_of(Image.fromarray(line.transpose(1, 0, 2).copy()))).size == (1, 32)
    assert open_picture(file_of(Image.new("RGB", (320, 10)))).size == (320, 10)


def bomb():
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "0 bytes"),
        (b"<html>", "header"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "header"),
        (file_of(Image.fromarray(GRADIENT), "PNG")[:60], "OSError|SyntaxError"),
        (bomb(), "DecompressionBomb"),
    ],
)
def test_what_is_no_picture(body, said):
    with pytest.raises(PictureError, match=said) as caught:
        open_picture(body)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isascii()


WHOLE = [file_of(Image.fromarray(GRADIENT), kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(WHOLE), st.data())
def test_damage_is_an_rgb_picture_or_a_reason(whole, data):
    body = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PictureError):
        assert open_picture(bytes(body[: data.draw(st.integers(1, len(body)))])).mode == "RGB"

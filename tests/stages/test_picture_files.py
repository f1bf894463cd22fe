"""Memory that runs out is never recorded of a picture, but for a header that asks for it."""

import contextlib
import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features

from stages.decode import DecodeError, decode
from stages.geotiff import BandError, read_band
from stages.picture_files import FORMATS, PictureFileError, codec_versions, open_guarded
from stages.pictures import PictureError, open_picture
from stages.step import OutOfMemoryError

ROOT = Path(__file__).parents[2]


def file_of(image, kind):
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


BODIES = {kind: file_of(Image.linear_gradient("L").convert("RGB").resize((40, 30)), kind) for kind in FORMATS}
BAND = file_of(Image.fromarray(np.arange(144, dtype=np.uint16).reshape(12, 12)), "TIFF")


@pytest.fixture
def no_memory(monkeypatch):
    """Pixels for which there is no memory."""

    def short(*_, **__):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", short)
    monkeypatch.setattr(Image.core, "new", short)
    monkeypatch.setattr(Image.core, "fill", short)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF"])
def test_no_memory_for_the_pixels_is_not_the_pictures_fault(no_memory, kind):
    with pytest.raises(MemoryError):
        decode(BODIES[kind], 10**6)
    with pytest.raises(OutOfMemoryError, match=f"{len(BODIES[kind])} bytes"):
        open_picture(BODIES[kind])


def test_no_memory_for_a_band_is_not_its_fault(no_memory):
    with pytest.raises(MemoryError):
        read_band(BAND)


def test_a_header_that_takes_all_memory_is_damage(monkeypatch):
    def lying(*_, **__):
        raise MemoryError

    for body, call, kind in (
        (BODIES["PNG"], lambda body: decode(body, 10**6), DecodeError), (BODIES["PNG"], open_picture, PictureError),
        (BAND, read_band, BandError),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(Image, "open", lying)
            with pytest.raises(kind, match="MemoryError"):
                call(body)


STARVED = """
import io, resource
from pathlib import Path
from PIL import Image
from stages.decode import DecodeError, decode
bodies = []
for kind, options in (("BMP", {}), ("TIFF", {}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("WEBP", {"exif": b"x"})):
    out = io.BytesIO()
    Image.new("RGB", (5000, 5000), "red").save(out, kind, **options)
    bodies.append(out.getvalue())
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20),) * 2)
for body in [*bodies, bodies[2][:40], bodies[2][:12] + bytes(100)]:
    try:
        print(decode(body, 10**9).width)
    except (DecodeError, MemoryError) as error:
        print(type(error).__name__)
"""


def test_a_process_that_is_really_short_of_memory_blames_no_picture():
    done = subprocess.run(
        [sys.executable, "-c", STARVED], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    *short, cut, empty = done.stdout.split()
    assert "DecodeError" not in short
    assert short.count("MemoryError") >= 3  # memory that was freed before the limit may do for one
    assert (cut, empty) == ("MemoryError", "DecodeError")  # a cut one is blamed once there is memory again
    with pytest.raises(DecodeError):
        decode(BODIES["WEBP"][:40], 10**6)


def huge_tiles():
    """A TIFF of 64 x 64 pixels whose tiles are said to have 2^30 x 2^30."""
    tags = [(256, 64), (257, 64), (258, 8), (259, 5), (262, 1), (277, 1), (322, 1 << 30), (323, 1 << 30), (324, 8),
            (325, 4)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)


def test_lies_about_tiles_are_damage():
    with pytest.raises(DecodeError) as caught:
        decode(huge_tiles(), 10**6)
    assert caught.value.reason == "dedup.undecodable"


@settings(max_examples=400, deadline=None)
@given(st.integers(8, 200), st.binary(min_size=1, max_size=6), st.sampled_from([BAND, *BODIES.values()]))
def test_no_damage_looks_like_memory_that_ran_out(at, noise, whole):
    body = whole[:at] + noise + whole[at + len(noise) :]
    with contextlib.suppress(PictureFileError):
        decode(body, 10**8)
    with contextlib.suppress(PictureFileError):
        open_picture(body)
    with contextlib.suppress(PictureFileError):
        read_band(body)


def test_what_is_refused_inside_passes_and_what_breaks_inside_is_damage():
    refusal = BandError("mine")
    with pytest.raises(BandError) as caught, open_guarded(BODIES["PNG"]):
        raise refusal
    assert caught.value is refusal
    with pytest.raises(PictureFileError, match="KeyError: 'gone'"), open_guarded(BODIES["PNG"]):
        raise KeyError("gone")


def test_the_codecs_name_the_library_behind_jpegs():
    found = codec_versions()
    assert list(found) == ["jpg", "libjpeg_turbo", "libtiff", "webp", "zlib"]
    assert found["webp"] == features.version("webp")
    assert all(found.values())

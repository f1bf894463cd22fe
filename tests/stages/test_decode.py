import io
import os
import struct
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, TiffImagePlugin

from stages.decode import Decoded, DecodeError, decode
from stages.picture_files import FORMATS

LIMIT = 1_000_000
REASONS = {"dedup.empty", "dedup.too_many_pixels", "dedup.undecodable"}


def picture(width=60, height=45, mode="RGB"):
    draw = np.random.default_rng(width * height)
    coarse = Image.fromarray(draw.integers(0, 256, (6, 8, 3)).astype(np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encode(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def geotagged(lat=(41, 30, 0), lon=(2, 15, 36), refs=("N", "W"), orientation=6):
    rational = TiffImagePlugin.IFDRational
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.IFD.GPSInfo] = {
        1: refs[0], 2: tuple(map(rational, lat)), 3: refs[1], 4: tuple(map(rational, lon))
    }  # fmt: skip
    return exif


BODIES = {kind: encode(picture(), kind) for kind in FORMATS}
BODIES["gray16"] = encode(Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27), "PNG")
BODIES["palette"] = encode(picture(mode="P"), "PNG", transparency=bytes(range(256)))
BODIES["cmyk"] = encode(picture(mode="CMYK"), "JPEG")
BODIES["rgba"] = encode(picture(mode="RGBA"), "PNG")
BODIES["bilevel"] = encode(picture(mode="1"), "TIFF", compression="group4")
BODIES["progressive"] = encode(picture(), "JPEG", progressive=True)
BODIES["geotagged"] = encode(picture(), "JPEG", exif=geotagged())
BODIES["png with exif"] = encode(picture(), "PNG", exif=geotagged())
BODIES["animation"] = encode(
    picture(), "GIF", save_all=True, append_images=[picture().rotate(180), picture().rotate(90)]
)
BODIES["pages"] = encode(picture(), "TIFF", save_all=True, append_images=[picture(20, 20)])
BODIES["turned tiff"] = encode(picture(), "TIFF", exif=geotagged().tobytes())


def failure(body, max_pixels=LIMIT, **options):
    with pytest.raises(DecodeError) as caught:
        decode(body, max_pixels, **options)
    assert caught.value.reason in REASONS
    assert caught.value.detail.isascii()
    assert caught.value.detail.isprintable()
    assert 0 < len(caught.value.detail) <= 200
    return caught.value


@pytest.mark.parametrize("name", sorted(BODIES))
def test_grey_copies_are_what_imagehash_would_see(name):
    decoded = decode(BODIES[name], LIMIT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(BODIES[name])) as image:
            grey = image.convert("L")
    assert np.array_equal(decoded.luma32, np.asarray(grey.resize((32, 32), Image.Resampling.LANCZOS)))
    assert np.array_equal(decoded.thumbnail, np.asarray(grey.resize((16, 16), Image.Resampling.BOX)))
    assert decoded.luma32.dtype == decoded.thumbnail.dtype == np.uint8


def test_facts_of_a_picture():
    decoded = decode(BODIES["cmyk"], LIMIT)
    assert (decoded.width, decoded.height, decoded.mode, decoded.frames) == (60, 45, "CMYK", 1)
    assert (decoded.exif_orientation, decoded.exif_lon, decoded.exif_lat) == (0, None, None)
    assert decode(BODIES["gray16"], LIMIT).mode == "I;16"
    assert decode(BODIES["animation"], LIMIT).frames == 3
    assert decode(BODIES["pages"], LIMIT).frames == 2


@pytest.mark.parametrize("name", ["geotagged", "png with exif", "turned tiff"])
def test_exif_is_read_and_not_applied(name):
    decoded = decode(BODIES[name], LIMIT)
    assert decoded.exif_orientation == 6
    assert (decoded.exif_lat, decoded.exif_lon) == pytest.approx((41.5, -2.26))


@pytest.mark.parametrize(
    "changed",
    [
        {"lat": (91, 0, 0)}, {"lat": (90, 0, 1)}, {"lon": (180, 0, 1)}, {"lat": (41, 60, 0)}, {"lat": (41, 0, 60)},
        {"lat": (41, 30)}, {"refs": ("X", "W")}, {"refs": ("N", "")}, {"refs": ("NS", "W")},
        {"lat": (TiffImagePlugin.IFDRational(0, 0), 0, 0)},
    ],
)  # fmt: skip
def test_malformed_gps_counts_as_absent(changed):
    decoded = decode(encode(picture(), "JPEG", exif=geotagged(**changed)), LIMIT)
    assert (decoded.exif_lat, decoded.exif_lon) == (None, None)
    assert decoded.exif_orientation == 6


@pytest.mark.parametrize("orientation", [0, 9, 700])
def test_unknown_orientation_counts_as_absent(orientation):
    assert decode(encode(picture(), "JPEG", exif=geotagged(orientation=orientation)), LIMIT).exif_orientation == 0


def test_damaged_exif_does_not_fail_the_picture():
    exif = geotagged().tobytes()
    for cut in range(6, len(exif), 3):
        body = encode(picture(), "JPEG", exif=exif[:cut] + b"\xff" * (len(exif) - cut))
        assert decode(body, LIMIT).width == 60


def test_nothing_is_empty():
    assert failure(b"").reason == "dedup.empty"


@pytest.mark.parametrize("body", [b"\0", b"<html>404</html>", b"GIF89a", b"\xff\xd8\xff", b"%PDF-1.7" * 50])
def test_no_picture_is_undecodable(body):
    assert failure(body).reason == "dedup.undecodable"


def test_formats_that_are_not_listed_are_undecodable():
    error = failure(encode(picture(), "PPM"))
    assert error.reason == "dedup.undecodable"
    assert "JPEG, PNG, WEBP" in error.detail


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_pictures_fail(name, share, fast):
    body = encode(picture(200, 150), name)
    assert failure(body[: int(len(body) * share)], fast=fast).reason == "dedup.undecodable"


@pytest.mark.parametrize("name", sorted(BODIES))
def test_what_is_decoded_fast_has_the_same_facts_and_nearly_the_same_copies(name):
    exact, fast = (decode(BODIES[name], LIMIT, fast=fast) for fast in (False, True))
    small = {"luma32", "thumbnail"}
    for field in set(Decoded.__slots__) - small:
        assert getattr(fast, field) == getattr(exact, field)
    for field in small:
        off = np.abs(getattr(fast, field).astype(int) - getattr(exact, field))
        assert off.mean() < 4


@pytest.mark.parametrize("size", [(97, 96), (191, 193), (1023, 769), (400, 2000), (3000, 90), (7, 900)], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_large_jpegs_decoded_fast_are_whole_and_not_shifted(size, mode):
    body = encode(picture(*size, mode), "JPEG", quality=90)
    exact, fast = (decode(body, 10**7, fast=fast) for fast in (False, True))
    assert (fast.width, fast.height, fast.mode) == (*size, mode if mode != "RGB" else exact.mode)
    for field in ("luma32", "thumbnail"):
        off = getattr(fast, field).astype(int) - getattr(exact, field)
        assert abs(off.mean()) < 1
        assert np.abs(off).mean() < 3
    for share in (0.3, 0.9):
        assert failure(body[: int(len(body) * share)], 10**7, fast=True).reason == "dedup.undecodable"


def test_too_many_pixels_by_the_header_alone():
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", 0x8A1B2C3D)
    bomb = encode(picture(2000, 2, "L"), "PNG")
    assert failure(bomb, 3_999).reason == "dedup.too_many_pixels"
    assert decode(bomb, 4_000).width == 2_000
    cut = encode(picture(200, 150), "JPEG")[:1_000]
    assert failure(cut, 29_999).reason == "dedup.too_many_pixels", "asked before any pixel is decoded"
    assert failure(b"\x89PNG\r\n\x1a\n" + chunk).reason in {"dedup.too_many_pixels", "dedup.undecodable"}


def test_pillows_own_limit_counts_as_too_many_pixels():
    body = bytearray(BODIES["BMP"])
    body[18:26] = struct.pack("<ii", 20_000, 20_000)
    error = failure(bytes(body), 10**12)
    assert error.reason == "dedup.too_many_pixels"


def test_frames_of_an_animation_count_and_pages_do_not():
    assert failure(BODIES["animation"], 60 * 45 * 3 - 1).reason == "dedup.too_many_pixels"
    assert decode(BODIES["animation"], 60 * 45 * 3).frames == 3
    assert decode(BODIES["pages"], 60 * 45).frames == 2


def test_details_are_equal_for_equal_bytes():
    for body in (b"junk", BODIES["PNG"][:90], BODIES["TIFF"][:500], BODIES["WEBP"][:100]):
        assert failure(body).detail == failure(bytes(bytearray(body))).detail


def test_warnings_neither_leak_nor_raise_in_any_thread():
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        inside = list(warnings.filters)

        def work():
            for _ in range(30):
                decode(BODIES["palette"], LIMIT)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert list(warnings.filters) == inside
    assert seen == []
    assert list(warnings.filters) == before


def decodes_or_says_why(body):
    try:
        decoded = decode(body, LIMIT)
    except DecodeError as error:
        return error.reason in REASONS and len(error.detail) <= 200
    return decoded.luma32.shape == (32, 32) and decoded.width * decoded.height <= LIMIT


@given(st.binary(max_size=300), st.sampled_from([b"", *(BODIES[kind][:26] for kind in FORMATS)]))
@example(b"", b"")
@settings(max_examples=300, deadline=None)
def test_any_bytes_decode_or_fail_with_a_reason(body, start):
    assert decodes_or_says_why(start + body)


@given(
    st.sampled_from(sorted(BODIES)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
)
@settings(max_examples=600, deadline=None)
def test_damaged_pictures_decode_or_fail_with_a_reason(name, damage):
    body = bytearray(BODIES[name])
    for where, value in damage:
        body[int(where * min(len(body), 4_000))] = value
    assert decodes_or_says_why(bytes(body))


@pytest.mark.parametrize("folder", ["rs-pairs", "photos", "cc-photos"])
def test_real_pictures_decode(folder):
    root = os.environ.get("RS5M_TEST_DATA")
    if not root or not Path(root, folder).is_dir():
        pytest.skip(f"RS5M_TEST_DATA names no folder with {folder}/: real pictures are not decoded")
    for file in sorted(Path(root, folder).rglob("*.jpg"))[::9]:
        decoded = decode(file.read_bytes(), 10**8)
        with Image.open(file) as image:
            assert (decoded.width, decoded.height, decoded.mode) == (*image.size, image.mode)

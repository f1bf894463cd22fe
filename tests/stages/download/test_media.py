"""What a body is, told from its bytes."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stages.download.media import HEAD_BYTES, describe, sniff
from stages.images import EXTENSIONS


def encoded(format_name: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (200, 10, 30)).save(buffer, format_name)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("format_name", "media"),
    [("JPEG", "jpeg"), ("PNG", "png"), ("WEBP", "webp"), ("GIF", "gif"), ("BMP", "bmp"), ("TIFF", "tiff")],
)
def test_real_encodings_are_told_from_the_head_alone(format_name: str, media: str) -> None:
    body = encoded(format_name)
    assert sniff(body[:HEAD_BYTES]) == media
    assert describe(body) == media.upper()


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "nothing"),
        (b"\n\n <!-- hi --><HTML><body>", "HTML"),
        (b"\xef\xbb\xbf<!DOCTYPE html>", "HTML"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
        (b'{"error": "gone"}', "JSON"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x1cftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x1cftypisom\0\0\0\0", "ISO media (video)"),
        (b"BMW makes cars, not bitmaps", "text"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "unknown bytes 52494646"),
        (b"\x01\x02\x03\x04", "unknown bytes 01020304"),
    ],
)
def test_what_is_no_image_is_described(head: bytes, words: str) -> None:
    assert sniff(head) is None
    assert describe(head) == words


@given(st.binary(max_size=80))
def test_any_bytes_have_a_verdict(head: bytes) -> None:
    media = sniff(head)
    assert media is None or media in EXTENSIONS
    assert describe(head)


def test_every_media_type_has_an_extension() -> None:
    assert EXTENSIONS["jpeg"] == "jpg"
    assert EXTENSIONS["empty"] == "bin"

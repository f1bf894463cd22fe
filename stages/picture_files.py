"""Opening picture files that strangers sent: whatever Pillow raises on damage becomes one refusal with one line.

Pillow does the decoding, with its own guards left on: truncated files fail, metadata is bounded as Pillow bounds it,
and a header that promises more than about 179 million pixels is refused before anything is decoded.
"""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image, UnidentifiedImageError, features

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, RuntimeError,
    struct.error, zlib.error,
)  # fmt: skip
"""What Pillow's parsers and codecs were seen to raise on damaged input. Pillow names no common ancestor."""

# The JPEG library says 6.2 of itself, whatever libjpeg-turbo it is: both are asked for.
_CODECS = ("jpg", "libjpeg_turbo", "libtiff", "webp", "zlib")
_DETAIL_BYTES = 200
_WEBP_HEADER_BYTES = 30


class PictureFileError(ValueError):
    """A body that is no picture this project takes.

    Attributes:
        detail: What was wrong: one line of printable ASCII, at most 200 bytes, equal for equal bytes.
        too_large: Whether it has too many pixels for Pillow's own limit.
    """

    def __init__(self, detail: str, *, too_large: bool = False) -> None:
        self.detail = _one_line(detail)
        self.too_large = too_large
        super().__init__(self.detail)


@contextmanager
def open_guarded(body: bytes, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """Open a picture file; damage that shows only when its pixels are read inside is refused alike.

    Memory that runs out while the header is parsed is blamed on the header, which may lie. Afterwards the size is
    known and bounded, so that it is the machine which is short of memory: that goes up as it is, and must never be
    recorded of the picture. A WEBP's pixels have their memory before its size is known to Pillow; see
    `_webp_lacks_memory`.

    Args:
        body: The file.
        formats: Pillow's names of the formats that are taken.

    Raises:
        PictureFileError: No header of these formats, too large for Pillow's limit, or damaged. Refusals of this kind
            that are raised inside pass unchanged.
        MemoryError: The machine's memory did not hold the pixels.
    """
    with pillow_warnings_off():
        try:
            with _refused(formats):
                image = Image.open(io.BytesIO(body), formats=formats)
        except MemoryError as error:
            raise PictureFileError(f"MemoryError: {error}") from error
        except PictureFileError:
            if _webp_lacks_memory(body):
                raise MemoryError("no memory for the canvas of a WEBP") from None
            raise
        with _refused(formats), image:
            yield image


def codec_versions() -> dict[str, str]:
    """Return the versions of the libraries that decode pictures: what decoded pixels depend on beside Pillow's own."""
    return {name: str(features.version(name) or "absent") for name in _CODECS}


@contextmanager
def _refused(formats: tuple[str, ...]) -> Iterator[None]:
    try:
        yield
    except PictureFileError:
        raise
    except UnidentifiedImageError:  # its text holds a memory address
        raise PictureFileError(f"no {', '.join(formats)} header that can be read") from None
    except Image.DecompressionBombError as error:
        raise PictureFileError(f"DecompressionBombError: {error}", too_large=True) from error
    except DAMAGED as error:
        raise PictureFileError(f"{type(error).__name__}: {error}") from error


def _webp_lacks_memory(body: bytes) -> bool:
    """Whether there is no memory for the canvas of a WEBP that did not open: libwebp says the same of damage.

    Canvas sizes are where RFC 9649, sections 2.5 to 2.7, puts them; libwebp keeps two canvases of 4 bytes a pixel.
    """
    if body[:4] != b"RIFF" or body[8:12] != b"WEBP" or len(body) < _WEBP_HEADER_BYTES:
        return False
    kind, number = body[12:16], int.from_bytes
    if kind == b"VP8X":
        width, height = number(body[24:27], "little") + 1, number(body[27:30], "little") + 1
    elif kind == b"VP8L":
        bits = number(body[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = number(body[26:28], "little") & 0x3FFF, number(body[28:30], "little") & 0x3FFF
    if width * height > 2 * (Image.MAX_IMAGE_PIXELS or 0):
        return False  # Pillow would refuse it as too large: such a header may as well lie
    try:
        bytearray(2 * 4 * width * height)
    except MemoryError:
        return True
    return False


def _one_line(text: str) -> str:
    """Text for a ledger: no memory addresses, no control characters, ASCII, bounded."""
    text = re.sub(r"0x[0-9a-fA-F]+", "0x..", text)
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:_DETAIL_BYTES]


_silence = threading.Lock()
_silenced: list[Any] = []


@contextmanager
def pillow_warnings_off() -> Iterator[None]:
    """Ignores warnings while any thread decodes; the filters are put back when the last one leaves.

    `warnings.catch_warnings` alone is not safe in threads: the first to leave would put the filters back for all.
    """
    with _silence:
        if not _silenced:
            guard = warnings.catch_warnings()
            guard.__enter__()
            warnings.simplefilter("ignore")
            _silenced.append(guard)
        _silenced.append(None)
    try:
        yield
    finally:
        with _silence:
            _silenced.pop()
            if len(_silenced) == 1:
                _silenced.pop().__exit__(None, None, None)

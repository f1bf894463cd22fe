"""Image bytes: fixed encoder settings, the copies that are staged, and the perceptual hash they are checked by."""

import io
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from pipeline.world.scenes import Pixels

Format = Literal["jpeg", "png", "webp", "gif", "bmp", "tiff"]
SUFFIXES: dict[Format, str] = {"jpeg": "jpg", "png": "png", "webp": "webp", "gif": "gif", "bmp": "bmp", "tiff": "tif"}
_SETTINGS: dict[Format, dict[str, Any]] = {
    "jpeg": {"quality": 90, "subsampling": "4:2:0", "optimize": False, "progressive": False},
    "png": {"compress_level": 6},
    "webp": {"quality": 90, "method": 4},
    "gif": {"optimize": False},
    "bmp": {},
    "tiff": {"compression": "tiff_lzw"},
}


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image as it is served.

    Attributes:
        body: The file.
        media_type: E.g. ``image/jpeg``.
        suffix: File name suffix without a dot.
        width: Pixels.
        height: Pixels.
        phash: 64-bit perceptual hash of the decoded file (`imagehash.phash`, size 8), first bit highest.
    """

    body: bytes
    media_type: str
    suffix: str
    width: int
    height: int
    phash: int


def encode(pixels: Pixels, kind: Format, exif: bytes = b"", **settings: Any) -> Encoded:  # noqa: ANN401
    """Encode pixels with this module's fixed settings.

    Args:
        pixels: (height, width, 3), or (height, width) for grey.
        kind: File format.
        exif: Raw EXIF block for a JPEG.
        settings: What differs from the fixed settings.
    """
    out = io.BytesIO()
    image = Image.fromarray(pixels)
    if kind == "gif":
        image = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    told = _SETTINGS[kind] | settings | ({"exif": exif} if exif else {})
    image.save(out, format=kind.upper(), **told)
    return described(out.getvalue())


def described(body: bytes) -> Encoded:
    """Describe an encoded image by decoding it.

    Raises:
        OSError: It cannot be decoded.
    """
    import imagehash  # scipy behind it takes half a second to import

    with Image.open(io.BytesIO(body)) as image:
        kind: Format = (image.format or "").lower()  # type: ignore[assignment]
        bits = imagehash.phash(image.convert("RGB")).hash.flatten()
        value = int("".join("1" if bit else "0" for bit in bits), 2)
        return Encoded(body, f"image/{kind}", SUFFIXES[kind], image.width, image.height, value)


def encoded_again(original: Encoded, quality: int) -> Encoded:
    """Return a JPEG re-encoding of a served image: a near copy with other bytes."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(original.body)) as image:
        image.convert("RGB").save(out, format="JPEG", **(_SETTINGS["jpeg"] | {"quality": quality}))
    return described(out.getvalue())


def shrunk(original: Encoded, share: float) -> Encoded:
    """Return a served image resized to ``share`` of its sides (bicubic) as a JPEG: a near copy with other bytes."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(original.body)) as image:
        size = (round(image.width * share), round(image.height * share))
        small = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        small.save(out, format="JPEG", **_SETTINGS["jpeg"])
    return described(out.getvalue())


def distance(left: int, right: int) -> int:
    """Return the Hamming distance of two perceptual hashes, 0 to 64."""
    return (left ^ right).bit_count()

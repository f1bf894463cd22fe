"""The source pictures inside the wheels: what they are, and their pixels."""

import io
import struct
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.world.errors import WorldError
from pipeline.world.wheels import read_member

Pixels = NDArray[np.uint8]

_TIFF_TILE = 256
_TIFF_BANDS = 7
_TRUE_COLOUR = (2, 1, 0)  # bands 3, 2, 1 of Landsat 7, counted from 0


@dataclass(frozen=True, slots=True)
class Scene:
    """One file taken out of a wheel, as `scenes.toml` lists it.

    Attributes:
        key: Short name, e.g. ``yell2``; the split group is ``world:<key>``.
        kind: overhead, photo, print, drawn, or patches: an archive of BigEarthNet's.
        wheel: Name of the wheel.
        member: Its name inside the wheel.
        bytes: Exact size.
        sha256: Hex digest.
        what: What it shows.
        licence: The licence and on what that claim rests.
        credit: Whom to name.
    """

    key: str
    kind: str
    wheel: str
    member: str
    bytes: int
    sha256: str
    what: str
    licence: str
    credit: str


def scenes() -> dict[str, Scene]:
    """Return every source picture by key, in file order."""
    with Path(__file__).with_name("scenes.toml").open("rb") as file:
        return {entry["key"]: Scene(**entry) for entry in tomllib.load(file)["scene"]}


def scene_bytes(scene: Scene, wheel_paths: dict[str, Path]) -> bytes:
    """Return the checked file of a scene.

    Raises:
        WorldError: It is missing or differs from its pin.
    """
    return read_member(wheel_paths[scene.wheel], scene.member, scene.bytes, scene.sha256)


def scene_pixels(scene: Scene, body: bytes, reduce: int = 1) -> Pixels:
    """Return a scene as 8-bit RGB, stretched for display where it is raw.

    Args:
        scene: The scene.
        body: Its file.
        reduce: Read a JPEG at 1/reduce of its size (1, 2, 4, 8).

    Returns:
        Array (height, width, 3).

    Raises:
        WorldError: The file cannot be decoded.
    """
    try:
        if scene.key == "slc_rgb":
            bands = _seven_band_tiff(body)[:, :, _TRUE_COLOUR]
            return _stretch(bands, np.ones(bands.shape[:2], dtype=np.bool_), 99.7)
        with Image.open(io.BytesIO(body)) as image:
            image.draft("RGB", (image.width // reduce, image.height // reduce))
            pixels: Pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, struct.error) as error:
        raise WorldError(
            f"cannot decode {scene.member}: {error}; Pillow needs its usual codecs (libtiff, zlib)"
        ) from error
    return _stretch(pixels, pixels.max(axis=2) > 0, 99.5) if scene.key == "sfbay" else pixels


def _stretch(pixels: Pixels, used: NDArray[np.bool_], high_percent: float) -> Pixels:
    """Scale every channel so that its 0.5 and ``high_percent`` points over ``used`` become 0 and 255."""
    out = np.empty_like(pixels)
    for channel in range(3):
        low, high = np.percentile(pixels[:, :, channel][used], [0.5, high_percent])
        scaled = (pixels[:, :, channel].astype(np.float64) - low) * (255.0 / max(high - low, 1.0))
        out[:, :, channel] = np.clip(scaled, 0, 255).astype(np.uint8)
    return out


def _seven_band_tiff(body: bytes) -> Pixels:
    """Decode the tiled 7-band LZW file with horizontal differencing, which Pillow cannot open.

    Each tile's LZW bytes are handed to Pillow as a grey image seven times as wide; the differencing is undone here.

    Returns:
        Array (height, width, 7).
    """
    tags = _tiff_tags(body)
    width, height = tags[256][0], tags[257][0]
    layout = (tags[259][0], tags[277][0], tags[284][0], tags[317][0], tags[322][0], tags[323][0])
    if layout != (5, _TIFF_BANDS, 1, 2, _TIFF_TILE, _TIFF_TILE):
        raise ValueError(f"unexpected TIFF layout {layout}")
    across = -(-width // _TIFF_TILE)
    down = -(-height // _TIFF_TILE)
    canvas = np.zeros((down * _TIFF_TILE, across * _TIFF_TILE, _TIFF_BANDS), dtype=np.uint8)
    for number, (start, size) in enumerate(zip(tags[324], tags[325], strict=True)):
        with Image.open(io.BytesIO(_grey_tiff(body[start : start + size]))) as image:
            steps = np.asarray(image).reshape(_TIFF_TILE, _TIFF_TILE, _TIFF_BANDS)
        y, x = number // across * _TIFF_TILE, number % across * _TIFF_TILE
        canvas[y : y + _TIFF_TILE, x : x + _TIFF_TILE] = np.cumsum(steps, axis=1, dtype=np.uint8)
    return canvas[:height, :width]


def _tiff_tags(body: bytes) -> dict[int, tuple[int, ...]]:
    """Return the SHORT and LONG tags of a little-endian TIFF's first directory."""
    if body[:4] != b"II*\0":
        raise ValueError("not a little-endian TIFF")
    (start,) = struct.unpack_from("<I", body, 4)
    (count,) = struct.unpack_from("<H", body, start)
    tags: dict[int, tuple[int, ...]] = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from("<HHI", body, entry)
        if kind in (3, 4):
            code, size_bytes = ("H", 2) if kind == 3 else ("I", 4)
            at = entry + 8 if values * size_bytes <= 4 else struct.unpack_from("<I", body, entry + 8)[0]
            tags[tag] = struct.unpack_from(f"<{values}{code}", body, at)
    return tags


def _grey_tiff(strip: bytes) -> bytes:
    """Wrap one LZW strip into a TIFF of one 8-bit channel, 256 rows of 256 * 7 values."""
    wide = _TIFF_TILE * _TIFF_BANDS
    tags: Iterable[tuple[int, int, int]] = (
        (256, 4, wide), (257, 4, _TIFF_TILE), (258, 3, 8), (259, 3, 5), (262, 3, 1), (273, 4, 8),
        (277, 3, 1), (278, 4, _TIFF_TILE), (279, 4, len(strip)),
    )  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    padded = strip + b"\0" * (len(strip) % 2)
    header = b"II*\0" + struct.pack("<I", 8 + len(padded))
    return header + padded + struct.pack("<H", 9) + entries + struct.pack("<I", 0)

"""What travels between `guarded` and its child: requests and replies as plain bytes of fixed form.

A codec that went wrong may have written anywhere in the child's memory, so the parent believes nothing of a reply but
what it can check: lengths, names and types. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

KINDS = ("exact", "fast")
THUMBNAIL_BYTES = 256
HASHES = 8
_REQUEST = struct.Struct("<B?dQQQ")
_REPLY = struct.Struct("<BI")
_REPLY_BYTES = 1 << 16
_HASH_END = 1 << 64
_TEXT = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_LAST_STATUS = 5
_TYPES: dict[str, tuple[type, ...]] = {
    "width": (int,),
    "height": (int,),
    "mode": (str,),
    "frames": (int,),
    "exif_orientation": (int,),
    "exif_lon": (float, type(None)),
    "exif_lat": (float, type(None)),
    "hash_kind": (str,),
    "phash": (int,),
    "phash_d4": (list,),
    "texture": (float,),
}
_REFUSED_TYPES: dict[str, tuple[type, ...]] = {"reason": (str,), "detail": (str,)}


class Status(IntEnum):
    """What a reply is.

    Attributes:
        READY: The first of a child: it has started.
        SEEN: What `inspected` found of a picture; the child is ready for more.
        REFUSED: Why it is none; the child is ready for more.
        HOG: The image needed more memory than it may have. After this and the following the child ends.
        SHORT: The machine did not have the memory that an image may have.
        RAISED: `inspected` raised what it never should: one line.
    """

    READY = 0
    SEEN = 1
    REFUSED = 2
    HOG = 3
    SHORT = 4
    RAISED = _LAST_STATUS


class FrameError(ValueError):
    """A reply is not what a child in its right mind says."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a child; the body follows.

    Attributes:
        kind: "exact" or "fast".
        prompt: Whether its reply is sent before the next is taken up; others may be held back while there is work.
        cpu_s: CPU time the image may take.
        memory_bytes: Address space the image may take, beyond what the child has mapped before its first image.
        max_pixels: Greatest accepted pixel count.
        body_bytes: Length of the body.
    """

    kind: str
    prompt: bool
    cpu_s: float
    memory_bytes: int
    max_pixels: int
    body_bytes: int

    SIZE = _REQUEST.size

    def packed(self) -> bytes:
        """Return its bytes."""
        kind = KINDS.index(self.kind)
        return _REQUEST.pack(kind, self.prompt, self.cpu_s, self.memory_bytes, self.max_pixels, self.body_bytes)

    @classmethod
    def unpacked(cls, raw: bytes) -> Request:
        """Return the request that `packed` gave the bytes of."""
        kind, prompt, cpu_s, memory_bytes, max_pixels, body_bytes = _REQUEST.unpack(raw)
        return cls(KINDS[kind], prompt, cpu_s, memory_bytes, max_pixels, body_bytes)


def reply(status: Status, payload: bytes = b"") -> bytes:
    """Return the bytes of a reply."""
    return _REPLY.pack(status, len(payload)) + payload


def take_reply(incoming: bytearray) -> tuple[Status, bytes] | None:
    """Take the first whole reply off what was read; None if there is none yet.

    Raises:
        FrameError: What was read is no reply.
    """
    if len(incoming) < _REPLY.size:
        return None
    status, length = _REPLY.unpack_from(incoming)
    if status > _LAST_STATUS or length > _REPLY_BYTES:
        raise FrameError(f"a reply of kind {status} and {length} bytes")
    end = _REPLY.size + length
    if len(incoming) < end:
        return None
    payload = bytes(incoming[_REPLY.size : end])
    del incoming[:end]
    return Status(status), payload


def pack_found(found: dict[str, Any]) -> tuple[Status, bytes]:
    """Return what `inspected` found as bytes: the thumbnail's 256, where there is one, then the rest as JSON."""
    rest = {name: value for name, value in found.items() if name != "thumbnail"}
    text = _TEXT.encode(rest).encode("ascii")
    return (Status.SEEN, found["thumbnail"].tobytes() + text) if "thumbnail" in found else (Status.REFUSED, text)


def unpack_found(status: Status, payload: bytes) -> dict[str, Any]:
    """Return what `pack_found` gave the bytes of, checked.

    Raises:
        FrameError: It is not of that form.
    """
    if status is Status.REFUSED:
        return _checked(payload, _REFUSED_TYPES)
    found = _checked(payload[THUMBNAIL_BYTES:], _TYPES)
    hashes = found["phash_d4"]
    whole = all(type(value) is int and 0 <= value < _HASH_END for value in hashes)
    if len(hashes) != HASHES or not whole or found["phash"] != hashes[0]:
        raise FrameError("a reply with other hashes")
    return {**found, "thumbnail": np.frombuffer(payload, np.uint8, THUMBNAIL_BYTES)}


def _checked(text: bytes, types: dict[str, tuple[type, ...]]) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FrameError("a reply that is no JSON") from error
    if not isinstance(found, dict) or found.keys() != types.keys():
        raise FrameError("a reply with other fields")
    if wrong := [name for name, value in found.items() if type(value) not in types[name]]:
        raise FrameError(f"a reply whose {wrong[0]} is of another type")
    return found

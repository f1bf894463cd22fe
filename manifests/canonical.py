"""Canonical JSON and its digest: equal values, equal bytes."""

from __future__ import annotations

import hashlib
import json

from pydantic import JsonValue

__all__ = ["JsonValue", "canonical_digest", "canonical_json", "json_hasher"]

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: object) -> bytes:
    """Return ``value`` as UTF-8 JSON with sorted keys and no spaces; NaN and infinity are refused."""
    return _ENCODER.encode(value).encode("utf-8", "surrogatepass")


def canonical_digest(value: object) -> str:
    """Return the 32 hex digits of BLAKE2b-128 over the canonical JSON of ``value``."""
    return json_hasher(canonical_json(value)).hexdigest()


def json_hasher(data: bytes = b"") -> hashlib.blake2b:
    """Return the hasher of `canonical_digest`, fed with ``data``: for canonical JSON that is put together of pieces."""
    return hashlib.blake2b(data, digest_size=16, person=b"rs5m-json-1")

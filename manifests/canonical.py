"""Canonical JSON and its digest: equal values, equal bytes."""

from __future__ import annotations

import hashlib
import json

from pydantic import JsonValue

__all__ = ["JsonValue", "canonical_digest", "canonical_json"]


def canonical_json(value: object) -> bytes:
    """Return ``value`` as UTF-8 JSON with sorted keys and no spaces; NaN and infinity are refused."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def canonical_digest(value: object) -> str:
    """Return the 32 hex digits of BLAKE2b-128 over the canonical JSON of ``value``."""
    return hashlib.blake2b(canonical_json(value), digest_size=16, person=b"rs5m-json-1").hexdigest()

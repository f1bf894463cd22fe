"""Reads the loosely typed values of metadata: the same field is int32 here, float64 there and text elsewhere."""

import json
import math
from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal

FLOAT32_MAX = 3.4028234e38
"""Numbers beyond it are read as nothing."""
_DETAIL_BYTES = 200
_QUOTED = json.encoder.encode_basestring
_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def word(value: object) -> str | None:
    """Read a value as words.

    Args:
        value: What a column holds.

    Returns:
        Text as it is, dates in ISO 8601, whole floats without a fraction, "true" and "false"; None for null, empty
        text, NaN, and lists and objects, which are no words.

    Raises:
        ValueError: Bytes that are not UTF-8.
    """
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, list | tuple | dict):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.decode() or None
    if isinstance(value, float):
        return None if not math.isfinite(value) else str(int(value) if value.is_integer() else value)
    return value.isoformat() if isinstance(value, date | time) else str(value)


def number(value: object) -> float | None:
    """Read a value as a number.

    Args:
        value: A number, or text that spells one.

    Returns:
        The number; None for anything else, and for what float32 cannot hold (NaN, infinity).
    """
    if not isinstance(value, int | float | str | Decimal):
        return None
    try:
        read = float(value)
    except (ValueError, OverflowError):
        return None
    return read if abs(read) <= FLOAT32_MAX else None


def pixels(value: object) -> int | None:
    """Read a value as a count of pixels, whatever type the column has.

    Args:
        value: A number, or text that spells one.

    Returns:
        The whole part; None for anything else, and outside 1 to 2**31 - 1.
    """
    read = number(value)
    return int(read) if read is not None and 1 <= read < 2**31 else None


def canonical(raw: Mapping[str, object]) -> str | None:
    """Write columns as canonical JSON: sorted keys, no spaces, UTF-8 as it is.

    Args:
        raw: Column to value.

    Returns:
        The JSON of what is not null; None when nothing is.
    """
    parts = [f"{_QUOTED(name)}:{said}" for name in sorted(raw) if (said := _json(raw[name])) is not None]
    return "{" + ",".join(parts) + "}" if parts else None


def _json(value: object) -> str | None:
    """Return a value's JSON; the plain ones go past the encoder, which is slow to start."""
    if type(value) is int:
        return str(value)
    if type(value) is str:
        return _QUOTED(value)
    plain = _plain(value)
    return None if plain is None else _CANONICAL.encode(plain)


def _plain(value: object) -> object:
    """Turn a value of a column into what JSON can hold; what it cannot hold (NaN) becomes None."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return value.hex() if isinstance(value, bytes) else word(value)


def detail(words: str) -> str:
    """Make a reason fit for the ledger: ASCII, control characters escaped, at most 200 bytes.

    Args:
        words: The reason.

    Returns:
        The reason, cut where it is too long.
    """
    return words.encode("unicode_escape").decode("ascii")[:_DETAIL_BYTES]

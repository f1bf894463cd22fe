"""YAML text for data: a double-quoted scalar that reads back as it was, whatever it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping


def quoted(text: str) -> str:
    """Return a double-quoted YAML scalar, which is a JSON string with YAML's escapes for what it may not hold."""
    return "".join(char if char.isprintable() else _escape(char) for char in json.dumps(text, ensure_ascii=False))


def flow(table: Mapping[str, str]) -> str:
    """Return a mapping of texts on one line."""
    return "{" + ", ".join(f"{quoted(key)}: {quoted(value)}" for key, value in table.items()) + "}"


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
